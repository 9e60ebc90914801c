"""The tables of a store in SQLite, and how an older file becomes one of today."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from murmur_streams.core.model.errors import StoreConfigurationError, StoreDamagedError

APPLICATION_ID = 0x6D75726D
"""``murm``, in the file's header: `file runs.db` shows it."""
SCHEMA_VERSION = 1
"""In the file's header as well, as SQLite's ``user_version``."""
PAGE_BYTES = 4096

Migration = Callable[[sqlite3.Connection], None]
MIGRATIONS: Mapping[int, Migration] = MappingProxyType({})
"""By the version it starts from: makes one version more. It must not commit."""

# Version and last_ms change with every entry, and a row is written as a whole: they lie beside
# the runs, which may hold much metadata. Until the second write to a run, its fields have them.
# The journal lies in the order it was written, which touches a third of the pages that it would
# if each run's entries lay together, and which makes it the feed as well: n is the entry's n
# there, dense from 1, and below 0 for what was written without being in the feed. feed_ms is null
# where the feed has the entry's own ms.
TABLES: tuple[str, ...] = (
    """CREATE TABLE runs (
        no INTEGER PRIMARY KEY,
        run_id TEXT NOT NULL UNIQUE,
        epoch TEXT NOT NULL,
        target TEXT NOT NULL,
        state TEXT NOT NULL,
        tenant TEXT,
        created_ms INTEGER NOT NULL,
        expire_at_ms INTEGER,
        live_until_ms INTEGER,
        overdue_ms INTEGER,
        lease_until_ms INTEGER,
        queue_ready INTEGER,
        queue_score INTEGER,
        fields TEXT NOT NULL
    )""",
    """CREATE TABLE versions (
        run_no INTEGER PRIMARY KEY,
        version INTEGER NOT NULL,
        last_ms INTEGER NOT NULL
    )""",
    """CREATE TABLE journal (
        n INTEGER PRIMARY KEY,
        run_no INTEGER NOT NULL,
        seq INTEGER NOT NULL,
        ms INTEGER NOT NULL,
        feed_ms INTEGER,
        fields TEXT NOT NULL
    )""",
    # Runs that went while the feed still shows entries of theirs; last_n is the last of these.
    """CREATE TABLE gone (
        run_no INTEGER PRIMARY KEY,
        run_id TEXT NOT NULL,
        target TEXT NOT NULL,
        epoch TEXT NOT NULL,
        last_n INTEGER NOT NULL
    )""",
    """CREATE TABLE payloads (
        run_no INTEGER NOT NULL,
        kind TEXT NOT NULL,
        json TEXT NOT NULL
    )""",
    # At and before this position rows of the feed may be missing: no reader may look there.
    """CREATE TABLE feed_start (
        ms INTEGER NOT NULL,
        n INTEGER NOT NULL
    )""",
    "INSERT INTO feed_start VALUES (0, 0)",
    """CREATE TABLE items (
        space TEXT NOT NULL,
        key TEXT NOT NULL,
        text TEXT NOT NULL,
        PRIMARY KEY (space, key)
    ) WITHOUT ROWID""",
)
INDEXES: tuple[str, ...] = (
    "CREATE UNIQUE INDEX journal_by_run ON journal (run_no, seq)",
    "CREATE INDEX gone_by_last ON gone (last_n)",
    "CREATE UNIQUE INDEX payloads_by_run ON payloads (run_no, kind)",
    "CREATE INDEX runs_by_creation ON runs (created_ms, run_id)",
    "CREATE INDEX runs_by_state ON runs (state, created_ms, run_id)",
    "CREATE INDEX runs_by_target ON runs (target, created_ms, run_id)",
    "CREATE INDEX runs_by_tenant ON runs (tenant, created_ms, run_id) WHERE tenant IS NOT NULL",
    "CREATE INDEX runs_by_expire ON runs (expire_at_ms, run_id) WHERE expire_at_ms IS NOT NULL",
    "CREATE INDEX runs_by_overdue ON runs (overdue_ms, run_id) WHERE overdue_ms IS NOT NULL",
    "CREATE INDEX runs_by_lease ON runs (lease_until_ms, run_id) WHERE lease_until_ms IS NOT NULL",
    """CREATE INDEX runs_by_queue ON runs (target, queue_ready, queue_score, run_id)
    WHERE queue_ready IS NOT NULL""",
)
_NAME = re.compile(r"CREATE (?:TABLE|(?:UNIQUE )?INDEX) (\w+)")
_STATEMENTS = {name[1]: each for each in TABLES + INDEXES if (name := _NAME.match(each))}
# It is unknown which entries of the old feed are missing: the feed begins anew.
_NEW_START = """DELETE FROM feed_start; INSERT INTO feed_start SELECT \
coalesce(max(coalesce(feed_ms, ms)), 0), coalesce(max(n), 0) FROM journal WHERE n > 0"""


def create(connection: sqlite3.Connection) -> None:
    """Make an empty database a store of version ``SCHEMA_VERSION``; the caller commits."""
    for statement in TABLES + INDEXES:
        connection.execute(statement)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def check(connection: sqlite3.Connection, path: Path) -> None:
    """Refuse a store of ours that lacks a table, an index or a row.

    Raises:
        StoreDamagedError: it names what is missing, and what to do.
    """
    there = {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}
    missing = {name: text for name, text in _STATEMENTS.items() if name not in there}
    tables = [name for name, text in missing.items() if text in TABLES]
    if tables:
        raise StoreDamagedError(
            f"{path} is damaged (it has no {' and no '.join(tables)}) and was left as it is; put a "
            "backup in its place"
        )
    if missing:
        again = "; ".join(" ".join(text.split()) for text in missing.values())
        raise StoreDamagedError(
            f"{path} is damaged (it has no {' and no '.join(missing)}) and was left as it is; make "
            f"what is missing with: sqlite3 FILE '{again}'"
        )
    start = connection.execute("SELECT typeof(ms), typeof(n) FROM feed_start").fetchall()
    if start != [("integer", "integer")]:
        raise no_feed_start(path)


def no_feed_start(path: Path) -> StoreDamagedError:
    """The error for a store that does not know from where on its feed is whole."""
    return StoreDamagedError(
        f"{path} is damaged (feed_start has not the one row of numbers that it should) and was "
        "left as it is; put a backup in its place, or let the feed begin anew with: "
        f"sqlite3 FILE '{_NEW_START}'"
    )


def migrate(
    connection: sqlite3.Connection, version: int, newest: int, migrations: Mapping[int, Migration]
) -> None:
    """Make a store of ``version`` one of ``newest``, step by step; the caller commits.

    Raises:
        StoreConfigurationError: no release knows the way from a version.
    """
    for step in range(version, newest):
        if step not in migrations:
            raise StoreConfigurationError(
                f"the file has schema version {step}, and nothing leads from there to {newest}; "
                "open it with the release that wrote it"
            )
        migrations[step](connection)
    connection.execute(f"PRAGMA user_version = {newest}")
