"""The direct tail of one run: replay with XRANGE, then XREAD BLOCK on its journal.

A tail is a cursor and nothing else. It checks that the journal still holds what it stands after
before it reads, and again after every broken connection; and it checks that seq has no hole.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from murmur_streams.core.cursors import Cursor
from murmur_streams.core.decide import Answer
from murmur_streams.core.entries import EntryType, JournalEntry
from murmur_streams.core.errors import (
    CursorGapError,
    CursorResetError,
    RunNotFoundError,
    StoreClosedError,
)
from murmur_streams.core.states import TERMINAL_STATES, RunState
from murmur_streams.stores.redis.failures import Fate, clear_error, fate_of
from murmur_streams.stores.redis.server import Server, reason_of, text

logger = logging.getLogger("murmur_streams.redis")

PAGE_ENTRIES = 256
BLOCK_SECONDS = 20.0
"""Bounded, since a frozen server or a deleted key wakes nobody."""

_ENDED = frozenset(str(state) for state in TERMINAL_STATES)
Seal = Callable[[str], Awaitable[Answer]]


@dataclass(slots=True)
class _Place:
    """Where a tail is, and what it knows of the end."""

    epoch: str
    ms: int = 0
    seq: int = 0
    seal: int | None = None
    ended: bool = False

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

    async def stream(self, run_id: str, after: Cursor | None) -> AsyncGenerator[JournalEntry]:
        """Yield entries up to the seal, waiting for what is to come.

        Raises:
            RunNotFoundError: no such run.
            CursorGapError, CursorResetError: the tail cannot go on without silence or repeats.
            StoreUnavailableError: the server stayed out of reach; resume by the last cursor.
        """
        place = await self._open(run_id, after)
        async for entry in self._replay(run_id, place):
            yield entry
            if place.is_past_seal:
                return
        while not place.is_past_seal:
            for entry in await self._next(run_id, place):
                self._advance(place, entry)
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
        while follow and not place.is_past_seal:
            for entry in await self._next(run_id, place):
                self._advance(place, entry)
                yield entry

    async def _open(self, run_id: str, after: Cursor | None) -> _Place:
        keys = self._server.keys
        run, journal = keys.run(run_id), keys.journal(run_id)
        at = after.entry_id if after is not None else "0-0"
        fields, found, oldest = await self._server.read_all(
            ("HMGET", run, "epoch", "version", "state", "seal"),
            ("XRANGE", journal, at, at),
            ("XRANGE", journal, "-", "+", "COUNT", 1),
        )
        if fields[0] is None:
            raise RunNotFoundError(run_id)
        epoch, state = text(fields[0]), text(fields[2])
        place = _Place(epoch, ended=state in _ENDED, seal=int(fields[3]) if fields[3] else None)
        if after is not None:
            before = _before(oldest, epoch)
            after.check(
                epoch=epoch,
                version=int(fields[1]),
                found=bool(found) or _is_at(after, before),
                oldest=before,
            )
            place.ms, place.seq = after.ms, after.seq
        return place

    async def _replay(self, run_id: str, place: _Place) -> AsyncGenerator[JournalEntry]:
        journal = self._server.keys.journal(run_id)
        while True:
            page = await self._server.read(
                "XRANGE", journal, f"({place.entry_id}", "+", "COUNT", PAGE_ENTRIES
            )
            for raw in page:
                entry = read_entry(run_id, place.epoch, raw)
                self._advance(place, entry)
                yield entry
            if len(page) < PAGE_ENTRIES:
                return

    async def _next(self, run_id: str, place: _Place) -> list[JournalEntry]:
        """Wait for entries; an empty list means: look again."""
        seconds = BLOCK_SECONDS
        if place.ended and place.seal is None:
            seconds = min(seconds, await self._seal_when_due(run_id))
        raws = await self._block(run_id, place, seconds)
        if raws is None:
            await self._reopen(run_id, place)
            return []
        return [read_entry(run_id, place.epoch, raw) for raw in raws]

    async def _seal_when_due(self, run_id: str) -> float:
        try:
            answer = await self._seal(run_id)
        except RunNotFoundError:
            return 0.001  # Deleted meanwhile: its journal, or a look at the run, tells.
        return max(0.001, int(answer[1]) / 1000) if answer[0] == "WAIT" else 0.001

    async def _block(self, run_id: str, place: _Place, seconds: float) -> list[Any] | None:
        # None: nothing came in time, or the connection broke; either way the cursor is checked.
        command = ("XREAD", "COUNT", PAGE_ENTRIES, "BLOCK", max(1, int(seconds * 1000)))
        journal = self._server.keys.journal(run_id)
        try:
            reply = await self._server.blocking(
                *command, "STREAMS", journal, place.entry_id, seconds=seconds
            )
        except Exception as error:  # noqa: BLE001  # every error of the driver is judged here
            reason = reason_of(error)
        else:
            return reply[0][1] if reply else None
        if self._server.closed:
            raise StoreClosedError("the store was closed while a stream was open")
        if fate_of(reason) is Fate.REFUSED:
            raise clear_error(reason, self._server.where) from None
        logger.debug("the tail of run %s lost its connection: %r", run_id, reason)
        await self._server.recover(0)
        return None

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


def _is_at(cursor: Cursor, before: Cursor | None) -> bool:
    # Nothing is missing after the place before the oldest entry, whether or not an entry was there.
    return before is not None and cursor.seq == before.seq and cursor.ms <= before.ms


def _before(oldest: list[Any], epoch: str) -> Cursor | None:
    # The place just before the oldest kept entry: where a reader may go on after a gap.
    if not oldest:
        return None
    ms, _, seq = text(oldest[0][0]).partition("-")
    return Cursor(epoch, int(ms), int(seq) - 1)
