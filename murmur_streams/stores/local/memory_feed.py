"""The feed of an InMemoryRunStore: the last entries of all runs, in one partition."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Iterable

from murmur_streams.core.model.entries import JournalEntry
from murmur_streams.core.model.errors import StoreClosedError
from murmur_streams.core.model.feed import START, FeedCursor, FeedEntry, FeedFilter, Position
from murmur_streams.stores.local.memory_record import copied_entry


class MemoryFeed:
    """Keeps at most ``max_entries``; readers go by n, which is dense."""

    def __init__(self, max_entries: int) -> None:
        self._kept: deque[tuple[Position, str, JournalEntry]] = deque(maxlen=max_entries)
        self._last = START
        self._changed = asyncio.Event()
        self._closed = False

    def add(self, target: str, entries: Iterable[JournalEntry]) -> None:
        """Take in the entries of one write."""
        for entry in entries:
            self._last = (max(self._last[0], entry.ms), self._last[1] + 1)
            self._kept.append((self._last, target, entry))
        self._wake()

    def close(self) -> None:
        """Wake every reader with StoreClosedError."""
        self._closed = True
        self._wake()

    async def read(self, after: str | None, wanted: FeedFilter) -> AsyncGenerator[FeedEntry]:
        """Yield what is kept after the cursor, then what comes."""
        cursor = self._first() if after is None else self._checked(FeedCursor.parse(after, 1))
        while True:
            if self._closed:
                raise StoreClosedError("the store was closed while the feed was read")
            found = self._after(cursor)
            if found is None:
                await self._changed.wait()
                continue
            place, target, entry = found
            cursor = cursor.after(0, place)
            if wanted.wants(target, entry.type):
                yield FeedEntry(str(cursor), entry.run_id, target, copied_entry(entry))

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _first(self) -> FeedCursor:
        if not self._kept:
            return FeedCursor((self._last,))
        (ms, n), _, _ = self._kept[0]
        return FeedCursor(((ms, n - 1),))

    def _checked(self, cursor: FeedCursor) -> FeedCursor:
        oldest = self._kept[0][0] if self._kept else None
        found = self._at(cursor.positions[0][1])
        cursor.check(
            0,
            found=found is not None and found[0] == cursor.positions[0],
            oldest=oldest,
            newest=self._last,
        )
        return cursor

    def _after(self, cursor: FeedCursor) -> tuple[Position, str, JournalEntry] | None:
        """The oldest kept entry after the cursor."""
        if not self._kept or self._last[1] <= cursor.positions[0][1]:
            return None
        return self._at(max(cursor.positions[0][1] + 1, self._kept[0][0][1]))

    def _at(self, n: int) -> tuple[Position, str, JournalEntry] | None:
        place = n - self._kept[0][0][1] if self._kept else -1
        return self._kept[place] if 0 <= place < len(self._kept) else None
