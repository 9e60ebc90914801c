"""Tails: a run's journal, replayed from the file and then followed in memory, without polling."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager

from murmur_streams.core.model.cursors import Cursor
from murmur_streams.core.model.entries import EntryType, JournalEntry
from murmur_streams.core.model.errors import (
    CursorGapError,
    CursorResetError,
    RunDamagedError,
    RunNotFoundError,
    StoreClosedError,
)
from murmur_streams.core.model.events import RunEvent
from murmur_streams.core.model.identifiers import check_run_id
from murmur_streams.core.model.run import Run
from murmur_streams.core.rules.decide import Answer
from murmur_streams.stores.local.engine.database import Stored
from murmur_streams.stores.local.engine.transaction import Written

PAGE = 500
PAST_LIVES = 4
RECENT = 1_000
"""So many entries of a followed run are kept for its subscribers; who is further behind reads."""

Page = tuple[Stored, list[JournalEntry]]
ReadPage = Callable[[str, int, int], Awaitable[Page | None]]


class _Followed:
    """One run that subscribers of this process follow."""

    def __init__(self) -> None:
        self.subscribers = 0
        self.run: Run | None = None
        """As this process wrote it last; None when it did not, or it is gone."""
        self.recent: deque[JournalEntry] = deque(maxlen=RECENT)
        self._past: dict[str, deque[JournalEntry]] = {}
        """By epoch: earlier lives of the id, deleted by this process while it was followed."""
        self.is_sure = False
        """Whether nothing but ``recent`` was written lately."""
        self.is_gone = False
        self.writes = 0
        """How often something was written that subscribers should look at."""
        self._waiting: set[asyncio.Future[None]] = set()

    def wake(self) -> None:
        self.writes += 1
        waiting, self._waiting = self._waiting, set()
        for future in waiting:
            if not future.done():
                future.set_result(None)

    async def until_written(self, seconds: float | None) -> bool:
        """Wait for the next write; False when it took too long."""
        future = asyncio.get_running_loop().create_future()
        self._waiting.add(future)
        try:
            if seconds is None:
                await future
                return True
            async with asyncio.timeout(seconds):
                await future
        except TimeoutError:
            return False
        finally:
            self._waiting.discard(future)
        return True

    def take(self, written: Written) -> None:
        """Take in what this process wrote."""
        for entry in written.entries:
            last = self.recent[-1] if self.recent else None
            if last is not None and (last.epoch, last.seq + 1) != (entry.epoch, entry.seq):
                if last.epoch != entry.epoch and self.is_sure:
                    self._keep_past(last.epoch)
                self.recent.clear()
            self.recent.append(entry)
        self.run = None if written.after is None else written.after.run
        self.is_gone = written.after is None
        last_seq = self.recent[-1].seq if self.recent else 0
        self.is_sure = self.run is None or self.run.version == last_seq
        self.wake()

    def after(self, epoch: str, seq: int) -> list[JournalEntry] | None:
        """What came after an entry; None when only the file can tell."""
        past = self._past.get(epoch)
        if past is not None:
            return _last_of(past, seq)
        if not self.is_sure:
            return None
        if not self.recent:
            return [] if self.is_gone else None
        return _last_of(self.recent, seq) if self.recent[-1].epoch == epoch else None

    def has_ended(self, epoch: str) -> bool:
        """Whether that life is over, and its last entries are known."""
        return epoch in self._past

    def _keep_past(self, epoch: str) -> None:
        """Keep the end of a life for subscribers who have not taken it yet."""
        while len(self._past) >= PAST_LIVES:
            self._past.pop(next(iter(self._past)))
        self._past[epoch] = deque(self.recent)


def _last_of(kept: deque[JournalEntry], seq: int) -> list[JournalEntry] | None:
    missing = max(0, kept[-1].seq - seq)
    return None if missing > len(kept) else [kept[place] for place in range(-missing, 0)]


class Tails:
    """All subscribers of this process.

    Args:
        read: reads a page of a journal and its run.
        seal: asks whether it is time to seal a run that ended without a closing event.
        moved: called when ``following`` may have changed.
    """

    def __init__(
        self,
        read: ReadPage,
        seal: Callable[[str], Awaitable[Answer]],
        moved: Callable[[], None],
    ) -> None:
        self._read = read
        self._seal = seal
        self._moved = moved
        self._followed: dict[str, _Followed] = {}
        self._is_closed = False

    @property
    def following(self) -> int:
        """How many runs are followed."""
        return len(self._followed)

    def close(self) -> None:
        """Wake every subscriber with StoreClosedError."""
        self._is_closed = True
        for followed in self._followed.values():
            followed.wake()

    def tell(self, written: Collection[Written]) -> None:
        """Hand on what this process wrote, in order."""
        for each in written:
            followed = self._followed.get(each.run_id)
            if followed is not None:
                followed.take(each)

    def look(self, run_ids: Collection[str] | None = None) -> None:
        """Let the subscribers of these runs, or of all, read the file: another process wrote."""
        for run_id in self._followed if run_ids is None else run_ids:
            followed = self._followed.get(run_id)
            if followed is not None:
                followed.is_sure = False
                followed.wake()

    async def events(self, run_id: str, after: str | None) -> AsyncGenerator[RunEvent]:
        """Yield the run's events after a cursor, until its stream has ended."""
        async with self._tail(run_id, late=False) as tail:
            page = await self._first(tail, after)
            while True:
                for entry in page:
                    if tail.takes(entry) and (event := entry.event()) is not None:
                        yield event
                if tail.is_over:
                    return
                page = await self._next(tail)

    async def journal(
        self, run_id: str, after: str | None, *, follow: bool
    ) -> AsyncGenerator[JournalEntry]:
        """Yield all entries after a cursor; with ``follow`` until the run's stream has ended."""
        async with self._tail(run_id, late=True) as tail:
            page = await self._first(tail, after)
            while True:
                for entry in page:
                    if tail.takes(entry):
                        yield entry
                if tail.is_over or (tail.is_caught_up and not follow):
                    return
                page = await self._next(tail)

    @asynccontextmanager
    async def _tail(self, run_id: str, *, late: bool) -> AsyncGenerator[_Tail]:
        """One subscriber, from before its first look on: nothing is missed in between."""
        check_run_id(run_id)
        followed = self._followed.setdefault(run_id, _Followed())
        followed.subscribers += 1
        self._moved()
        try:
            yield _Tail(run_id, followed, late=late)
        finally:
            followed.subscribers -= 1
            if not followed.subscribers:
                self._followed.pop(run_id, None)
                self._moved()

    async def _next(self, tail: _Tail) -> list[JournalEntry]:
        return await (self._more(tail) if tail.is_caught_up else self._page(tail))

    async def _first(self, tail: _Tail, after: str | None) -> list[JournalEntry]:
        cursor = None if after is None else Cursor.parse(after)
        run_id = tail.run_id
        found = await self._read(run_id, 0 if cursor is None else cursor.seq - 1, PAGE)
        if found is None:
            raise RunNotFoundError(run_id)
        stored, entries = found
        tail.begin(stored.run, 0 if cursor is None else cursor.seq)
        if cursor is None:
            return entries
        first = entries[0] if entries else None
        if first is None or first.seq != cursor.seq:
            oldest = await self._read(run_id, 0, 1)
            first = oldest[1][0] if oldest and oldest[1] else None
        cursor.check(
            epoch=stored.run.epoch,
            version=stored.run.version,
            found=first is not None and (first.seq, first.ms) == (cursor.seq, cursor.ms),
            oldest=None if first is None else Cursor(first.epoch, first.ms, first.seq - 1),
        )
        return entries

    async def _page(self, tail: _Tail) -> list[JournalEntry]:
        """Read on in the file."""
        tail.look()
        found = await self._read(tail.run_id, tail.seq, PAGE)
        self._check_open()
        if found is None or found[0].run.epoch != tail.run.epoch:
            last = tail.followed.after(tail.run.epoch, tail.seq)
            if not last:
                tail.lose(is_known=found is None or last is not None)
            return last or []
        tail.run, entries = found[0].run, found[1]
        if not entries and not tail.is_caught_up:
            raise RunDamagedError(
                tail.run_id, f"its journal ends at entry {tail.seq} of {tail.run.version}"
            )
        return entries

    async def _more(self, tail: _Tail) -> list[JournalEntry]:
        """Wait until there is more, or the tail is over."""
        followed = tail.followed
        while True:
            self._check_open()
            if tail.has_seen_all:
                if not await self._wait(tail):
                    return await self._page(tail)
                continue
            tail.look()
            page = followed.after(tail.run.epoch, tail.seq)
            if page is None:
                return await self._page(tail)
            if followed.run is not None and followed.run.epoch == tail.run.epoch:
                tail.run = followed.run
            if page or tail.is_over:
                return page
            if followed.is_gone or followed.has_ended(tail.run.epoch):
                tail.lose(is_known=True)
                return []

    async def _wait(self, tail: _Tail) -> bool:
        """Wait for a write; False when it is time to look into the file."""
        seconds: float | None = None
        if tail.run.state.is_terminal:
            answer = await self._seal(tail.run_id)
            if answer[0] != "WAIT":
                return False
            seconds = int(answer[1]) / 1000
            if not tail.has_seen_all:
                return True
        return await tail.followed.until_written(seconds)

    def _check_open(self) -> None:
        if self._is_closed:
            raise StoreClosedError("the store was closed while a stream was open")


class _Tail:
    """Where one subscriber is."""

    def __init__(self, run_id: str, followed: _Followed, *, late: bool) -> None:
        self.run_id = run_id
        self.followed = followed
        self._seen_writes = followed.writes
        self.seq = 0
        self.run: Run
        self._late = late
        self._is_over = False

    def begin(self, run: Run, seq: int) -> None:
        self.run, self.seq = run, seq

    @property
    def has_seen_all(self) -> bool:
        return self._seen_writes == self.followed.writes

    def look(self) -> None:
        """Remember that what was written until now is about to be seen."""
        self._seen_writes = self.followed.writes

    @property
    def is_caught_up(self) -> bool:
        return self.seq >= self.run.version

    @property
    def is_over(self) -> bool:
        return self._is_over or (self.run.seal is not None and self.is_caught_up)

    def lose(self, *, is_known: bool) -> None:
        """Take in that this life of the run is over: it has expired, or was deleted.

        Args:
            is_known: False when another life has its id, and nobody knows how this one ended.

        Raises:
            CursorResetError: it has expired, or its end may have been missed.
        """
        run = self.run
        self._is_over = True
        if not is_known:
            what = "another process deleted it and created it anew; its last entries may be missing"
            raise CursorResetError(f"run {self.run_id!r}: {what}", None)
        if run.state.is_terminal and run.seal is None and not self._was_deleted():
            raise CursorResetError(f"run {self.run_id!r} has expired", None)

    def takes(self, entry: JournalEntry) -> bool:
        """Whether to yield an entry; moves on."""
        if self._is_over or entry.seq <= self.seq:
            return False
        if self.seq and entry.seq != self.seq + 1:
            raise CursorGapError(
                f"entries {self.seq + 1} to {entry.seq - 1} were trimmed away",
                str(Cursor(entry.epoch, entry.ms, entry.seq - 1)),
            )
        run = self.run
        if not self._late and run.seal is not None and entry.seq > run.seal:
            self._is_over = True
            return False
        self.seq = entry.seq
        if entry.type == EntryType.DELETED:
            self._is_over = True
        return True

    def _was_deleted(self) -> bool:
        recent = self.followed.recent
        return bool(recent) and recent[-1].type == EntryType.DELETED
