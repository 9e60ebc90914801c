"""The tails of a database in this process: replay a journal from it, then follow in memory.

A tail only fetches; ``core.rules.reading`` decides what its reader gets. No tail polls: a
writer of this process hands its entries to the buffers of the followed runs. Where other processes
may write, the store's own thread asks for that, and makes these readers read the database again.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from murmur_streams.core.model import errors
from murmur_streams.core.model.entries import Cursor, EntryType, JournalEntry
from murmur_streams.core.model.events import RunEvent
from murmur_streams.core.model.limits import check_run_id
from murmur_streams.core.model.run import Run
from murmur_streams.core.rules.decide import Answer
from murmur_streams.core.rules.reading import Reading
from murmur_streams.stores.local.engine.database import EntryRow, RowPage
from murmur_streams.stores.local.engine.transaction import Written
from murmur_streams.stores.local.engine.views import entries_of, events_of
from murmur_streams.stores.tail import read_tail

PAGE = 500
PAST_LIVES = 4
RECENT = 1_000
"""A followed run buffers this many entries; a reader further behind reads the database."""

ReadPage = Callable[[str, int, int], Awaitable[RowPage | None]]


class RecentEntries:
    """The last entries of one followed run, shared by its subscribers in this process."""

    def __init__(self) -> None:
        self.subscribers = 0
        self.run: Run | None = None
        """As this process wrote it last; None when it did not, or the run is gone."""
        self.recent: deque[JournalEntry] = deque(maxlen=RECENT)
        self._past: dict[str, deque[JournalEntry]] = {}
        """By epoch: earlier lives of the id, deleted by this process while it was followed."""
        self.is_sure = False
        """Whether ``recent`` ends with the run's last entry: no other process wrote since."""
        self.is_gone = False
        self.writes = 0
        """Counts up with each write that subscribers should look at."""
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
            else:
                await asyncio.wait_for(future, seconds)
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
                    self._retain_life(last.epoch)
                self.recent.clear()
            self.recent.append(entry)
        self.run = None if written.after is None else written.after.run
        self.is_gone = written.after is None
        last_seq = self.recent[-1].seq if self.recent else 0
        self.is_sure = self.run is None or self.run.version == last_seq
        self.wake()

    def after(self, epoch: str, seq: int) -> list[EntryRow] | None:
        """The entries of a life after ``seq``; None when they must be read from the database."""
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
        return self.is_gone or epoch in self._past

    def _retain_life(self, epoch: str) -> None:
        """Retain the end of a life for the subscribers that have not read it yet.

        Without it: one write call deletes a run and creates its id anew before a subscriber has
        run. The subscriber then finds the new life, and could not know whether it missed entries.
        """
        while len(self._past) >= PAST_LIVES:
            self._past.pop(next(iter(self._past)))
        self._past[epoch] = deque(self.recent)


def _last_of(entries: deque[JournalEntry], seq: int) -> list[EntryRow] | None:
    missing = max(0, entries[-1].seq - seq)
    if missing > len(entries):
        return None
    last = map(entries.__getitem__, range(-missing, 0))
    return [(each.epoch, each.ms, each.seq, each.fields) for each in last]


@dataclass(eq=False)
class LocalTails:
    """All subscribers of this process."""

    read: ReadPage
    """Reads a page of a journal and its run."""
    seal: Callable[[str], Awaitable[Answer]]
    """Seals a run that ended without a closing event, or answers how long to wait."""
    moved: Callable[[], None]
    """Called when ``following`` may have changed."""
    _followed: dict[str, RecentEntries] = field(default_factory=dict[str, RecentEntries])
    _is_closed: bool = False

    @property
    def following(self) -> int:
        """How many runs are followed."""
        return len(self._followed)

    def close(self) -> None:
        """Wake every subscriber with StoreClosedError."""
        self._is_closed = True
        for followed in self._followed.values():
            followed.wake()

    def check_open(self) -> None:
        """Raise StoreClosedError when the store was closed."""
        if self._is_closed:
            raise errors.StoreClosedError("the store was closed while a stream was open")

    def publish(self, written: Collection[Written]) -> None:
        """Hand on what this process wrote, in order."""
        for each in written:
            followed = self._followed.get(each.run_id)
            if followed is not None:
                followed.take(each)

    def look(self, run_ids: Collection[str] | None = None) -> None:
        """Let the subscribers of these runs, or of all, read again: another process wrote."""
        for run_id in self._followed if run_ids is None else run_ids:
            followed = self._followed.get(run_id)
            if followed is not None:
                followed.is_sure = False
                followed.wake()

    def events(self, run_id: str, after: str | None) -> AsyncGenerator[RunEvent]:
        """Yield the run's events after a cursor, until its stream has ended."""
        return read_tail(self._tail(run_id, after, late=False), events_of)

    def journal(
        self, run_id: str, after: str | None, *, follow: bool
    ) -> AsyncGenerator[JournalEntry]:
        """Yield all entries after a cursor; with ``follow`` until the run's stream has ended."""
        return read_tail(self._tail(run_id, after, late=True), entries_of, follow=follow)

    @asynccontextmanager
    async def _tail(
        self, run_id: str, after: str | None, *, late: bool
    ) -> AsyncGenerator[LocalTail]:
        check_run_id(run_id)
        # Follow first, then read. The other way round, an entry that is written between the read
        # and the first wait would not wake the reader, which would get it only with the next one.
        followed = self._followed.setdefault(run_id, RecentEntries())
        followed.subscribers += 1
        self.moved()
        try:
            tail = LocalTail(self, followed, Reading(run_id, late))
            await tail.begin(None if after is None else Cursor.parse(after))
            yield tail
        finally:
            followed.subscribers -= 1
            if not followed.subscribers:
                self._followed.pop(run_id, None)
                self.moved()


class LocalTail:
    """One reader of one run, on the database and on the buffer of recent entries."""

    __slots__ = ("_first", "_followed", "_seen_writes", "_tails", "reading")

    def __init__(self, tails: LocalTails, followed: RecentEntries, reading: Reading) -> None:
        self.reading = reading
        self._tails = tails
        self._followed = followed
        self._seen_writes = followed.writes
        self._first: list[EntryRow] = []

    async def begin(self, cursor: Cursor | None) -> None:
        """Read the first page, and check that the journal continues after the cursor."""
        run_id = self.reading.run_id
        seq = 0 if cursor is None else cursor.seq
        # From the cursor's own entry on, which shows that the journal still has it.
        found = await self._tails.read(run_id, seq - 1 if seq else 0, PAGE)
        if found is None:
            raise errors.RunNotFoundError(run_id)
        stored, self._first = found
        if cursor is not None:
            await self._check(cursor, stored.run, self._first)
            self.reading.start_after(cursor)
        self._learn(stored.run)

    async def fetch(self) -> list[EntryRow]:
        """Fetch a page, or what this process has written since; wait when that is nothing."""
        if self._first:
            page, self._first = self._first, []
            return page
        if not self.reading.is_caught_up:
            return await self._read_page()
        self._tails.check_open()
        followed, reading = self._followed, self.reading
        if self._seen_writes == followed.writes:
            if not await self._wait():
                return await self._read_page()
            self._tails.check_open()
        self._seen_writes = followed.writes
        page = followed.after(reading.epoch, reading.seq)
        if page is None:
            return await self._read_page()
        if followed.run is not None and followed.run.epoch == reading.epoch:
            self._learn(followed.run)
        if not page and not reading.is_over and followed.has_ended(reading.epoch):
            self._end_of_life(is_known=True)
        return page

    async def _check(self, cursor: Cursor, run: Run, page: list[EntryRow]) -> None:
        first = page[0] if page else None
        if first is None or first[2] != cursor.seq:
            found = await self._tails.read(run.run_id, 0, 1)
            first = found[1][0] if found and found[1] else None
        oldest = None if first is None else Cursor(first[0], first[1], first[2] - 1)
        cursor.check(
            epoch=run.epoch,
            version=run.version,
            found=first is not None and first[1:3] == (cursor.ms, cursor.seq),
            oldest=oldest,
        )

    def _learn(self, run: Run) -> None:
        self.reading.learn(
            epoch=run.epoch, version=run.version, seal=run.seal, has_ended=run.state.is_terminal
        )

    async def _read_page(self) -> list[EntryRow]:
        """Read on in the database."""
        reading = self.reading
        self._seen_writes = self._followed.writes
        found = await self._tails.read(reading.run_id, reading.seq, PAGE)
        self._tails.check_open()
        if found is None or found[0].run.epoch != reading.epoch:
            last = self._followed.after(reading.epoch, reading.seq)
            if not last:
                self._end_of_life(is_known=found is None or last is not None)
            return last or []
        self._learn(found[0].run)
        if not found[1] and not reading.is_caught_up:
            what = f"its journal ends at entry {reading.seq} of {reading.version}"
            raise errors.RunDamagedError(reading.run_id, what)
        return found[1]

    async def _wait(self) -> bool:
        """Wait for a write; False when it is time to read the database."""
        seconds: float | None = None
        if self.reading.has_ended:
            answer = await self._tails.seal(self.reading.run_id)
            if answer[0] != "WAIT":
                return False
            seconds = int(answer[1]) / 1000
            if self._seen_writes != self._followed.writes:
                return True
        return await self._followed.until_written(seconds)

    def _end_of_life(self, *, is_known: bool) -> None:
        """End the reading: the run is gone, and no more of its entries can be had.

        Args:
            is_known: False when the id has another life, and this one may have ended unseen.

        Raises:
            CursorResetError: the run has expired, or entries of it may be missing.
        """
        reading = self.reading
        if not is_known:
            what = "another process deleted it and created it anew; its last entries may be missing"
            raise errors.CursorResetError(f"run {reading.run_id!r}: {what}", None)
        # A run that has not ended does not expire: it was deleted, and a deletion ends its streams.
        # So it was when the reader waits for the seal, which comes long before the expiry.
        recent = self._followed.recent
        is_deleted = bool(recent) and recent[-1].type == EntryType.DELETED
        if reading.has_ended and not is_deleted and not reading.is_caught_up:
            raise errors.CursorResetError(f"run {reading.run_id!r} has expired", None)
        reading.end()
