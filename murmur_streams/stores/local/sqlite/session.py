"""One connection: opened under a lock, patient with locks, and its errors are this package's.

SQLite's locks are POSIX locks, and these belong to a process and a file, not to a descriptor:

- Closing any descriptor of a file drops all locks of the whole process on it. So this process never
  reads a file that it has open: another process would conclude that no process has it open, and
  remove the log that this one writes to.
- They do not go over to a forked process, but SQLite's memory of having them does. So a file that
  was open before a fork cannot be opened after it.

So this module knows which files this process has open. Each connection is made and closed under
one lock, which a fork waits for, too.
"""

from __future__ import annotations

import os
import sqlite3
import sys
import threading
import time
import weakref
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from murmur_streams.core.model import errors
from murmur_streams.core.model.errors import (
    StoreConfigurationError,
    StoreError,
    StoreUnavailableError,
)

_PRIMARY = 0xFF  # an extended code has the primary one in its low byte
_FULL = (
    "no room is left for {path}; free space on its disk, or raise its quota or the limit of this "
    "process (`ulimit -f`). Nothing was written"
)
_READ_ONLY = (
    "{path} cannot be written: make the file and its folder writable for this user. Nothing was "
    "written"
)
_DAMAGED = (
    "{path} is damaged ({error}) and was left as it is; put a backup in its place, or save what "
    "can be read with `sqlite3 FILE .recover`"
)
_BUSY = (
    "another process has held the lock of {path} for over {busy:g} seconds; end what holds it "
    "(`fuser FILE` shows who), then try again"
)
_NOT_OPENED = (
    "{path} cannot be opened ({error}); check that its folder exists and that this user may read "
    "and write both"
)
_FAILED = (
    "reading or writing {path} failed ({error}): the disk, its quota or a limit of this process "
    "refused; nothing was written"
)
_WAITS = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL})
# The statements are ours: a table that they miss, or a row that contradicts them, was changed by
# hand or by another program.
_CORRUPT = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_NOTADB)
_CANNOT_OPEN = (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH)
_SENTENCES: dict[int, tuple[type[errors.StoreError], str]] = {
    sqlite3.SQLITE_FULL: (errors.StoreFullError, _FULL),
    sqlite3.SQLITE_READONLY: (errors.StoreReadOnlyError, _READ_ONLY),
    sqlite3.SQLITE_IOERR: (errors.StoreError, _FAILED),
    **dict.fromkeys(_CORRUPT, (errors.StoreDamagedError, _DAMAGED)),
    **dict.fromkeys(_WAITS, (errors.StoreUnavailableError, _BUSY)),
    **dict.fromkeys(_CANNOT_OPEN, (errors.StoreConfigurationError, _NOT_OPENED)),
}

_OTHER_TABLES = ("no such ", "malformed database schema")


def primary_code(error: sqlite3.Error) -> int:
    """SQLite's own number of what went wrong; -1 for an error of Python's module."""
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return -1 if code is None else code & _PRIMARY


def is_locked(error: sqlite3.Error) -> bool:
    """Whether another connection holds a lock, so that trying again may help."""
    return primary_code(error) in _WAITS


def is_undecodable(error: sqlite3.Error) -> bool:
    """Whether a text that is not UTF-8 was read, which Python's module refuses."""
    return primary_code(error) == -1 and "decode to UTF-8" in str(error)


def store_error(error: sqlite3.Error, path: Path, busy_seconds: float) -> errors.StoreError:
    """The error to raise instead of SQLite's."""
    code = primary_code(error)
    if code == -1 and isinstance(error, sqlite3.ProgrammingError):
        return errors.StoreClosedError(f"{path} was closed; open a new store")
    is_changed = code == sqlite3.SQLITE_ERROR and str(error).startswith(_OTHER_TABLES)
    if _is_over_limit(error):
        code = sqlite3.SQLITE_FULL
    if is_changed or is_undecodable(error):
        code = sqlite3.SQLITE_CORRUPT
    kind, sentence = _SENTENCES.get(code, (errors.StoreError, "{path} failed: {error}"))
    return kind(sentence.format(path=path, error=error, busy=busy_seconds))


def _is_over_limit(error: sqlite3.Error) -> bool:
    """Whether a write failed in a process that may not make files larger than its limit."""
    if sys.platform == "win32":
        return False
    # SQLite does not report why; where there is a limit, nothing else is as likely.
    if getattr(error, "sqlite_errorcode", None) != sqlite3.SQLITE_IOERR_WRITE:
        return False
    import resource

    return resource.getrlimit(resource.RLIMIT_FSIZE)[0] != resource.RLIM_INFINITY


FileId = tuple[int, int]
"""Device and inode."""

_TRIES = 3


@dataclass(slots=True)
class _Opened:
    pid: int
    connections: int = 0


# Reentrant: the garbage collector may end a forgotten connection while this thread makes one.
_lock = threading.RLock()
_opened: dict[FileId, _Opened] = {}
_inherited: list[sqlite3.Connection] = []

if sys.platform != "win32":
    os.register_at_fork(
        before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release
    )


def open_file(
    path: Path, judge: Callable[[Path], None], connect: Callable[[], sqlite3.Connection]
) -> tuple[sqlite3.Connection, FileId]:
    """Make a connection to a file, and note that it is open here.

    Args:
        path: the file.
        judge: reads the file, before it is open here, and raises when it is not a store.
        connect: opens it.

    Raises:
        StoreConfigurationError: it was open in the process that this one was forked from.
        StoreUnavailableError: the file was replaced again and again meanwhile.
    """
    with _lock:
        for _ in range(_TRIES):
            before = file_id(path)
            if not _is_open_here(path, before):
                judge(path)
            connection = connect()
            after = file_id(path)
            if after is not None and before in {None, after}:
                _opened.setdefault(after, _Opened(os.getpid())).connections += 1
                return connection, after
            # The opened file is not the judged one: it was replaced, or an overlay file system
            # made a copy of it for writing.
            connection.close()
    raise StoreUnavailableError(
        f"{path} was removed or replaced while it was opened; end what does so, then try again"
    )


def close_file(connection: sqlite3.Connection, file: FileId) -> None:
    """Close a connection of ``open_file``."""
    with _lock:
        opened = _opened.get(file)
        if opened is None or opened.pid != os.getpid():
            # Of the process that this one was forked from: closing it could remove the log.
            _inherited.append(connection)
            return
        try:
            # The last connection of a file checkpoints it and removes -wal and -shm.
            connection.close()
        finally:
            opened.connections -= 1
            if not opened.connections:
                del _opened[file]


def file_id(path: str | Path) -> FileId | None:
    """Identify the file at a path; None without one.

    Raises:
        OSError: it cannot be identified.
    """
    try:
        found = os.stat(path)  # noqa: PTH116  # each group asks, and a Path costs as much again
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_dev, found.st_ino


def _is_open_here(path: Path, file: FileId | None) -> bool:
    opened = None if file is None else _opened.get(file)
    if opened is not None and opened.pid != os.getpid():
        raise StoreConfigurationError(
            f"{path} was open in the process that this one was forked from: SQLite's locks do not "
            "survive a fork; open the store after forking, or start the process with spawn"
        )
    return opened is not None


_FIRST_WAIT_SECONDS = 0.0002
_LONGEST_WAIT_SECONDS = 0.005

Row = tuple[Any, ...]
Query = tuple[str, Sequence[object]]
"""A statement and its values."""


class SQLiteSession:
    """A connection to one file.

    SQLite's own patience sleeps up to 100 ms at a time: beside a busy process the turn never
    comes. This one asks again within 5 ms.
    """

    def __init__(
        self, connection: sqlite3.Connection, file: FileId, path: Path, busy_seconds: float
    ) -> None:
        self.connection = connection
        self.file = file
        self.path = path
        self._name = str(path)
        self._busy_seconds = busy_seconds
        self._is_reading = False
        """Whether ``fetch_both`` began the transaction."""
        # One that is forgotten is closed as well, so that its file is known to be no longer open.
        self._close = weakref.finalize(self, close_file, connection, file)
        self._close.atexit = False

    def fetch(self, sql: str, values: Sequence[object] = ()) -> list[Row]:
        """Run one statement and read all its rows, so that no read stays open.

        A text that is not UTF-8 is returned as bytes.
        """
        until, wait = None, _FIRST_WAIT_SECONDS
        while True:
            try:
                return self.connection.execute(sql, values).fetchall()
            except sqlite3.Error as error:
                until = until or time.monotonic() + self._busy_seconds
                if is_undecodable(error):
                    return self._fetch_leniently(sql, values)
                if not is_locked(error) or self._is_in_group or time.monotonic() >= until:
                    raise self.failure(error) from error
            time.sleep(wait)
            wait = min(2 * wait, _LONGEST_WAIT_SECONDS)

    def fetch_both(self, one: Query, other: Query) -> tuple[list[Row], list[Row]]:
        """Run two statements that see the same moment."""
        with self.translated():
            if self._is_in_group:
                return self.fetch(*one), self.fetch(*other)
        self._is_reading = True
        try:
            self.fetch("BEGIN")
            return self.fetch(*one), self.fetch(*other)
        finally:
            self._is_reading = False
            self.rollback()

    def first(self, sql: str, values: Sequence[object] = ()) -> Row | None:
        """The first row; None when there is none."""
        rows = self.fetch(sql, values)
        return rows[0] if rows else None

    def value(self, sql: str, values: Sequence[object] = ()) -> Any:
        """The first value of the first row; None when there is none."""
        row = self.first(sql, values)
        return row[0] if row else None

    def begin(self) -> int:
        """Begin a group of writes; SQLite's data_version, which commits of others change.

        The caller rolls back when this fails.
        """
        try:
            # ``fetch`` waits for a locked file and costs more, so it is only the second try.
            self.connection.execute("BEGIN IMMEDIATE")
            return self.connection.execute("PRAGMA data_version").fetchone()[0]
        except sqlite3.Error:
            self.rollback()
            self.fetch("BEGIN IMMEDIATE")
            return self.value("PRAGMA data_version")

    def check_there(self) -> None:
        """Refuse to write to a file that no path leads to any more.

        Raises:
            StoreUnavailableError: the path names another file now, or none.
        """
        try:
            is_there = file_id(self._name) == self.file
        except OSError:
            return  # the file system does not say
        if not is_there:
            raise StoreUnavailableError(
                f"{self.path} is not there any more (deleted, moved or replaced while it was "
                "open); nothing was written. Put it back, or open a new store"
            )

    def failure(self, error: sqlite3.Error) -> StoreError:
        """Make the error to raise instead of SQLite's."""
        return store_error(error, self.path, self._busy_seconds)

    @contextmanager
    def translated(self) -> Generator[None]:
        """Raise SQLite's errors as errors of this package."""
        try:
            yield
        except sqlite3.Error as error:
            raise self.failure(error) from error

    @contextmanager
    def transaction(self) -> Generator[None]:
        """Write all of what is done inside, or nothing."""
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self.connection.execute("COMMIT")
        except BaseException:
            self.rollback()
            raise

    def rollback(self) -> None:
        """End a transaction, if there is one; what it wrote is gone, even if this fails."""
        with self.translated():
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")

    def close(self) -> None:
        """Close it; a second call does nothing."""
        with self.translated():
            self._close()

    @property
    def _is_in_group(self) -> bool:
        """Whether other processes wait for this one, which must not wait itself."""
        return self.connection.in_transaction and not self._is_reading

    def _fetch_leniently(self, sql: str, values: Sequence[object]) -> list[Row]:
        self.connection.text_factory = _text_or_bytes
        try:
            with self.translated():
                return self.connection.execute(sql, values).fetchall()
        finally:
            self.connection.text_factory = str


def _text_or_bytes(raw: bytes) -> str | bytes:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw
