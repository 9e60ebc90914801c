"""Reads the feeds of all partitions: every entry of every run once, or a clear error."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

from murmur_streams.core.model.entries import EntryType, Fields, JournalEntry
from murmur_streams.core.model.errors import CursorResetError, StoreClosedError
from murmur_streams.core.model.feed import (
    FeedCursor,
    FeedEntry,
    FeedFilter,
    Position,
    read_position,
)
from murmur_streams.stores.own_tasks import end_tasks, is_cancelled, start_shared_task, start_task
from murmur_streams.stores.redis.live import sources
from murmur_streams.stores.redis.live.seen import surely_before
from murmur_streams.stores.redis.replies import pairs, text
from murmur_streams.stores.redis.retries import Retries
from murmur_streams.stores.redis.server import Server

_WHILE_READ = "while the feed was read"
_CLOSED = f"the store was closed {_WHILE_READ}"
GONE_EPOCH = "00000000"
_ALL = FeedFilter(None, None)
MOST_EPOCHS = 10_000
"""The most runs whose epoch is remembered, so that most pages cost one round trip."""


@dataclass(frozen=True, slots=True)
class _Row:
    """One entry of the feed."""

    partition: int
    position: Position
    run_id: str
    entry_id: str
    target: str
    fields: Fields
    is_wanted: bool

    @property
    def is_big(self) -> bool:
        """Too large for the feed, which has only its type."""
        return "big" in self.fields and len(self.fields) == 2  # noqa: PLR2004  # big and type


class Feeds:
    """The readers of a store's feed."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._readers: set[FeedReader] = set()
        server.key_space.when_changed.append(self._widen)

    async def read(
        self, after: str | None, targets: Collection[str] | None, types: Collection[str] | None
    ) -> AsyncGenerator[FeedEntry]:
        """Yield the entries after the cursor, then those that come."""
        reader = FeedReader(self._server, FeedFilter.of(targets, types))
        self._readers.add(reader)
        try:
            async with aclosing(reader.read(after)) as entries:
                async for entry in entries:
                    yield entry
        finally:
            self._readers.discard(reader)

    async def check(self, after: str) -> None:
        """Reject a cursor from which the feed cannot be read; raises the errors of ``read``."""
        await FeedReader(self._server, _ALL).check(after)

    def _widen(self) -> None:
        for reader in self._readers:
            reader.widen()

    async def close(self) -> None:
        """Wake every reader with StoreClosedError."""
        await end_tasks([task for reader in self._readers for task in reader.close()])


class FeedReader:
    """One reader of all partitions' feeds.

    One read blocks on all of them, on a cluster one read on each: a read takes keys of one slot
    alone. So a node that is gone does not stop the entries of the others.
    """

    def __init__(self, server: Server, wanted: FeedFilter) -> None:
        self._server = server
        self._wanted = wanted
        self._feeds: list[str] = []
        self._cursor = FeedCursor(())
        self._epochs: dict[str, str] = {}
        self._groups: list[tuple[int, ...]] = []
        """The partitions that one read blocks on."""
        self._waits: dict[tuple[int, ...], asyncio.Task[list[_Row]]] = {}
        """The waits for entries, where there are several groups."""
        self._blocked: set[asyncio.Task[Any]] = set()
        self._closed = False

    def widen(self) -> None:
        """Read the partitions that a raise has added, too, each from its beginning."""
        keys, is_wider = self._server.keys, self._server.keys.partitions > len(self._feeds)
        everything = tuple(keys.all_partitions)
        self._feeds = [keys.feed(each) for each in everything]
        self._cursor = self._cursor.widened(len(everything))
        self._groups = [(each,) for each in everything] if self._server.is_cluster else [everything]
        if is_wider:
            for blocked in self._blocked:
                blocked.cancel()

    def close(self) -> set[asyncio.Task[Any]]:
        """Make it end with StoreClosedError; the caller must cancel the reads that are returned."""
        self._closed = True
        return {*self._blocked}

    async def read(self, after: str | None) -> AsyncGenerator[FeedEntry]:
        """Yield the entries after the cursor, then those that come."""
        await self._server.locator.look_at_counts()
        self.widen()
        if after is None:
            await self._start()
        else:
            await self.check(after)
        try:
            async with aclosing(self._entries()) as entries:
                async for entry in entries:
                    yield entry
        finally:
            await end_tasks(self._waits.values())

    async def _entries(self) -> AsyncGenerator[FeedEntry]:
        while True:
            rows = await self._next_rows()
            if len(self._epochs) > MOST_EPOCHS:
                # Those that are needed again are read again.
                self._epochs.clear()
            # Each row is checked when its turn comes: rows before a break are still delivered.
            for row in await self._completed(rows):
                self._cursor = await self._after(row)
                if epoch := _epoch_in(row):
                    self._epochs[row.run_id] = epoch
                if row.is_wanted:
                    ms, seq = read_position(row.entry_id)
                    entry = JournalEntry(row.run_id, self._epochs[row.run_id], ms, seq, row.fields)
                    yield FeedEntry(str(self._cursor), row.run_id, row.target, entry)

    async def check(self, after: str) -> None:
        """Move to the cursor, or raise when the feed does not have its position any more."""
        await self._server.locator.look_at_counts()
        self.widen()
        self._cursor = FeedCursor.parse(after, len(self._feeds))
        await self._check(self._server.keys.all_partitions)

    async def _start(self) -> None:
        """Move before the oldest entries, so that a later trim is noticed."""
        first = [("XRANGE", feed, "-", "+", "COUNT", 1) for feed in self._feeds]
        ends = await self._server.read_all(*first)
        for partition, oldest in enumerate(ends):
            if oldest:
                ms, n = read_position(text(oldest[0][0]))
                self._cursor = self._cursor.moved(partition, (ms, n - 1))

    async def _after(self, row: _Row) -> FeedCursor:
        try:
            return self._cursor.after(row.partition, row.position)
        except CursorResetError:
            # The feed went back: it is read to find a cursor from which a reader can continue.
            await self._check([row.partition])
            raise

    async def _check(self, partitions: Sequence[int]) -> None:
        """Raise when a feed does not have the entry of the cursor any more."""
        commands: list[tuple[object, ...]] = []
        for partition in partitions:
            feed, (ms, n) = self._feeds[partition], self._cursor.positions[partition]
            commands.append(("XRANGE", feed, f"{ms}-{n}", f"{ms}-{n}"))
            commands.append(("XRANGE", feed, "-", "+", "COUNT", 1))
            commands.append(("XREVRANGE", feed, "+", "-", "COUNT", 1))
        replies = await self._server.read_all(*commands)
        for at, partition in enumerate(partitions):
            found, oldest, newest = replies[3 * at : 3 * at + 3]
            ends = {"oldest": _position_of(oldest), "newest": _position_of(newest)}
            try:
                self._cursor.check(partition, found=bool(found), **ends)
            except CursorResetError as reset:
                reset.resume_cursor = await self._surely_seen(partition) or reset.resume_cursor
                raise

    async def _surely_seen(self, partition: int) -> str | None:
        """The cursor at the last entry of the feed that the reader has seen, by its time."""
        ms, n = self._cursor.positions[partition]
        before = ("XREVRANGE", self._feeds[partition], surely_before(ms), "-", "COUNT", 1)
        last = _position_of(await self._server.read(*before))
        if last is None or last[1] >= n:
            return None
        return str(self._cursor.moved(partition, last))

    async def _next_rows(self) -> list[_Row]:
        """Wait for entries of any partition."""
        if len(self._groups) == 1:
            return await self._rows(self._groups[0])
        for group in self._groups:
            if group not in self._waits:
                self._waits[group] = start_shared_task(self._rows(group), "feed of a partition")
        await asyncio.wait(self._waits.values(), return_when=asyncio.FIRST_COMPLETED)
        group = next(group for group, wait in self._waits.items() if wait.done())
        return self._waits.pop(group).result()

    async def _rows(self, group: tuple[int, ...]) -> list[_Row]:
        """Wait for entries; after each lost connection the cursor is checked."""
        retries, width = Retries(self._server, _WHILE_READ), len(self._feeds)
        while True:
            if len(self._feeds) != width:
                return []  # Partitions were added, and are read from now on.
            try:
                reply = await self._block(group)
            except Exception as error:  # noqa: BLE001  # every error of the driver is judged here
                failure = error
            else:
                if reply:
                    return [row for feed, raws in reply for row in self._rows_of(feed, raws)]
                if len(self._feeds) != width:
                    continue
                # A feed that was deleted or rewound does not end a blocking read.
                await self._check(group)
                retries.restart()
                continue
            await retries.after(failure)
            await self._check(group)

    async def _block(self, group: tuple[int, ...]) -> Any:
        if self._closed:
            raise StoreClosedError(_CLOSED)
        positions = self._cursor.positions
        after = {self._feeds[each]: "{}-{}".format(*positions[each]) for each in group}
        reading = self._server.read_streams(after, sources.FEED_PAGE, sources.BLOCK_SECONDS)
        blocked = start_task(reading, "feed")
        self._blocked.add(blocked)
        blocked.add_done_callback(self._blocked.discard)
        try:
            return await blocked
        except asyncio.CancelledError:
            if is_cancelled():
                raise
            if self._closed:
                raise StoreClosedError(_CLOSED) from None
            return []  # Partitions were added.

    def _rows_of(self, feed: Any, raws: list[Any]) -> list[_Row]:
        partition = self._feeds.index(text(feed))
        rows: list[_Row] = []
        for raw in raws:
            flat = [text(part) for part in raw[1]]
            # The names and values of run, entry and target come before an entry's own fields.
            run_id, entry_id, target = flat[1:6:2]
            fields = dict(zip(flat[6::2], flat[7::2], strict=True))
            position = read_position(text(raw[0]))
            is_wanted = self._wanted.wants(target, fields["type"])
            rows.append(_Row(partition, position, run_id, entry_id, target, fields, is_wanted))
        return rows

    async def _completed(self, rows: list[_Row]) -> list[_Row]:
        """Add what the feed lacks: the epochs of runs, and large entries."""
        keys = self._server.keys
        here = {row.run_id: row.partition for row in rows}
        unknown = self._unknown(rows)
        big = {index: row for index, row in enumerate(rows) if row.is_wanted and row.is_big}
        if not unknown and not big:
            return rows
        ranges = (
            (keys.journal(row.run_id, row.partition), row.entry_id, row.entry_id)
            for row in big.values()
        )
        replies = await self._server.read_all(
            *(("HGET", keys.run(run_id, here[run_id]), "epoch") for run_id in unknown),
            *(("XRANGE", *each) for each in ranges),
        )
        for run_id, epoch in zip(unknown, replies, strict=False):
            self._epochs[run_id] = text(epoch) if epoch else GONE_EPOCH
        for index, found in zip(big, replies[len(unknown) :], strict=True):
            if found:
                rows[index] = replace(rows[index], fields=pairs(found[0][1]))
        return rows

    def _unknown(self, rows: list[_Row]) -> list[str]:
        """The runs whose epoch must be read: not those whose first entry is among the rows."""
        begun, unknown = set[str](), dict[str, None]()
        for row in rows:
            if _epoch_in(row):
                begun.add(row.run_id)
            elif row.is_wanted and row.run_id not in begun and row.run_id not in self._epochs:
                unknown[row.run_id] = None
        return list(unknown)


def _epoch_in(row: _Row) -> str | None:
    return row.fields.get("epoch") if row.fields["type"] == EntryType.CREATED else None


def _position_of(entries: list[Any]) -> Position | None:
    return read_position(text(entries[0][0])) if entries else None
