"""The feed of a local store, for the readers of this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection
from dataclasses import dataclass, field

from murmur_streams.core.model.errors import StoreClosedError
from murmur_streams.core.model.feed import FeedCursor, FeedEntry, FeedFilter
from murmur_streams.stores.local.engine.access import Access
from murmur_streams.stores.local.engine.database import FeedRow

PAGE = 500
_PARTITION = 0


@dataclass(eq=False)
class LocalFeed:
    """Reads rows, waits for a write, and reads on."""

    access: Access
    """To the store's database."""
    moved: Callable[[], None]
    """Called when ``readers`` may have changed."""
    readers: int = 0
    """How many readers there are."""
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _is_closed: bool = False

    def wake(self) -> None:
        """Let every reader look for new rows."""
        if self.readers:
            self._changed.set()
            self._changed = asyncio.Event()

    def close(self) -> None:
        """Wake every reader with StoreClosedError."""
        self._is_closed = True
        self.wake()

    async def read(
        self, after: str | None, targets: Collection[str] | None, types: Collection[str] | None
    ) -> AsyncGenerator[FeedEntry]:
        """Yield the stored entries after the cursor, then new ones as they come.

        Raises:
            InvalidCursorError, CursorGapError, CursorResetError: the cursor cannot be resumed.
            InvalidInputError: a target or type is not valid.
        """
        wanted = FeedFilter.of(targets, types)
        cursor = await self.checked(after)
        self.readers += 1
        self.moved()
        try:
            while True:
                changed = self._changed
                rows = await self._rows(cursor.positions[_PARTITION][1], PAGE)
                for row in rows:
                    cursor = cursor.after(_PARTITION, row.position)
                    if wanted.wants(row.target, row.entry.type):
                        yield FeedEntry(str(cursor), row.entry.run_id, row.target, row.entry)
                if self._is_closed:
                    raise StoreClosedError("the store was closed while the feed was read")
                if not rows:
                    await changed.wait()
        finally:
            self.readers -= 1
            self.moved()

    async def checked(self, after: str | None) -> FeedCursor:
        """The cursor to begin with.

        Raises:
            InvalidCursorError, CursorGapError, CursorResetError: it cannot be resumed.
        """
        before_oldest, last = await self.access.read(lambda reader: reader.feed_ends())
        if after is None:
            return FeedCursor((before_oldest,))
        cursor = FeedCursor.parse(after, 1)
        n = cursor.positions[_PARTITION][1]
        rows = await self._rows(n - 1, 1) if n > 0 else []
        first = await self._rows(before_oldest[1], 1)
        cursor.check(
            _PARTITION,
            found=bool(rows) and rows[0].position == cursor.positions[_PARTITION],
            oldest=first[0].position if first else None,
            newest=last,
        )
        return cursor

    async def _rows(self, after_n: int, limit: int) -> list[FeedRow]:
        return await self.access.read(lambda reader: reader.feed(after_n, limit))
