"""The open file of a store: its two threads, and the look for writes of other processes."""

from __future__ import annotations

import asyncio
import logging
import os
import weakref
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import TypeVar

from murmur_streams.core.model.errors import StoreClosedError, StoreError
from murmur_streams.stores.local.engine.access import Begin, Committed
from murmur_streams.stores.local.engine.database import Database, Reader, Stored
from murmur_streams.stores.local.engine.thread import DatabaseThread
from murmur_streams.stores.local.engine.transaction import Transaction, Written
from murmur_streams.stores.local.engine.writer import GroupWriter
from murmur_streams.stores.own_tasks import start_task

T = TypeVar("T")

logger = logging.getLogger("murmur_streams.store")

LOOK_PAGE = 500
_UNKNOWN = -1


class OpenFile:
    """A file that is open in this process, on one event loop.

    Args:
        database: the writer's.
        writing: the thread that writes.
        reading: the thread that reads.
        begin: makes the writer's transactions.
        committed: called with what this process wrote.
        looked: called with the ids of runs that other processes wrote to; None: any runs.
    """

    def __init__(
        self,
        database: Database,
        reader: Reader,
        writing: DatabaseThread,
        reading: DatabaseThread,
        begin: Begin,
        committed: Committed,
        looked: Callable[[Collection[str] | None], None],
    ) -> None:
        self._database = database
        self._reader = reader
        self._writing = writing
        self._reading = reading
        self._committed = committed
        self._looked = looked
        self._seen_n = _UNKNOWN
        """``looked`` was called for all entries of the feed up to this one."""
        self.writer = GroupWriter(database, writing, begin, self._written)
        # A store that is collected without ``close`` must not lock its file for this process.
        self._let_go = weakref.finalize(self, _let_go, database, reader, writing, reading)
        self._let_go.atexit = False

    async def read(self, call: Callable[[Reader], T]) -> T:
        """Read in the reader's thread."""
        reader = self._reader
        return await self._reading.run(lambda: call(reader))

    def watch(self, seconds: float | None) -> None:
        """Look for writes of other processes every ``seconds``; None stops that."""
        self._seen_n = _UNKNOWN
        self._reading.watch(None if seconds is None else self._look, seconds or 0.0)

    async def close(self) -> None:
        """Write the waiting calls, and close the file."""
        self._let_go.detach()
        await self.writer.close()
        self._reading.watch(None)
        try:
            await self._reading.run(self._reader.close)
        finally:
            await self._reading.stop()
            try:
                await self._writing.run(self._database.close)
            finally:
                await self._writing.stop()

    def abandon(self) -> None:
        """Close the file without its event loop, which is closed already."""
        self._let_go()

    def _written(self, written: list[Written], feed: range) -> None:
        if feed and feed[0] == self._seen_n + 1:
            self._seen_n = feed[-1]
        self._committed(written)

    def _look(self) -> None:
        """In the reader's thread: no error may end it."""
        seen_n = self._seen_n
        try:
            if self._reader.has_foreign_writes():
                self._reading.call_on_loop(self._saw, *self._news(seen_n))
        except Exception:  # see above
            logger.debug("looking for writes of other processes failed", exc_info=True)
            # Every subscriber reads for itself, and gets the error if it concerns its run.
            self._reading.call_on_loop(self._saw, None, seen_n)

    def _news(self, seen_n: int) -> tuple[set[str] | None, int]:
        """Which runs were written to after an entry of the feed (None: any), and the last one."""
        if seen_n == _UNKNOWN:
            return None, self._reader.feed_ends()[1][1]
        run_ids, has_gap = set[str](), False
        while rows := self._reader.feed(seen_n, LOOK_PAGE):
            has_gap = has_gap or rows[0].position[1] != seen_n + 1
            run_ids |= {row.entry.run_id for row in rows}
            seen_n = rows[-1].position[1]
        return None if has_gap else run_ids, seen_n

    def _saw(self, run_ids: Collection[str] | None, last_n: int) -> None:
        self._seen_n = max(self._seen_n, last_n)
        if run_ids is None or run_ids:
            self._looked(run_ids)


class FileAccess:
    """Opens the file at first use, once, and binds it to that event loop and process.

    Args:
        path: for threads' names and errors.
        open_database: opens it; blocks.
        begin, committed, looked: as for OpenFile.
        look_seconds: how often to look for what other processes wrote; None: there are none.
    """

    def __init__(
        self,
        path: str,
        open_database: Callable[[], Database],
        begin: Begin,
        committed: Committed,
        looked: Callable[[Collection[str] | None], None],
        look_seconds: float | None,
    ) -> None:
        self._path = path
        self._open_database = open_database
        self._begin = begin
        self._committed = committed
        self._looked = looked
        self._look_seconds = look_seconds
        self._is_wanted = False
        self._is_watching = False
        self._is_closed = False
        self._home: tuple[int, asyncio.AbstractEventLoop] | None = None
        self._opening: asyncio.Task[OpenFile] | None = None
        self._closing: asyncio.Task[None] | None = None
        self._file: OpenFile | None = None

    async def get(self) -> OpenFile:
        """The open file.

        Raises:
            StoreClosedError: the store was closed.
            StoreError: another event loop or process opened it.
        """
        if self._is_closed:
            raise StoreClosedError("the store is closed; open a new one")
        here = os.getpid(), asyncio.get_running_loop()
        if self._home not in {None, here}:
            raise StoreClosedError(
                "the store is open on another event loop, or was before a fork: "
                "each needs a store of its own"
            )
        if self._file is not None:
            return self._file
        if self._opening is None or (self._opening.done() and self._opening.exception()):
            self._home = here
            self._opening = start_task(self._open(), f"open {self._path}")
        return await asyncio.shield(self._opening)

    async def open(self) -> None:
        await self.get()

    async def stored(self, run_id: str) -> Stored | None:
        file = await self.get()
        if self._look_seconds is None and (known := file.writer.known.get(run_id)) is not None:
            # No other process writes this file: what was written last is what it holds.
            return known
        return await file.read(lambda reader: reader.stored(run_id))

    async def read(self, call: Callable[[Reader], T]) -> T:
        return await (await self.get()).read(call)

    async def write(self, operation: Callable[[Transaction], T]) -> T:
        return await (await self.get()).writer.run(operation)

    async def write_alone(self, operation: Callable[[Transaction], T]) -> T:
        return await (await self.get()).writer.alone(operation)

    def watch(self, is_wanted: bool) -> None:
        self._is_wanted = is_wanted
        self._set_watch()

    def _set_watch(self) -> None:
        if self._look_seconds is None or self._file is None or self._is_closed:
            return
        if self._is_wanted != self._is_watching:
            self._is_watching = self._is_wanted
            self._file.watch(self._look_seconds if self._is_wanted else None)

    async def close(self) -> None:
        """Close the file, if it is open; every caller waits until it is, a second one too."""
        self._is_closed = True
        if self._opening is None or self._home is None or self._home[0] != os.getpid():
            return
        if self._home[1].is_closed():
            if self._file is not None:
                self._file.abandon()
            return
        if self._home[1] is not asyncio.get_running_loop():
            there = asyncio.run_coroutine_threadsafe(self.close(), self._home[1])
            await asyncio.wrap_future(there)
            return
        if self._closing is None:
            # Not in the caller's task: when that is cancelled, the closing goes on.
            self._closing = start_task(self._close(self._opening), f"close {self._path}")
        await asyncio.shield(self._closing)

    async def _close(self, opening: asyncio.Task[OpenFile]) -> None:
        try:
            file = await opening
        except StoreError:
            return
        await file.close()

    async def _open(self) -> OpenFile:
        loop = asyncio.get_running_loop()
        writing = DatabaseThread(f"write {self._path}", loop)
        reading = DatabaseThread(f"read {self._path}", loop)
        try:
            database = await writing.run(self._open_database)
            reader = await writing.run(database.reader)
        except BaseException:
            await writing.stop()
            await reading.stop()
            raise
        self._file = OpenFile(
            database, reader, writing, reading, self._begin, self._committed, self._looked
        )
        self._set_watch()
        return self._file


def _let_go(
    database: Database, reader: Reader, writing: DatabaseThread, reading: DatabaseThread
) -> None:
    reading.watch(None)
    reading.submit(lambda: _quietly(reader.close))
    reading.leave()
    writing.submit(lambda: _quietly(database.close))
    writing.leave()


def _quietly(close: Callable[[], object]) -> None:
    # No caller is left to get an error.
    with suppress(StoreError):
        close()
