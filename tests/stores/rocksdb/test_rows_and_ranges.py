from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from murmur_streams.core.model.run import PayloadKind, RunFilter, listing_key
from murmur_streams.core.model.states import RunProgress, RunState
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
from tests.stores.rocksdb.making import NOW, appended, changed, created, entry, new_run, opened


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = opened(tmp_path / "store")
    yield database
    database.close()


def test_a_run_comes_back_as_it_was_written(database: Database) -> None:
    """A run with quotes, control characters and all times is read as an equal run."""
    stored = Stored(
        replace(
            new_run("a:b.c_d-1").run,
            error='“quoted” \n\x7f "and" more',
            progress=RunProgress(total=3),
            queued=True,
            metadata_json='{"a": 1}',
        ),
        expire_at_ms=NOW + 1,
        overdue_ms=NOW + 2,
        queue=QueuePosition(is_ready=True, score=-5),
    )
    database.commit(created(stored))
    assert database.stored("a:b.c_d-1") == stored
    assert database.stored("a:b.c_d") is None


def test_a_plain_change_writes_version_and_last_ms(database: Database) -> None:
    """An append changes only these two, and adds its entries."""
    stored = new_run("run")
    database.commit(created(stored))
    after, group = appended(stored, 3, data='{"ü": "\\u0000"}')
    database.commit(group)
    assert database.stored("run") == after
    found = database.journal("run", 1, 2)
    assert found is not None
    assert found[0] == after
    assert found[1] == group.runs["run"].entries[:2]


def test_the_newest_entries_come_oldest_first(database: Database) -> None:
    """The last n entries are returned in the order of their seq."""
    stored = new_run("run")
    database.commit(created(stored))
    _, group = appended(stored, 9)
    database.commit(group)
    assert [each.seq for each in database.last_entries("run", 3)] == [8, 9, 10]
    assert database.last_entries("run", 0) == []
    assert database.last_entries("other", 3) == []


def test_a_journal_does_not_reach_into_that_of_a_longer_id(database: Database) -> None:
    """Ids that begin alike have separate journals."""
    for run_id in ("run", "run0", "run:1"):
        database.commit(created(new_run(run_id)))
    found = database.journal("run", 0, 100)
    assert found is not None
    assert [each.run_id for each in found[1]] == ["run"]


def test_a_trimmed_journal_begins_where_it_was_trimmed(database: Database) -> None:
    """Entries before the first one to keep are gone."""
    stored = new_run("run")
    database.commit(created(stored))
    stored, group = appended(stored, 10)
    group.runs["run"].keep_from_seq = 8
    database.commit(group)
    found = database.journal("run", 0, 100)
    assert found is not None
    assert [each.seq for each in found[1]] == [8, 9, 10, 11]


@pytest.mark.parametrize("length", [3, 1500], ids=["short", "long"])
def test_a_removed_run_leaves_nothing(database: Database, length: int) -> None:
    """A short and a long run are removed with all their rows."""
    stored = replace(new_run("run"), lease_until_ms=NOW)
    group = created(stored)
    group.runs["run"].payloads[PayloadKind.INPUT] = "1"
    database.commit(group)
    stored, group = appended(stored, length)
    database.commit(group)
    database.commit(changed(stored, None))
    assert database.stored("run") is None
    assert database.journal("run", 0, 10) is None
    assert database.payload("run", PayloadKind.INPUT) is None
    assert database.listing(RunFilter(), 0, 10, None) == []
    assert database.due(Due.LEASE, NOW, 10) == []


@pytest.mark.parametrize("length", [3, 1500], ids=["short", "long"])
def test_a_new_life_has_nothing_of_the_old_one(database: Database, length: int) -> None:
    """Journal, payloads and tenant of the old life are gone."""
    old = new_run("run", tenant="mine")
    group = created(old)
    group.runs["run"].payloads = {PayloadKind.INPUT: "1", PayloadKind.RESULT: "2"}
    database.commit(group)
    old, group = appended(old, length)
    database.commit(group)
    new = new_run("run", epoch="ffffffff", created_ms=NOW + 5)
    first = entry("run", 1, epoch="ffffffff")
    change = RunChange(
        old, new, is_new_life=True, entries=[first], payloads={PayloadKind.INPUT: "3"}
    )
    database.commit(Changes({"run": change}, [("writer", first)]))
    assert database.journal("run", 0, 100) == (new, [first])
    assert database.payload("run", PayloadKind.INPUT) == "3"
    assert database.payload("run", PayloadKind.RESULT) is None
    assert database.listing(RunFilter(), 0, 10, None) == [new.run]
    assert database.listing(RunFilter(tenant="mine"), 0, 10, None) == []


def test_a_listing_is_newest_first_and_goes_on_before_a_key(database: Database) -> None:
    """The key of the last run begins the next page."""
    runs = [new_run(f"run{each}", created_ms=NOW + each // 2).run for each in range(6)]
    for run in runs:
        database.commit(created(Stored(run)))
    first = database.listing(RunFilter(), 0, 4, None)
    assert first == runs[:1:-1]
    before = listing_key(first[-1].created_ms, first[-1].run_id)
    assert database.listing(RunFilter(), 0, 4, before) == [runs[1], runs[0]]


def test_a_listing_lets_through_what_is_wanted(database: Database) -> None:
    """Each combination of state, target and tenant selects the right runs."""
    for number in range(12):
        state = RunState.RUNNING if number % 2 else RunState.PENDING
        target, tenant = f"target{number % 3}", "mine" if number % 4 < 2 else None
        run = new_run(f"run{number:02}", state=state, target=target, tenant=tenant)
        database.commit(created(run))
    everything = database.listing(RunFilter(), 0, 100, None)
    assert len(everything) == 12
    for state in (None, RunState.RUNNING, RunState.FAILED):
        for target in (None, "target1", "target"):
            for tenant in (None, "mine"):
                wanted = RunFilter(state, target, tenant)
                expected = [run for run in everything if wanted.wants(run)]
                assert database.listing(wanted, 0, 100, None) == expected
                assert database.listing(wanted, 0, 2, None) == expected[:2]


def test_a_listing_passes_what_has_expired(database: Database) -> None:
    """Runs whose time is over are skipped, and the page is still full."""
    for number in range(5):
        run = replace(new_run(f"run{number}"), expire_at_ms=NOW if number > 1 else NOW + 1)
        database.commit(created(run))
    assert [run.run_id for run in database.listing(RunFilter(), NOW, 2, None)] == ["run1", "run0"]


def test_moments_are_due_in_their_order(database: Database) -> None:
    """Rows come by time, then by id, up to the given moment and limit."""
    for number, moment in enumerate((5, 3, 9, 3)):
        database.commit(created(replace(new_run(f"run{number}"), overdue_ms=moment)))
    assert database.due(Due.OVERDUE, 5, 10) == ["run1", "run3", "run0"]
    assert database.due(Due.OVERDUE, 5, 2) == ["run1", "run3"]
    assert database.due(Due.OVERDUE, 2, 10) == []
    assert database.due(Due.EXPIRE, 100, 10) == []


def test_a_moment_that_moved_is_due_once(database: Database) -> None:
    """A changed time replaces the old one, and None removes it."""
    before = replace(new_run("run"), lease_until_ms=10)
    database.commit(created(before))
    assert database.due(Due.LEASE, 20, 10) == ["run"]
    after = replace(before, lease_until_ms=5)
    database.commit(changed(before, after))
    assert database.due(Due.LEASE, 20, 10) == ["run"]
    database.commit(changed(after, replace(after, lease_until_ms=None)))
    assert database.due(Due.LEASE, 20, 10) == []


def test_a_queue_is_ordered_by_score_below_zero_too_then_by_id(database: Database) -> None:
    """Negative scores come before zero and positive ones."""
    for run_id, score in (("c", 0), ("b", -60_000), ("a", 0), ("d", 10**13)):
        position = QueuePosition(is_ready=True, score=score)
        database.commit(created(replace(new_run(run_id), queue=position)))
    delayed = replace(new_run("e"), queue=QueuePosition(is_ready=False, score=1))
    database.commit(created(delayed))
    ready = database.queue("writer", is_ready=True, limit=10)
    assert ready == [(-60_000, "b"), (0, "a"), (0, "c"), (10**13, "d")]
    assert database.queue("writer", is_ready=False, limit=10) == [(1, "e")]
    assert database.queue("write", is_ready=True, limit=10) == []
    assert database.queue("writer", is_ready=True, limit=0) == []
    assert database.queue("writer", is_ready=True, limit=1) == [(-60_000, "b")]


def test_a_run_that_joins_before_a_queues_head_is_found(database: Database) -> None:
    """A lower score than that of the remembered head is not overlooked."""
    assert database.queue("writer", is_ready=True, limit=1) == []
    for score in (7, 5, 6, -9):
        position = QueuePosition(is_ready=True, score=score)
        database.commit(created(replace(new_run(f"run{score + 10}"), queue=position)))
        assert (score, f"run{score + 10}") in database.queue("writer", is_ready=True, limit=9)
    first = database.stored("run1")
    assert first is not None
    database.commit(changed(first, replace(first, queue=None)))
    assert database.queue("writer", is_ready=True, limit=1) == [(5, "run15")]


def test_items_are_listed_by_key_from_either_end(database: Database) -> None:
    """Keys are sorted by their UTF-8 bytes, and each space has its own."""
    names = ["a/1", "a/2", "b", "ü", "😀"]
    database.commit(Changes(items={(Space.DEAD, name): name.upper() for name in names}))
    database.commit(Changes(items={(Space.DEAD_RUNS, "a"): "x"}))
    everything = [(name, name.upper()) for name in names]
    assert database.items(ItemRange(Space.DEAD, limit=10)) == everything
    assert database.items(ItemRange(Space.DEAD, limit=10, newest_first=True)) == everything[::-1]
    assert (
        database.items(ItemRange(Space.DEAD, first="a/2", before="ü", limit=10)) == everything[1:3]
    )
    assert database.items(ItemRange(Space.DEAD, first="a/", limit=1)) == everything[:1]
    assert database.items(ItemRange(Space.DEAD, before="b", limit=1, newest_first=True)) == [
        everything[1]
    ]
    database.commit(Changes(items={(Space.DEAD, "b"): None}))
    assert database.item(Space.DEAD, "b") is None
    assert database.item(Space.DEAD, "ü") == "Ü"


def test_an_empty_group_writes_nothing(database: Database) -> None:
    """The feed stays at position 0, and no foreign write is reported."""
    assert database.begin() is False
    assert database.commit(Changes()) == (0, 0)
    database.rollback()
    assert database.feed_ends() == ((0, 0), (0, 0))
    assert database.has_foreign_writes() is False
