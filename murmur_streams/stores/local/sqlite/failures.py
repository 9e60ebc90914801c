"""Translates the errors of SQLite to those of this package: which file, and what to do."""

from __future__ import annotations

import sqlite3
import sys
from pathlib import Path

from murmur_streams.core.model import errors

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
