"""FileRunStore: a store in a file or folder, its two threads, and the look for foreign writes."""

from __future__ import annotations

import asyncio
import logging
import os
import weakref
from abc import abstractmethod
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, Unpack

from murmur_streams.core.model.errors import StoreClosedError, StoreError
from murmur_streams.stores.local.engine.access import Access, Begin, Committed
from murmur_streams.stores.local.engine.database import Database, Reader, Stored
from murmur_streams.stores.local.engine.database_thread import DatabaseThread
from murmur_streams.stores.local.engine.store import LocalOptions, LocalRunStore
from murmur_streams.stores.local.engine.transaction import Transaction, Written
from murmur_streams.stores.local.engine.writer import GroupWriter
from murmur_streams.stores.own_tasks import start_task

T = TypeVar("T")

logger = logging.getLogger("murmur_streams.store")

LOOK_PAGE = 500
_UNKNOWN = -1

Looked = Callable[[Collection[str] | None], None]
"""Called with the ids of runs that other processes wrote to; None: any runs."""


@dataclass(eq=False)
class OpenFile:
    """A file that is open in this process, on one event loop."""

    database: Database
    """The writer's."""
    reader: Reader
    writing: DatabaseThread
    reading: DatabaseThread
    begin: Begin
    """Makes the writer's transactions."""
    committed: Committed
    looked: Looked
    seen_n: int = _UNKNOWN
    """``looked`` was called for all entries of the feed up to this one."""

    def __post_init__(self) -> None:
        self.writer = GroupWriter(
            self.database, self.writing, self.begin, self._written, lambda: self.looked(None)
        )
        # A store that is collected without ``close``, or whose event loop is closed already, must
        # not lock its file for this process.
        self.let_go = weakref.finalize(
            self, _let_go, self.database, self.reader, self.writing, self.reading
        )
        self.let_go.atexit = False

    async def read(self, call: Callable[[Reader], T]) -> T:
        """Read in the reader's thread."""
        reader = self.reader
        return await self.reading.run(lambda: call(reader))

    def watch(self, seconds: float | None) -> None:
        """Look for writes of other processes every ``seconds``; None stops that."""
        self.seen_n = _UNKNOWN
        self.reading.watch(None if seconds is None else self._look, seconds or 0.0)

    async def close(self) -> None:
        """Write the waiting calls, and close the file."""
        self.let_go.detach()
        await self.writer.close()
        self.reading.watch(None)
        try:
            await self.reading.run(self.reader.close)
        finally:
            await self.reading.stop()
            try:
                await self.writing.run(self.database.close)
            finally:
                await self.writing.stop()

    def _written(self, written: list[Written], feed: range) -> None:
        if feed and feed[0] == self.seen_n + 1:
            self.seen_n = feed[-1]
        self.committed(written)

    def _look(self) -> None:
        """In the reader's thread: no error may end it."""
        seen_n = self.seen_n
        try:
            if self.reader.has_foreign_writes():
                self.reading.call_on_loop(self._saw, *self._news(seen_n))
        except Exception:  # see above
            logger.debug("looking for writes of other processes failed", exc_info=True)
            # Every subscriber reads for itself, and gets the error if it concerns its run.
            self.reading.call_on_loop(self._saw, None, seen_n)

    def _news(self, seen_n: int) -> tuple[Collection[str] | None, int]:
        """Which runs were written to after an entry of the feed (None: any), and the last one."""
        if seen_n == _UNKNOWN:
            return None, self.reader.feed_ends()[1][1]
        run_ids, has_gap = dict[str, None](), False  # in the order of the feed
        while rows := self.reader.feed(seen_n, LOOK_PAGE):
            has_gap = has_gap or rows[0].position[1] != seen_n + 1
            run_ids |= dict.fromkeys(row.entry.run_id for row in rows)
            seen_n = rows[-1].position[1]
        return None if has_gap else run_ids, seen_n

    def _saw(self, run_ids: Collection[str] | None, last_n: int) -> None:
        self.seen_n = max(self.seen_n, last_n)
        if run_ids is None or run_ids:
            self.looked(run_ids)


@dataclass(eq=False)
class FileAccess(Access):
    """Opens the file at first use, once, and binds it to that event loop and process."""

    path: str
    """For the names of threads and tasks."""
    open_database: Callable[[], Database]
    """Opens it; blocks."""
    begin: Begin
    committed: Committed
    looked: Looked
    look_seconds: float | None
    """How often to look for what other processes wrote; None: there are none."""
    _is_wanted: bool = False
    _is_watching: bool = False
    _is_closed: bool = False
    _home: tuple[int, asyncio.AbstractEventLoop] | None = None
    _opening: asyncio.Task[OpenFile] | None = None
    _closing: asyncio.Task[None] | None = None
    _file: OpenFile | None = None

    def _opened(self) -> OpenFile | None:
        """The open file; None until it is open. Raises as ``get``."""
        if self._is_closed:
            raise StoreClosedError("the store is closed; open a new one")
        here = os.getpid(), asyncio.get_running_loop()
        if self._home is not None and self._home != here:
            raise StoreClosedError(
                "the store is open on another event loop, or was before a fork: "
                "each needs a store of its own"
            )
        return self._file

    async def get(self) -> OpenFile:
        """The open file.

        Raises:
            StoreClosedError: the store was closed, or another event loop or process opened it.
        """
        if (file := self._opened()) is not None:
            return file
        if self._opening is None or (self._opening.done() and self._opening.exception()):
            self._home = os.getpid(), asyncio.get_running_loop()
            self._opening = start_task(self._open(), f"open {self.path}")
        return await asyncio.shield(self._opening)

    async def open(self) -> None:
        await self.get()

    async def stored(self, run_id: str) -> Stored | None:
        file = await self.get()
        if self.look_seconds is None and (known := file.writer.known.runs.get(run_id)) is not None:
            # No other process writes this file: what was written last is what it holds.
            return known
        return await file.read(lambda reader: reader.stored(run_id))

    async def read(self, call: Callable[[Reader], T]) -> T:
        return await (await self.get()).read(call)

    async def write(self, operation: Callable[[Transaction], T]) -> T:
        file = self._opened() or await self.get()
        return await file.writer.write(operation)

    async def write_alone(self, operation: Callable[[Transaction], T]) -> T:
        return await (await self.get()).writer.write(operation, is_alone=True)

    def watch(self, is_wanted: bool) -> None:
        self._is_wanted = is_wanted
        self._set_watch()

    def _set_watch(self) -> None:
        if self.look_seconds is None or self._file is None or self._is_closed:
            return
        if self._is_wanted != self._is_watching:
            self._is_watching = self._is_wanted
            self._file.watch(self.look_seconds if self._is_wanted else None)

    async def close(self) -> None:
        """Close the file, if it is open; every caller waits until it is, a second one too."""
        self._is_closed = True
        if self._opening is None or self._home is None or self._home[0] != os.getpid():
            return
        if self._home[1].is_closed():
            if self._file is not None:
                self._file.let_go()
            return
        if self._home[1] is not asyncio.get_running_loop():
            there = asyncio.run_coroutine_threadsafe(self.close(), self._home[1])
            await asyncio.wrap_future(there)
            return
        if self._closing is None:
            # Not in the caller's task: when that is cancelled, the closing goes on.
            self._closing = start_task(self._close(self._opening), f"close {self.path}")
        await asyncio.shield(self._closing)

    async def _close(self, opening: asyncio.Task[OpenFile]) -> None:
        try:
            file = await opening
        except StoreError:
            return
        await file.close()

    async def _open(self) -> OpenFile:
        loop = asyncio.get_running_loop()
        threads: list[DatabaseThread] = []
        try:
            threads.append(writing := DatabaseThread(f"write {self.path}", loop))
            threads.append(reading := DatabaseThread(f"read {self.path}", loop))
            database = await writing.run(self.open_database)
            reader = await writing.run(database.reader)
        except BaseException:
            for thread in threads:
                await thread.stop()
            raise
        self._file = OpenFile(
            database, reader, writing, reading, self.begin, self.committed, self.looked
        )
        self._set_watch()
        return self._file


class FileRunStore(LocalRunStore):
    """Runs in a file or folder of this machine.

    Guarantees: as LocalRunStore's; killing the process does not lose a write that returned, and
    with ``sync`` a loss of power does not either. Concurrent writes share a commit.

    Args:
        path: the file or folder.
        sync: whether a write returns only when the disk says that it has it.
        options: as LocalRunStore's.
    """

    look_seconds: float | None = None
    """How often a waiting store looks for what other processes wrote; None: there are none."""

    def __init__(
        self, path: str | os.PathLike[str], *, sync: bool = False, **options: Unpack[LocalOptions]
    ) -> None:
        # Absolute now: the program's current folder may change while the file is open.
        self.path = Path(path).absolute()
        self._sync = sync
        super().__init__(**options)

    @property
    def where(self) -> str:
        return str(self.path)

    @abstractmethod
    def _open_database(self) -> Database:
        """Open the file; blocks. StoreConfigurationError, StoreDamagedError: it cannot be."""

    def _make_access(self, begin: Begin, committed: Committed) -> Access:
        return FileAccess(
            str(self.path), self._open_database, begin, committed, self._looked, self.look_seconds
        )


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
