"""Which files this process has open by SQLite.

SQLite's locks are POSIX locks, and these belong to a process and a file, not to a descriptor:

- Closing any descriptor of a file drops all locks of the whole process on it. So this process never
  reads a file that it has open: another process would conclude that no process has it open, and
  remove the log that this one writes to.
- They do not go over to a forked process, but SQLite's memory of having them does. So a file that
  was open before a fork cannot be opened after it.

Each connection is made and closed under one lock, which a fork waits for, too.
"""

from __future__ import annotations

import os
import sqlite3
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from murmur_streams.core.model.errors import StoreConfigurationError, StoreUnavailableError

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
