"""Translates the errors of RocksDB to those of this package."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from murmur_streams.core.model.errors import (
    StoreClosedError,
    StoreConfigurationError,
    StoreDamagedError,
    StoreError,
    StoreFullError,
    StoreReadOnlyError,
)
from murmur_streams.stores.local.rocksdb.binding import DbClosedError

# The binding raises bare Exceptions: what they are is only in their texts, which are RocksDB's
# status names and the C library's words for errno.
_FULL = ("No space left", "Disk quota exceeded", "File too large")
_READ_ONLY = ("Read-only file system", "Permission denied", "Operation not permitted")
_DAMAGED = ("Corruption", "file size mismatch", "No such file or directory", "truncated")
_LOCKED = ("lock hold by current process", "While lock file")


def is_ours_to_translate(error: Exception) -> bool:
    """Whether the binding raised it; what is a bug of ours is left as it is."""
    return type(error) is Exception or isinstance(error, DbClosedError)


def failure(path: Path, error: Exception) -> StoreError:
    """The error for what the binding raised: where, and what to do.

    Args:
        path: the store's folder.
        error: what it raised.
    """
    text = str(error)
    if isinstance(error, DbClosedError):
        return StoreClosedError("the store is closed; open a new one")
    if any(phrase in text for phrase in _FULL):
        return StoreFullError(
            f"the disk of {path} is full, or a limit is reached ({text}); nothing was written: "
            "make room, then write again"
        )
    if any(phrase in text for phrase in _LOCKED):
        return in_use(path, None)
    if any(phrase in text for phrase in _READ_ONLY):
        return StoreReadOnlyError(
            f"{path} cannot be written ({text}); nothing was written: make the folder and its "
            "files writable for this user"
        )
    if any(phrase in text for phrase in _DAMAGED):
        return damaged(path, text)
    return StoreError(f"RocksDB failed in {path}: {text}")


def in_use(path: Path, pid: int | None) -> StoreConfigurationError:
    """The error for a folder that is open already, by which process if that is known."""
    who = "it is" if pid is None else f"process {pid} has it"
    if pid == os.getpid():
        who = "this process has it"
    return StoreConfigurationError(
        f"{path} cannot be opened, {who} open already: a RocksDB folder is for one process, and "
        "for one store in it. Close the other, or use a sqlite: or redis: URL, which several "
        "processes can share"
    )


def damaged(path: Path, what: str) -> StoreDamagedError:
    """The error for a folder that cannot be read."""
    return StoreDamagedError(
        f"the store in {path} is damaged and was left as it is ({what}); restore it from a backup, "
        "or copy the folder and try RocksDB's own repair on the copy"
    )


@contextmanager
def translated(path: Path) -> Generator[None]:
    """Raise what the binding raises inside as errors of this package."""
    try:
        yield
    except Exception as error:
        if is_ours_to_translate(error):
            raise failure(path, error) from error
        raise
