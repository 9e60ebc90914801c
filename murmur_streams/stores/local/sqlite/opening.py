"""Opens a store in SQLite: checks the path, creates or migrates the tables, sets the file up."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from murmur_streams.core.model.errors import StoreConfigurationError, StoreError
from murmur_streams.stores.local.engine.database import Database
from murmur_streams.stores.local.sqlite import tables
from murmur_streams.stores.local.sqlite.database import SQLiteDatabase
from murmur_streams.stores.local.sqlite.failures import store_error
from murmur_streams.stores.local.sqlite.header import check_file, not_ours, too_new
from murmur_streams.stores.local.sqlite.open_files import open_file
from murmur_streams.stores.local.sqlite.session import SQLiteSession

_OLDEST_SQLITE = (3, 32)
_CACHE_KIB = 8 * 1024
_CHECKPOINT_PAGES = 1000
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
