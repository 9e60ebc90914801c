"""The tail of one run: replay with XRANGE, then what the live source tells.

A tail is a cursor and nothing else. It checks that the journal still holds what it stands after
before it reads, and again after every broken connection; and it checks that seq has no hole.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from murmur_streams.core.model.cursors import Cursor
from murmur_streams.core.model.entries import EntryType, JournalEntry
from murmur_streams.core.model.errors import (
    CursorGapError,
    CursorResetError,
    RunNotFoundError,
)
from murmur_streams.core.model.states import TERMINAL_STATES, RunState
from murmur_streams.core.rules.decide import Answer
from murmur_streams.stores.redis.live.coalesce import SharedReads
from murmur_streams.stores.redis.live.hub import Live
from murmur_streams.stores.redis.live.run_buffer import Followed
from murmur_streams.stores.redis.server import Server, text

logger = logging.getLogger("murmur_streams.redis")

PAGE_ENTRIES = 256
LONGEST_WAIT_SECONDS = 3600.0
"""For news of a live run; the live source looks after the server and the run itself."""

Seal = Callable[[str], Awaitable[Answer]]


@dataclass(slots=True)
class _Place:
    """Where a tail is, and what it knows of the end."""

    epoch: str
    ms: int = 0
    seq: int = 0
    seal: int | None = None
    ended: bool = False
    last_id: str = "0-0"
    """Where the journal ended when it was opened."""

    @property
    def entry_id(self) -> str:
        return f"{self.ms}-{self.seq}"

    @property
    def cursor(self) -> Cursor:
        return Cursor(self.epoch, self.ms, self.seq)

    @property
    def is_past_seal(self) -> bool:
        return self.seal is not None and self.seq >= self.seal


class Tails:
    """Opens tails on the journals of one store."""

    def __init__(self, server: Server, seal: Seal) -> None:
        self._server = server
        self._seal = seal
        self._live: dict[int, Live] = {}
        self._shared = SharedReads()

    @property
    def followers(self) -> int:
        """How many subscribers wait for news."""
        return sum(live.followers for live in self._live.values())

    async def close(self) -> None:
        """Wake every subscriber with StoreClosedError."""
        for live in self._live.values():
            await live.close()

    async def stream(self, run_id: str, after: Cursor | None) -> AsyncGenerator[JournalEntry]:
        """Yield entries up to the seal, waiting for what is to come.

        Raises:
            RunNotFoundError: no such run.
            CursorGapError, CursorResetError: the tail cannot go on without silence or repeats.
            StoreUnavailableError: the server stayed out of reach; resume by the last cursor.
        """
        place = await self._open(run_id, after)
        if place.is_past_seal:
            return
        # An ended run's stream is its journal alone: nothing to follow.
        read = self._tail if place.seal is None else self._replay
        async with contextlib.aclosing(read(run_id, place)) as entries:
            async for entry in entries:
                yield entry
                if place.is_past_seal:
                    return

    async def journal(
        self, run_id: str, after: Cursor | None, *, follow: bool
    ) -> AsyncGenerator[JournalEntry]:
        """Yield all entries, late ones included; with ``follow``, also what comes till the seal."""
        place = await self._open(run_id, after)
        async for entry in self._replay(run_id, place):
            yield entry
        if not follow or place.is_past_seal:
            return
        async with contextlib.aclosing(self._tail(run_id, place)) as entries:
            async for entry in entries:
                yield entry

    async def _tail(self, run_id: str, place: _Place) -> AsyncGenerator[JournalEntry]:
        partition = self._server.keys.partition(run_id)
        live = self._live.setdefault(partition, Live(self._server, partition))
        async with live.follow(run_id, place.last_id) as run:
            seen = (-1, run.verifies)
            while not place.is_past_seal:
                if run.error is not None:
                    raise run.error
                news, now = run.news, (run.rereads, run.verifies)
                raws = run.since(place.seq)
                if raws is None or now != seen:
                    if now[1] != seen[1]:
                        await self._reopen(run_id, place)
                    seen, before = now, place.seq
                    async for entry in self._replay(run_id, place):
                        yield entry
                    if raws is None and place.seq == before:
                        self._refuse_hole(run, place)
                    continue
                for raw in raws:
                    entry = read_entry(run_id, place.epoch, raw)
                    self._advance(place, entry)
                    yield entry
                if not raws:
                    await run.changed(news, await self._patience(run, place))

    def _refuse_hole(self, run: Followed, place: _Place) -> None:
        """Raise when entries were told of, but the journal no longer has those before them."""
        oldest = run.oldest()
        if oldest is not None and run.since(place.seq) is None:
            self._advance(place, read_entry(run.run_id, place.epoch, oldest))

    async def _patience(self, run: Followed, place: _Place) -> float:
        """How long to wait for news, in seconds: a run that has ended is sealed in time."""
        if not place.ended or place.seal is not None:
            return LONGEST_WAIT_SECONDS
        return await self._seal_when_due(run)

    async def _open(self, run_id: str, after: Cursor | None) -> _Place:
        keys = self._server.keys
        run, journal = keys.run(run_id), keys.journal(run_id)
        at = after.entry_id if after is not None else "0-0"
        commands = (
            ("HMGET", run, "epoch", "version", "state", "seal"),
            ("XRANGE", journal, at, at),
            ("XRANGE", journal, "-", "+", "COUNT", 1),
            ("XREVRANGE", journal, "+", "-", "COUNT", 1),
        )
        fields, found, oldest, newest = await self._shared.read(
            commands, lambda: self._server.read_all(*commands)
        )
        if fields[0] is None:
            raise RunNotFoundError(run_id)
        epoch, state = text(fields[0]), text(fields[2])
        place = _Place(
            epoch, ended=state in TERMINAL_STATES, seal=int(fields[3]) if fields[3] else None
        )
        if newest:
            place.last_id = text(newest[0][0])
        if after is not None:
            after.check(
                epoch=epoch,
                version=int(fields[1]),
                found=bool(found),
                oldest=_before(oldest, epoch),
            )
            place.ms, place.seq = after.ms, after.seq
        if not newest:
            # No trim empties a journal; what is waited for may never come.
            raise CursorResetError(
                f"the journal of run {run_id!r} is gone: deleted or emptied by hand, or the server "
                f"lost its data; its hash tells of {text(fields[1])} entries",
                None,
            )
        return place

    async def _replay(self, run_id: str, place: _Place) -> AsyncGenerator[JournalEntry]:
        journal = self._server.keys.journal(run_id)
        while True:
            command = ("XRANGE", journal, f"({place.entry_id}", "+", "COUNT", PAGE_ENTRIES)
            page = await self._shared.read(
                command, lambda command=command: self._server.read(*command)
            )
            for raw in page:
                entry = read_entry(run_id, place.epoch, raw)
                self._advance(place, entry)
                yield entry
            if len(page) < PAGE_ENTRIES:
                return

    async def _seal_when_due(self, run: Followed) -> float:
        run_id = run.run_id
        try:
            answer = await self._shared.read(("seal", run_id), lambda: self._seal(run_id))
        except RunNotFoundError:
            # Deleted or expired meanwhile: only a deletion leaves an entry that tells of it.
            run.verify()
            return 0.001
        return max(0.001, int(answer[1]) / 1000) if answer[0] == "WAIT" else 0.001

    async def _reopen(self, run_id: str, place: _Place) -> None:
        try:
            fresh = await self._open(run_id, place.cursor if place.seq else None)
        except RunNotFoundError:
            if await self._was_deleted(run_id, place):
                return
            raise CursorResetError(
                f"run {run_id!r} is gone: deleted, expired, or the server lost its data", None
            ) from None
        if fresh.epoch != place.epoch:
            raise CursorResetError(f"run {run_id!r} began a new life of its id", None)
        place.ended, place.seal = fresh.ended, fresh.seal

    async def _was_deleted(self, run_id: str, place: _Place) -> bool:
        # What a deletion leaves for a while ends with the entry that tells of it.
        last = await self._server.read(
            "XREVRANGE", self._server.keys.journal(run_id), "+", f"({place.entry_id}", "COUNT", 1
        )
        return bool(last) and read_entry(run_id, place.epoch, last[0]).type == EntryType.DELETED

    @staticmethod
    def _advance(place: _Place, entry: JournalEntry) -> None:
        if entry.type == EntryType.CREATED and entry.fields["epoch"] != place.epoch:
            raise CursorResetError(f"run {entry.run_id!r} began a new life of its id", None)
        if place.seq >= entry.seq:
            raise CursorResetError(
                f"entry {entry.seq} of run {entry.run_id!r} came after entry {place.seq}: the "
                "server lost writes; read again from the start",
                None,
            )
        if place.seq and entry.seq != place.seq + 1:
            resume = str(Cursor(place.epoch, entry.ms, entry.seq - 1))
            raise CursorGapError(
                f"entries {place.seq + 1} to {entry.seq - 1} were trimmed away", resume
            )
        place.ms, place.seq = entry.ms, entry.seq
        if entry.is_seal or entry.type == EntryType.DELETED:
            place.seal = entry.seq
        if entry.type == EntryType.STATE and RunState(entry.fields["state"]).is_terminal:
            place.ended = True


def read_entry(run_id: str, epoch: str, raw: Any) -> JournalEntry:
    """Read one raw stream entry."""
    ms, _, seq = text(raw[0]).partition("-")
    flat = [text(part) for part in raw[1]]
    fields = dict(zip(flat[::2], flat[1::2], strict=True))
    return JournalEntry(run_id, epoch, int(ms), int(seq), fields)


def _before(oldest: list[Any], epoch: str) -> Cursor | None:
    # The place just before the oldest kept entry: where a reader may go on after a gap.
    if not oldest:
        return None
    ms, _, seq = text(oldest[0][0]).partition("-")
    return Cursor(epoch, int(ms), int(seq) - 1)
