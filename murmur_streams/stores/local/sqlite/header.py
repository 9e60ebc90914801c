"""Classifies a file by its bytes before SQLite may touch it: ours, another program's, damaged."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from murmur_streams.core.model.errors import StoreConfigurationError, StoreDamagedError
from murmur_streams.stores.local.sqlite.tables import APPLICATION_ID, SCHEMA_VERSION

_MAGIC = b"SQLite format 3\x00"
_HEADER_BYTES = 100
_APPLICATION_AT = 68
_SEARCHED_BYTES = 256 * 1024
_OUR_TABLE = b"CREATE TABLE feed_start"
_RUNTIME_TABLES = frozenset({"runs", "events"})


def check_file(path: Path) -> None:
    """Refuse a file that is not a store of ours, without a lock, a write or a file beside it.

    Raises:
        StoreConfigurationError: it is something else.
        StoreDamagedError: it was a store.
        OSError: it cannot be read.
    """
    start = b""
    if path.exists():
        with path.open("rb") as file:
            start = file.read(_SEARCHED_BYTES)
    if not start:
        _check_empty(path)
    elif len(start) < _HEADER_BYTES or not start.startswith(_MAGIC):
        _refuse_broken(path, start)
    elif _application(start) != APPLICATION_ID:
        _check_unmarked(path, start)


def too_new(path: Path, version: int, newest: int) -> StoreConfigurationError:
    """The error for a file that a newer release has written."""
    return StoreConfigurationError(
        f"{path} has schema version {version}, and this release knows {newest} at most; "
        "upgrade murmur-streams"
    )


def not_ours(path: Path, what: str) -> StoreConfigurationError:
    """The error for a file that is something else."""
    return StoreConfigurationError(
        f"{path} is {what}, no store of murmur-streams, and was left as it is; give another path"
    )


def _application(start: bytes) -> int:
    return int.from_bytes(start[_APPLICATION_AT : _APPLICATION_AT + 4], "big")


def _check_empty(path: Path) -> None:
    # In this order: a process that creates the store at this moment makes -wal after the file.
    has_wal = _size(Path(f"{path}-wal")) > 0
    if has_wal and _size(path) == 0:
        raise StoreDamagedError(
            f"{path} is empty or gone, but {path.name}-wal beside it is not: the store was cut off "
            "or moved without it; put both back from a backup, or remove the -wal file"
        )


def _refuse_broken(path: Path, start: bytes) -> None:
    is_cut = len(start) < _HEADER_BYTES and _MAGIC.startswith(start[: len(_MAGIC)])
    if is_cut or _OUR_TABLE in start or not any(start[:_HEADER_BYTES]):
        raise StoreDamagedError(
            f"{path} is damaged (its header is destroyed or cut off) and was left as it is; put a "
            "backup in its place"
        )
    raise not_ours(path, "no SQLite database")


def _check_unmarked(path: Path, start: bytes) -> None:
    """Judge an SQLite database that has not our mark; an empty one passes."""
    application = _application(start)
    if application:
        raise not_ours(path, f"an SQLite database of another program ({application:#010x})")
    if _OUR_TABLE in start:
        raise StoreDamagedError(
            f"{path} has lost its header, or was restored without its marks; if it is whole, set "
            f"them: sqlite3 FILE 'PRAGMA application_id = {APPLICATION_ID}; "
            f"PRAGMA user_version = {SCHEMA_VERSION}'"
        )
    tables = _tables(path)
    if tables >= _RUNTIME_TABLES:
        raise not_ours(path, "a database of murmur-runtime")
    if tables or _size(Path(f"{path}-wal")) > 0:
        raise not_ours(path, "an SQLite database of another program")


def _tables(path: Path) -> frozenset[str]:
    # immutable: SQLite takes no lock and makes no -wal or -shm.
    uri = f"{path.absolute().as_uri()}?mode=ro&immutable=1"
    try:
        with closing(sqlite3.connect(uri, uri=True)) as connection:
            rows = connection.execute("SELECT name FROM sqlite_master").fetchall()
    except sqlite3.Error as error:
        raise StoreDamagedError(
            f"{path} is an SQLite database that cannot be read ({error}) and was left as it is; "
            "put a backup in its place"
        ) from error
    return frozenset(str(row[0]) for row in rows)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
