"""A write that fails leaves nothing, says what to do, and the next one works."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from murmur_streams.core.model.errors import (
    RunDamagedError,
    StoreClosedError,
    StoreDamagedError,
    StoreError,
    StoreFullError,
    StoreReadOnlyError,
    StoreUnavailableError,
)
from murmur_streams.stores.local.engine.database import Database
from murmur_streams.stores.local.sqlite.database import SQLiteDatabase
from murmur_streams.stores.local.sqlite.store import open_sqlite
from tests.stores.local.databases import (
    a_run,
    an_entry,
    appended,
    created,
    group,
    seqs,
    stored_run,
    texts,
    write,
)
from tests.stores.sqlite import children


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs.db"


@pytest.fixture
def database(path: Path) -> Iterator[Database]:
    database = open_sqlite(path, sync=True, feed_max_entries=10_000, busy_seconds=0.05)
    yield database
    database.close()


def _connection(database: Database) -> sqlite3.Connection:
    return cast("SQLiteDatabase", database)._session.connection


@pytest.mark.parametrize(
    ("pragma", "back", "error"),
    [
        ("max_page_count = 40", "max_page_count = 1000000", StoreFullError),
        ("query_only = ON", "query_only = OFF", StoreReadOnlyError),
    ],
)
def test_a_failed_group_is_rolled_back_and_the_next_works(
    database: Database, path: Path, pragma: str, back: str, error: type[StoreError]
) -> None:
    """Nothing of the failed group is left; written again later, it succeeds."""
    write(database, created(a_run()))
    before = stored_run(database)
    entries = [an_entry(before.run, seq, data="x" * 3000) for seq in range(2, 200)]
    _connection(database).execute(f"PRAGMA {pragma}")
    with pytest.raises(error, match=str(path)):
        write(database, appended(before, *entries), created(a_run("r2")))
    _connection(database).execute(f"PRAGMA {back}")
    assert stored_run(database) == before
    assert database.stored("r2") is None
    assert database.feed_ends() == ((0, 0), (1, 1))
    write(database, created(a_run("r3")))
    assert write(database, appended(before, *entries)) == (199, 200)
    assert seqs(database) == list(range(1, 200))
    assert seqs(database, "r3") == [1]


def test_what_cannot_be_bound_is_rolled_back_too(database: Database) -> None:
    """A value of a type that SQLite lacks fails the group, and nothing of it stays."""
    write(database, created(a_run()))
    whole = group(appended(stored_run(database), an_entry(a_run(), 2)))
    whole.items["dead", "key"] = object()  # type: ignore[index,assignment]
    database.begin()
    with pytest.raises(StoreError):
        database.commit(whole)
    assert seqs(database) == [1]
    assert write(database, created(a_run("r2"))) == (1, 2)


def test_an_entry_that_is_there_already_is_refused(database: Database) -> None:
    """A run whose version is too low raises RunDamagedError and advises a rebuild."""
    write(database, created(a_run()))
    with pytest.raises(RunDamagedError, match=r"'r1' .*version is 0, .*has entry 1\).* rebuild"):
        write(database, appended(stored_run(database), an_entry(a_run(), 1)))
    assert seqs(database) == [1]
    assert write(database, appended(stored_run(database), an_entry(a_run(), 2))) == (2, 2)


@pytest.mark.fault("F42")
def test_a_file_at_its_size_limit_keeps_what_was_written(path: Path) -> None:
    """The error names the limit; everything acknowledged before is there, and writing can go on."""
    child = children.start("fill", path)
    children.go(child)
    failure, state = children.end(child).splitlines()
    name, _, rest = failure.partition(" at ")
    assert name == "StoreFullError"
    assert "ulimit -f" in rest
    assert str(path) in rest
    last = int(rest.partition(":")[0]) - 1
    assert state == f"has {last} and {last}"
    database = open_sqlite(path, sync=False, feed_max_entries=10)
    assert seqs(database) == list(range(1, last + 1))
    write(database, appended(stored_run(database), an_entry(a_run(), last + 1)))
    database.close()


@pytest.mark.fault("F42")
def test_a_lock_that_is_held_for_too_long_is_named(database: Database, path: Path) -> None:
    """Writers get an error with the file and the time; readers need no lock."""
    other = open_sqlite(path, sync=False, feed_max_entries=10, busy_seconds=0.05)
    other.begin()
    assert database.stored("r1") is None, "readers need no lock"
    with pytest.raises(StoreUnavailableError, match=r"lock of .*runs\.db for over 0\.05 seconds"):
        database.begin()
    other.commit(group(created(a_run())))
    assert database.begin()
    database.rollback()
    other.close()


def test_a_damaged_page_is_an_error_of_its_own(database: Database, path: Path) -> None:
    """A page with garbage raises StoreDamagedError."""
    run = a_run()
    write(database, created(run, *(an_entry(run, n, data="x" * 900) for n in range(1, 300))))
    database.close()
    content = bytearray(path.read_bytes())
    for page in range(24, len(content) // 4096):
        content[page * 4096 : page * 4096 + 64] = b"\xff" * 64
    path.write_bytes(content)
    damaged = open_sqlite(path, sync=False, feed_max_entries=10)
    with pytest.raises(StoreDamagedError, match=r"runs\.db is damaged .* put a backup"):
        texts(damaged)
    damaged.close()


@pytest.mark.parametrize("fields", ["", "[]", "{", "\x00"])
def test_a_run_whose_fields_are_no_json_is_damaged(database: Database, fields: str) -> None:
    """Reading the run raises RunDamagedError."""
    write(database, created(a_run()))
    _connection(database).execute("UPDATE runs SET fields = ?", (fields,))
    with pytest.raises(RunDamagedError):
        database.stored("r1")


def test_a_closed_store_says_so(database: Database) -> None:
    """Each call of a closed database or reader raises StoreClosedError."""
    reader = database.reader()
    reader.close()
    database.close()
    for read in (database.feed_ends, reader.feed_ends, database.begin):
        with pytest.raises(StoreClosedError, match="closed"):
            read()
