"""Translates the errors of RocksDB to those of this package."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from murmur_streams.core.model import errors
from murmur_streams.stores.local.rocksdb.binding import rocksdict

# The binding raises bare Exceptions. Only their texts say what they are: the names of RocksDB's
# statuses, and what the C library says for each errno.
_DAMAGED = (
    "the store in {path} is damaged and was left as it is ({what}); restore it from a backup, or "
    "copy the folder and try RocksDB's own repair on the copy"
)
_LOCKED = ("lock hold by current process", "While lock file")
_FULL = (
    "the disk of {path} is full, or a limit is reached ({what}); nothing was written: make room, "
    "then write again"
)
_READ_ONLY = (
    "{path} cannot be written ({what}); nothing was written: make the folder and its files "
    "writable for this user"
)
_DISK_FULL = ("No space left", "Disk quota exceeded", "File too large")
_NOT_PERMITTED = ("Read-only file system", "Permission denied", "Operation not permitted")
_CORRUPT = ("Corruption", "file size mismatch", "No such file or directory", "truncated")
_FAILURES: tuple[tuple[tuple[str, ...], type[errors.StoreError], str], ...] = (
    (_DISK_FULL, errors.StoreFullError, _FULL),
    (_NOT_PERMITTED, errors.StoreReadOnlyError, _READ_ONLY),
    (_CORRUPT, errors.StoreDamagedError, _DAMAGED),
)


def is_ours_to_translate(error: Exception) -> bool:
    """Whether the binding raised it; an error of this package's own code stays as it is."""
    return type(error) is Exception or isinstance(error, rocksdict.DbClosedError)


def failure(path: Path, error: Exception, opened: Path | None = None) -> errors.StoreError:
    """The error for what the binding raised: where, and what to do.

    Args:
        path: the store's folder.
        error: what it raised.
        opened: the folder of links to it that was opened instead.
    """
    what = str(error).replace(str(opened or path), str(path))
    if isinstance(error, rocksdict.DbClosedError):
        return errors.StoreClosedError("the store is closed; open a new one")
    if any(phrase in what for phrase in _LOCKED):
        return in_use(path, None)
    for phrases, kind, sentence in _FAILURES:
        if any(phrase in what for phrase in phrases):
            return kind(sentence.format(path=path, what=what))
    return errors.StoreError(f"RocksDB failed in {path}: {what}")


def in_use(path: Path, pid: int | None) -> errors.StoreConfigurationError:
    """The error for a folder that is open already, by which process if that is known."""
    who = "it is" if pid is None else f"process {pid} has it"
    if pid == os.getpid():
        who = "this process has it"
    return errors.StoreConfigurationError(
        f"{path} cannot be opened, {who} open already: a RocksDB folder is for one process, and "
        "for one store in it. Close the other, or use a sqlite: or redis: URL, which several "
        "processes can share"
    )


def damaged(path: Path, what: str) -> errors.StoreDamagedError:
    """The error for a folder that cannot be read."""
    return errors.StoreDamagedError(_DAMAGED.format(path=path, what=what))


@contextmanager
def translated(path: Path, opened: Path | None = None) -> Generator[None]:
    """Raise what the binding raises inside as errors of this package; arguments as ``failure``."""
    try:
        yield
    except Exception as error:
        if is_ours_to_translate(error):
            raise failure(path, error, opened) from error
        raise
