"""A page of a listing costs what the page costs, however many runs there are."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest

from murmur_streams.core.model.run import RunFilter
from murmur_streams.core.model.states import RunState
from murmur_streams.stores.local.engine.database import Due, QueuePosition
from murmur_streams.stores.local.sqlite.database import SQLiteDatabase
from murmur_streams.stores.local.sqlite.reading import due_statement, listing_statement
from murmur_streams.stores.local.sqlite.store import open_sqlite
from tests.stores.local.databases import a_run, created, write

FILTERS = {
    "creation": RunFilter(),
    "state": RunFilter(state=RunState.PENDING),
    "target": RunFilter(target="agent"),
    "tenant": RunFilter(tenant="acme"),
}


def _filled(folder: Path, count: int) -> SQLiteDatabase:
    database = open_sqlite(folder / f"{count}.db", sync=False, feed_max_entries=10)
    runs = [a_run(f"r{n}", tenant="acme", created_ms=1_000 + n) for n in range(count)]
    queue = QueuePosition(is_ready=True, score=1)
    moments = {str(due): 5 for due in Due if due is not Due.EXPIRE}
    write(database, *(created(run, queue=queue, expire_at_ms=99, **moments) for run in runs))
    return cast("SQLiteDatabase", database)


def _plan(database: SQLiteDatabase, sql: str, values: list[object]) -> str:
    rows = database._session.fetch(f"EXPLAIN QUERY PLAN {sql}", values)
    return "\n".join(row[3] for row in rows)


@pytest.fixture
def few(tmp_path: Path) -> SQLiteDatabase:
    return _filled(tmp_path, 20)


@pytest.mark.parametrize("before", [None, "0000000001010:r10"])
@pytest.mark.parametrize("name", sorted(FILTERS))
def test_a_listing_walks_the_index_of_its_filter(
    few: SQLiteDatabase, name: str, before: str | None
) -> None:
    """The query plan uses that index and sorts nothing."""
    plan = _plan(few, *listing_statement(FILTERS[name], 0, 5, before))
    assert f"USING INDEX runs_by_{name}" in plan
    assert "TEMP B-TREE" not in plan, "nothing is sorted"
    assert ("SEARCH runs" in plan) == (name != "creation" or before is not None)
    few.close()


@pytest.mark.parametrize("what", list(Due))
def test_what_is_due_is_read_from_its_index_alone(few: SQLiteDatabase, what: Due) -> None:
    """The query plan needs no table besides the index."""
    plan = _plan(few, *due_statement(what, 9, 5))
    assert plan.startswith("SEARCH runs USING COVERING INDEX runs_by_")
    assert "\n" not in plan
    few.close()


def test_a_page_of_many_runs_takes_the_steps_of_a_page_of_few(
    few: SQLiteDatabase, tmp_path: Path
) -> None:
    """With 2,000 runs, SQLite takes about as many steps as with a few."""
    many = _filled(tmp_path, 2_000)

    def steps(database: SQLiteDatabase) -> list[int]:
        return [
            *(
                _steps(database, lambda f=f: database.listing(f, 0, 5, None))
                for f in FILTERS.values()
            ),
            *(_steps(database, lambda due=due: database.due(due, 99, 5)) for due in Due),
            _steps(database, lambda: database.queue("agent", is_ready=True, limit=5)),
            _steps(database, lambda: database.journal("r1", 0, 5)),
            _steps(database, lambda: database.feed(0, 5)),
            _steps(database, database.feed_ends),
        ]

    # An ordered range of text ids may end a few steps earlier or later.
    for counted, expected in zip(steps(many), steps(few), strict=True):
        assert counted <= expected + 5
    many.close()
    few.close()


def _steps(database: SQLiteDatabase, read: object) -> int:
    """How many instructions SQLite's machine runs for it."""
    count = 0

    def step() -> int:
        nonlocal count
        count += 1
        return 0

    connection = database._session.connection
    connection.set_progress_handler(step, 1)
    read()  # type: ignore[operator]
    connection.set_progress_handler(None, 0)
    return count
