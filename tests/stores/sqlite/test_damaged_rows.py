"""Rows that were changed by hand are damage of their run, and of nothing else."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import cast

import pytest

from murmur_streams.core.model.errors import RunDamagedError, StoreDamagedError
from murmur_streams.core.model.run import PayloadKind, RunFilter
from murmur_streams.stores.local.engine.database import (
    Changes,
    Database,
    Due,
    ItemRange,
    QueuePosition,
    RunChange,
    Space,
    Stored,
)
from murmur_streams.stores.local.sqlite.database import SQLiteDatabase
from murmur_streams.stores.local.sqlite.store import open_sqlite
from tests.stores.local.databases import (
    a_run,
    an_entry,
    appended,
    created,
    removed,
    seqs,
    stored_run,
    texts,
    write,
)

# ruff: noqa: S608  # the statements are this file's own
DEEP = "replace(hex(zeroblob(100000)), '00', '[')"
NO_UTF8 = "CAST(x'22ff' AS TEXT)"
HUGE = 2**70


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs.db"


@pytest.fixture
def database(path: Path) -> Iterator[Database]:
    database = _open(path)
    run = a_run(tenant="acme")
    moments = {"expire_at_ms": 90, "live_until_ms": 91, "overdue_ms": 92, "lease_until_ms": 93}
    entries = [an_entry(run, seq, data=str(seq)) for seq in range(1, 7)]
    queue = QueuePosition(is_ready=True, score=5)
    payloads = {PayloadKind.INPUT: "1"}
    write(
        database,
        created(run, *entries, queue=queue, payloads=payloads, **moments),
        created(a_run("r2", created_ms=500)),
        items={(Space.WORKERS, "w"): "{}"},
    )
    yield database
    database.close()


def _open(path: Path) -> Database:
    return open_sqlite(path, sync=False, feed_max_entries=100)


def _change(database: Database, sql: str) -> None:
    cast("SQLiteDatabase", database)._session.connection.execute(sql)


def _listed(database: Database, limit: int = 9) -> list[str]:
    return [run.run_id for run in database.listing(RunFilter(), 0, limit, None)]


RUN_ROWS = [
    "fields = '{\"attempt\": []}'",
    "fields = '{\"progress_total\": {}}'",
    "fields = '{\"worker\": null}'",
    f"fields = {DEEP}",
    f"fields = {NO_UTF8}",
    "fields = x'7b7d'",
    "epoch = x'00'",
    "target = x'00'",
    "tenant = x'00'",
    "state = 'bogus'",
    "created_ms = 'abc'",
    "expire_at_ms = 'abc'",
    "live_until_ms = 1.5",
    "overdue_ms = x'00'",
    "lease_until_ms = 'abc'",
    "queue_ready = 'q'",
    "queue_score = 'zz'",
    "queue_score = NULL",
]


@pytest.mark.parametrize("change", RUN_ROWS)
def test_a_run_whose_row_was_changed_is_damaged_and_left_out(
    database: Database, change: str
) -> None:
    """Reading it raises RunDamagedError; listings and due rows leave it out."""
    _change(database, f"UPDATE runs SET {change} WHERE run_id = 'r1'")
    with pytest.raises(RunDamagedError):
        database.stored("r1")
    with pytest.raises(RunDamagedError):
        database.journal("r1", 0, 10)
    assert _listed(database) == ["r2"]
    assert _listed(database, 1) == ["r2"]
    assert [entry.seq for entry in database.stored_entries("r1", 0, 10)] == [1, 2, 3, 4, 5, 6]
    for what in Due:
        assert set(database.due(what, 99, 9)) <= {"r1"}
    assert database.queue("agent", is_ready=True, limit=9) in ([], [(5, "r1")])
    assert [row.position[1] for row in database.feed(0, 99)] == [1, 2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize("change", ["version = 'abc'", "version = 3.5", "last_ms = x'00'"])
def test_a_version_that_is_no_number_is_damage(database: Database, change: str) -> None:
    """So is one with a fraction, or a time of a wrong type."""
    _change(database, "INSERT INTO versions VALUES (1, 6, 6)")
    _change(database, f"UPDATE versions SET {change} WHERE run_no = 1")
    with pytest.raises(RunDamagedError):
        database.stored("r1")
    assert _listed(database) == ["r2"]


def test_a_page_of_a_listing_is_full_when_others_cannot_be_read(database: Database) -> None:
    """Twenty damaged runs do not shorten a page of readable ones."""
    write(database, *(created(a_run(f"n{number}")) for number in range(20)))
    _change(database, "UPDATE runs SET fields = '' WHERE run_id LIKE 'n%' OR run_id = 'r1'")
    write(database, created(a_run("old", created_ms=100)))
    assert _listed(database, 2) == ["r2", "old"]


def test_a_version_that_is_too_low_concerns_its_run_only(database: Database) -> None:
    """The error names that run, and the other run can be written."""
    _change(database, "INSERT INTO versions VALUES (1, 2, 6)")
    with pytest.raises(
        RunDamagedError, match=r"'r1' .*version is 2, .*entry 6\); .*rebuild"
    ) as reported:
        write(
            database,
            appended(stored_run(database, "r2"), an_entry(a_run("r2"), 2)),
            appended(stored_run(database), an_entry(a_run(), 3)),
        )
    assert reported.value.run_id == "r1"
    write(database, appended(stored_run(database, "r2"), an_entry(a_run("r2"), 2)))


ENTRY_ROWS = [
    "fields = '[]'",
    "fields = '{\"type\": 5}'",
    f"fields = {DEEP}",
    f"fields = {NO_UTF8}",
    "fields = x'7b7d'",
    "ms = 'abc'",
]


class TestJournal:
    @pytest.mark.parametrize("change", ENTRY_ROWS)
    def test_an_entry_that_was_changed_is_damage_of_its_run(
        self, database: Database, change: str
    ) -> None:
        """The error names run and entry; an audit gets the entries that can be read."""
        _change(database, f"UPDATE journal SET {change} WHERE n = 3")
        with pytest.raises(RunDamagedError, match=r"'r1'.*entry 3"):
            database.journal("r1", 0, 10)
        with pytest.raises(RunDamagedError):
            database.last_entries("r1", 10)
        assert [entry.seq for entry in database.stored_entries("r1", 0, 9)] == [1, 2, 4, 5, 6]
        assert [entry.seq for entry in database.stored_entries("r1", 2, 1)] == [4]
        assert database.stored_entries("r1", 6, 1) == []

    @pytest.mark.parametrize("change", ENTRY_ROWS)
    def test_a_changed_entry_stays_in_the_feed_without_a_type(
        self, database: Database, change: str
    ) -> None:
        """Readers of the feed get its number, run and target, and all other entries as they are."""
        _change(database, f"UPDATE journal SET {change} WHERE n = 3")
        rows = database.feed(0, 99)
        assert [row.position[1] for row in rows] == [1, 2, 3, 4, 5, 6, 7]
        assert [row.entry.type for row in rows].index("") == 2
        assert (rows[2].entry.run_id, rows[2].entry.epoch, rows[2].target) == ("r1", "e1", "agent")
        assert {row.entry.type for row in rows[:2] + rows[3:]} == {"agent_started"}

    def test_an_entry_without_a_run_stays_in_the_feed(self, database: Database) -> None:
        """Its run was removed by hand: the feed has the number, and empty fields."""
        _change(database, "UPDATE journal SET run_no = 999 WHERE n = 3")
        row = database.feed(2, 1)[0]
        assert (row.position, row.target, row.entry.run_id, row.entry.type) == ((3, 3), "", "", "")

    def test_a_seq_that_is_no_number_is_damage(self, database: Database) -> None:
        """The journal cannot be read, but the other entries can be listed for an audit."""
        _change(database, "UPDATE journal SET seq = 'abc' WHERE n = 3")
        with pytest.raises(RunDamagedError):
            database.journal("r1", 0, 10)
        assert [entry.seq for entry in database.stored_entries("r1", 0, 2)] == [1, 2]
        assert [entry.seq for entry in database.stored_entries("r1", 2, 9)] == [4, 5, 6]
        assert database.stored_entries("r1", 6, 1) == []

    def test_an_unreadable_last_feed_position_stops_no_writer(self, path: Path) -> None:
        """The next entry gets the next number, and a time that begins anew."""
        database = _open(path)
        write(database, created(a_run()))
        _change(database, "UPDATE journal SET ms = 'abc', feed_ms = 'abc'")
        database.close()
        database = _open(path)
        assert write(database, created(a_run("r2"))) == (1, 2)
        assert database.feed_ends() == ((0, 0), (1, 2))
        database.close()

    def test_a_run_with_an_entry_that_cannot_be_read_can_be_removed(
        self, database: Database
    ) -> None:
        """The feed keeps the number of the entry, without a type."""
        _change(database, "UPDATE journal SET fields = hex(zeroblob(9999)) WHERE n = 3")
        write(database, removed(stored_run(database)))
        assert database.stored("r1") is None
        assert [row.entry.type for row in database.feed(2, 1)] == [""]

    def test_a_bad_epoch_is_replaced_by_that_of_the_first_entry(self, database: Database) -> None:
        """If the first entry has none either, it is eight zeros."""
        _change(database, "UPDATE runs SET epoch = x'00' WHERE run_id = 'r1'")
        assert database.stored_entries("r1", 0, 1)[0].epoch == "00000000"
        _change(database, 'UPDATE journal SET fields = \'{"epoch": "e7"}\' WHERE n = 1')
        assert [entry.epoch for entry in database.stored_entries("r1", 0, 2)] == ["e7", "e7"]


@pytest.mark.parametrize("value", ["x'00ff'", NO_UTF8])
def test_texts_that_are_none_are_damage(database: Database, value: str) -> None:
    """A payload or item that is not text raises an error that names it."""
    _change(database, f"UPDATE payloads SET json = {value}")
    _change(database, f"UPDATE items SET text = {value}")
    with pytest.raises(RunDamagedError, match="input is not text"):
        database.payload("r1", PayloadKind.INPUT)
    with pytest.raises(StoreDamagedError, match="workers 'w' is not text"):
        database.item(Space.WORKERS, "w")
    with pytest.raises(StoreDamagedError, match="workers 'w' is not text"):
        database.items(ItemRange(Space.WORKERS, limit=9))
    assert _listed(database) == ["r1", "r2"], "texts are read as texts again"


def _repair(database: Database, last: int, fields: str = "''") -> Stored:
    """Damage the run's row, and write it anew, as a rebuild does."""
    _change(database, f"UPDATE runs SET fields = {fields}, overdue_ms = 'x' WHERE run_id = 'r1'")
    after = Stored(a_run(version=last, last_ms=last), live_until_ms=7)
    write(database, RunChange(None, after, is_repair=True))
    return after


class TestRepairs:
    def test_a_run_that_is_made_anew_keeps_journal_and_payloads(self, database: Database) -> None:
        """A rebuild replaces the run's row and its times, and nothing else."""
        after = _repair(database, 6)
        assert stored_run(database) == after
        assert texts(database) == ["1", "2", "3", "4", "5", "6"]
        assert database.payload("r1", PayloadKind.INPUT) == "1"
        assert database.due(Due.EXPIRE, 99, 9) == []
        assert database.queue("agent", is_ready=True, limit=9) == []
        assert _listed(database) == ["r1", "r2"]
        assert database.listing(RunFilter(tenant="acme"), 0, 9, None) == []
        write(database, appended(stored_run(database), an_entry(a_run(), 7)))
        assert seqs(database) == [1, 2, 3, 4, 5, 6, 7]

    def test_a_rebuilt_run_continues_after_its_last_readable_entry(
        self, database: Database
    ) -> None:
        """New entries take the numbers of those that cannot be read; the feed keeps both."""
        _change(database, "UPDATE journal SET fields = '[' WHERE n >= 5 AND run_no = 1")
        _repair(database, 4)
        write(database, appended(stored_run(database), an_entry(a_run(), 5), an_entry(a_run(), 6)))
        assert seqs(database) == [1, 2, 3, 4, 5, 6]
        rows = database.feed(0, 99)
        assert [row.position[1] for row in rows] == list(range(1, 10))
        assert [row.entry.run_id for row in rows if not row.entry.type] == ["r1", "r1"]

    def test_a_run_that_cannot_be_read_can_be_removed(self, database: Database) -> None:
        """Its payloads and entries go with it, and the id can be used again."""
        _change(database, "UPDATE runs SET fields = '' WHERE run_id = 'r1'")
        database.begin()
        database.commit(Changes(runs={"r1": RunChange(None, None, is_repair=True)}))
        assert database.stored("r1") is None
        assert database.payload("r1", PayloadKind.INPUT) is None
        assert database.stored_entries("r1", 0, 9) == []
        assert len(database.feed(0, 99)) == 7
        write(database, created(a_run(epoch="e2")))
        assert seqs(database) == [1]

    def test_a_run_that_cannot_be_read_can_begin_a_new_life(self, database: Database) -> None:
        """The new life has only its own entries."""
        _change(database, "UPDATE runs SET fields = '' WHERE run_id = 'r1'")
        change = created(a_run(epoch="e2"))
        change.is_repair = change.is_new_life = True
        write(database, change)
        assert seqs(database) == [1]
        assert database.payload("r1", PayloadKind.INPUT) is None

    def test_a_run_whose_row_is_gone_leaves_no_number_to_another(self, path: Path) -> None:
        """A new run does not inherit the entries of a run that was deleted by hand."""
        database = _open(path)
        write(database, created(a_run()))
        _change(database, "DELETE FROM runs")
        database.close()
        database = _open(path)
        write(database, created(a_run("r2")))
        assert seqs(database, "r2") == [1]
        database.close()


def _drop(path: Path, sql: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(sql)
        connection.commit()


class TestTables:
    @pytest.mark.parametrize(
        ("sql", "message"),
        [
            ("DROP TABLE payloads", r"has no payloads\)"),
            ("DROP TABLE feed_start", "has no feed_start"),
            (
                "DROP INDEX runs_by_expire",
                r"has no runs_by_expire\) .* make .* 'CREATE INDEX runs_",
            ),
            ("DELETE FROM feed_start", "feed begin anew"),
            ("UPDATE feed_start SET n = 'abc'", "feed begin anew"),
            ("ALTER TABLE feed_start RENAME n TO m", "is damaged .*no such column"),
        ],
    )
    def test_a_store_that_misses_something_is_not_opened(
        self, path: Path, sql: str, message: str
    ) -> None:
        """The error names the missing table, row or index."""
        _open(path).close()
        _drop(path, sql)
        with pytest.raises(StoreDamagedError, match=message):
            _open(path)

    @pytest.mark.parametrize(
        "sql",
        ["DELETE FROM feed_start", "UPDATE feed_start SET n = 'abc'", "DROP INDEX gone_by_last"],
    )
    def test_what_the_error_says_mends_it(self, database: Database, path: Path, sql: str) -> None:
        """The sqlite3 command in the error repairs the file."""
        database.close()
        _drop(path, sql)
        with pytest.raises(StoreDamagedError) as reported:
            _open(path)
        again = str(reported.value).partition("sqlite3 FILE '")[2].removesuffix("'")
        with closing(sqlite3.connect(path)) as connection:
            connection.executescript(again)
        mended = _open(path)
        assert seqs(mended) == [1, 2, 3, 4, 5, 6]
        assert write(mended, created(a_run("r3")))[1] == 8
        assert mended.feed(7, 9)[0].entry.run_id == "r3"
        mended.close()

    @pytest.mark.parametrize("sql", ["DELETE FROM feed_start", "UPDATE feed_start SET n = 'abc'"])
    def test_a_feed_that_loses_its_start_while_it_is_open_says_so(
        self, database: Database, path: Path, sql: str
    ) -> None:
        """Reads and writes of the feed raise StoreDamagedError."""
        _drop(path, sql)
        reads: list[Callable[[], object]] = [
            database.feed_ends,
            lambda: database.feed(0, 9),
            lambda: write(database, created(a_run("r3"))),
        ]
        for read in reads:
            with pytest.raises(StoreDamagedError, match="feed_start"):
                read()

    def test_a_table_that_is_dropped_while_it_is_open_is_damage(
        self, database: Database, path: Path
    ) -> None:
        """The next read of the table raises StoreDamagedError."""
        _drop(path, "DROP TABLE payloads")
        with pytest.raises(StoreDamagedError, match="no such table"):
            database.payload("r1", PayloadKind.INPUT)


@pytest.mark.parametrize("number", [HUGE, -1, -HUGE])
def test_numbers_beyond_sqlites_are_cut_to_its_nearest(
    database: Database, path: Path, number: int
) -> None:
    """A limit or position that SQLite cannot hold works as its largest or smallest number."""
    whole = number == HUGE
    journal = database.journal("r1", 0, number)
    assert journal is not None
    assert len(journal[1]) == (6 if whole else 0)
    assert len(database.last_entries("r1", number)) == (6 if whole else 0)
    assert len(database.stored_entries("r1", number, number)) == 0
    assert len(database.stored_entries("r1", 0, number)) == (6 if whole else 0)
    assert len(database.feed(0, number)) == (7 if whole else 0)
    assert len(database.feed(number, 9)) == (0 if whole else 7)
    assert len(database.due(Due.EXPIRE, number, 9)) == (1 if whole else 0)
    assert len(database.due(Due.EXPIRE, 99, number)) == (1 if whole else 0)
    assert len(database.queue("agent", is_ready=True, limit=number)) == (1 if whole else 0)
    assert len(database.items(ItemRange(Space.WORKERS, limit=number))) == (1 if whole else 0)
    assert len(database.listing(RunFilter(), number, 9, None)) == (1 if whole else 2)
    assert len(_listed(database, number)) == (2 if whole else 0)
    other = open_sqlite(path, sync=False, feed_max_entries=number)
    assert len(other.feed(0, 9)) == (7 if whole else 0)
    other.close()
