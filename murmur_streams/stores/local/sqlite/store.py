"""SQLiteRunStore: runs in one file, which several processes of a machine may share."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from murmur_streams.core.model.errors import StoreConfigurationError, StoreDamagedError, StoreError
from murmur_streams.stores.local.engine.database import Database
from murmur_streams.stores.local.engine.file_store import FileRunStore
from murmur_streams.stores.local.sqlite import tables
from murmur_streams.stores.local.sqlite.database import SQLiteDatabase
from murmur_streams.stores.local.sqlite.session import SQLiteSession, open_file, store_error
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


_OLDEST_SQLITE = (3, 32)
_CACHE_KIB = 8 * 1024
# A checkpoint waits for the disk twice and writes a page once, however often it was changed: four
# times rarer than SQLite's default, it costs a create a third less. It fits _WAL_BYTES.
_CHECKPOINT_PAGES = 4000
_WAL_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Schema:
    """Which version to bring a file to, and how; tests give others."""

    version: int
    migrations: Mapping[int, tables.Migration]


SCHEMA = Schema(tables.SCHEMA_VERSION, tables.MIGRATIONS)


def open_sqlite(
    path: Path,
    *,
    sync: bool,
    feed_max_entries: int,
    busy_seconds: float = 30.0,
    schema: Schema = SCHEMA,
) -> Database:
    """Open the store in a file, or make a new one where there is none.

    Args:
        path: the file; its folder must exist.
        sync: True also keeps what was acknowledged when the power fails.
        feed_max_entries: how many entries the feed keeps.
        busy_seconds: how long to wait for other processes.
        schema: the version to bring it to; today's by default.

    Raises:
        StoreConfigurationError: the path fits no store, or the file is another program's, or of a
            newer release.
        StoreDamagedError: the file was a store and cannot be read.
        StoreUnavailableError: another process has held it for too long.
    """
    if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
        raise StoreConfigurationError(
            f"Python has SQLite {sqlite3.sqlite_version}; a store needs 3.32 or newer"
        )
    session = _connect(path, busy_seconds, creates=True)

    def open_reader() -> SQLiteSession:
        reader = _connect(path, busy_seconds, creates=False)
        _run(reader, sync=sync, reads_only=True)
        return reader

    try:
        with session.translated():
            _prepare(session, schema)
            tables.check(session.connection, path)
        _switch_to_wal(session)
    except BaseException:
        session.close()
        raise
    _run(session, sync=sync, reads_only=False)
    return SQLiteDatabase(session, feed_max_entries, open_reader)


def _check_path(path: Path) -> None:
    if path.name == ":memory:" or path.name.startswith("file:"):
        raise StoreConfigurationError(
            f"{path.name} means something to SQLite, but here it would be the name of a file; give "
            "a path, or memory: for the store in memory"
        )
    folder = path.absolute().parent
    if path.is_dir():
        raise StoreConfigurationError(f"{path} is a folder; give the path of a file in it")
    if path.exists() and not path.is_file():
        raise StoreConfigurationError(f"{path} is not a regular file; give the path of one")
    if not folder.is_dir():
        raise StoreConfigurationError(f"the folder {folder} does not exist; create it first")
    # SQLite makes -wal and -shm beside the file.
    for part in (folder, path) if path.exists() else (folder,):
        if not os.access(part, os.R_OK | os.W_OK):
            raise StoreConfigurationError(
                f"{part} cannot be read and written by this user; change its permissions"
            )


def _connect(path: Path, busy_seconds: float, *, creates: bool) -> SQLiteSession:
    def connect() -> sqlite3.Connection:
        return sqlite3.connect(
            f"{path.absolute().as_uri()}?mode={'rwc' if creates else 'rw'}",
            uri=True,
            timeout=busy_seconds,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=256,
        )

    try:
        _check_path(path)
        connection, file = open_file(path, check_file, connect)
    except sqlite3.Error as error:
        raise store_error(error, path, busy_seconds) from error
    except OSError as error:
        raise StoreConfigurationError(
            f"{path} cannot be reached ({error.strerror}); check the permissions of its folders"
        ) from error
    return SQLiteSession(connection, file, path, busy_seconds)


def _prepare(session: SQLiteSession, schema: Schema) -> None:
    """Create or migrate the tables, once, also when other processes open the file just now."""
    connection = session.connection
    connection.execute(f"PRAGMA page_size = {tables.PAGE_BYTES}")
    if _marks(connection) == (tables.APPLICATION_ID, schema.version):
        return
    with session.transaction():
        application, version = _marks(connection)
        if not application and not connection.execute("SELECT 1 FROM sqlite_master").fetchone():
            tables.create(connection)
        elif application != tables.APPLICATION_ID:
            raise not_ours(session.path, "an SQLite database of another program")
        elif version > schema.version:
            raise too_new(session.path, version, schema.version)
        elif version < schema.version:
            tables.migrate(connection, version, schema.version, schema.migrations)


def _marks(connection: sqlite3.Connection) -> tuple[int, int]:
    application = connection.execute("PRAGMA application_id").fetchone()
    version = connection.execute("PRAGMA user_version").fetchone()
    return int(application[0]), int(version[0])


def _switch_to_wal(session: SQLiteSession) -> None:
    # The tables come first: a file never has the mode without the mark that it is ours.
    mode = session.first("PRAGMA journal_mode = WAL")
    if mode != ("wal",):
        raise StoreConfigurationError(
            f"SQLite cannot keep a write-ahead log beside {session.path} (its journal mode stays "
            f"{mode and mode[0]}); put the file on a local disk"
        )


def _run(session: SQLiteSession, *, sync: bool, reads_only: bool) -> None:
    settings = [
        f"synchronous = {'FULL' if sync else 'NORMAL'}",
        f"cache_size = -{_CACHE_KIB}",
        f"wal_autocheckpoint = {_CHECKPOINT_PAGES}",
        f"journal_size_limit = {_WAL_BYTES}",
        "temp_store = MEMORY",
        "busy_timeout = 0",  # a SQLiteSession waits by itself
        f"query_only = {'ON' if reads_only else 'OFF'}",
    ]
    try:
        for setting in settings:
            session.fetch(f"PRAGMA {setting}")
    except StoreError:
        session.close()
        raise


LOOK_SECONDS = 0.02


class SQLiteRunStore(FileRunStore):
    """Runs in an SQLite file, shared by every process of this machine that opens it.

    A write of another process reaches a subscriber here at most ``LOOK_SECONDS`` and one read
    later: only while a reader waits, a thread asks SQLite fifty times a second whether the file
    has changed (``PRAGMA data_version``, some microseconds).

    Args and guarantees: as FileRunStore's.
    """

    look_seconds = LOOK_SECONDS

    def _open_database(self) -> Database:
        return open_sqlite(self.path, sync=self._sync, feed_max_entries=self._feed_max_entries)
