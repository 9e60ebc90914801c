"""Every database on disk keeps the same protocol: listings, what is due, queues, feed, items."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from murmur_streams.core.model.run import RunFilter, listing_key
from murmur_streams.core.model.states import RunState
from murmur_streams.stores.local.engine.database import (
    Database,
    Due,
    ItemRange,
    QueuePosition,
    RunChange,
    Space,
)
from tests.stores.local.databases import (
    OPENERS,
    Open,
    a_run,
    an_entry,
    appended,
    created,
    removed,
    reopening,
    stored_run,
    write,
)

ALL = RunFilter()
TYPE_ONLY = {"type": "agent_started"}
"""The fields that the feed may hold of an entry over 1 KiB whose run is gone."""


@pytest.fixture(params=sorted(OPENERS))
def reopen(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    with reopening(OPENERS[request.param], tmp_path) as again:
        yield again


@pytest.fixture
def database(reopen: Open) -> Database:
    return reopen()


class TestListing:
    @staticmethod
    def ids(
        database: Database, wanted: RunFilter = ALL, now: int = 0, limit: int = 99
    ) -> list[str]:
        return [run.run_id for run in database.listing(wanted, now, limit, None)]

    def test_the_newest_comes_first_and_equal_times_go_by_id(self, database: Database) -> None:
        """A listing is sorted by the time of creation, then by id, both descending."""
        made = {"a": 5, "b": 7, "c": 5, "B": 5}
        write(database, *(created(a_run(name, created_ms=ms)) for name, ms in made.items()))
        assert self.ids(database) == ["b", "c", "a", "B"]
        assert self.ids(database, limit=2) == ["b", "c"]

    def test_each_filter_and_all_of_them(self, database: Database) -> None:
        """State, target and tenant, alone and together, select the right runs."""
        rows = [
            ("a", "x", RunState.RUNNING, None),
            ("b", "x", RunState.PENDING, "acme"),
            ("c", "y", RunState.RUNNING, "acme"),
            ("d", "x", RunState.RUNNING, "acme"),
        ]
        runs = [a_run(n, target=t, state=s, tenant=tenant) for n, t, s, tenant in rows]
        write(database, *map(created, runs))
        filters = [
            RunFilter(state=state, target=target, tenant=tenant)
            for state in (None, RunState.RUNNING, RunState.FAILED)
            for target in (None, "x", "z")
            for tenant in (None, "acme", "other")
        ]
        for wanted in filters:
            expected = sorted((run.run_id for run in runs if wanted.wants(run)), reverse=True)
            assert self.ids(database, wanted) == expected, wanted

    def test_a_run_is_listed_by_what_it_is_now(self, database: Database) -> None:
        """After a change of state it is listed under the new state only."""
        write(database, created(a_run(state=RunState.RUNNING)))
        before = stored_run(database)
        after = replace(before, run=replace(before.run, state=RunState.FAILED))
        write(database, RunChange(before, after, is_plain=False))
        assert self.ids(database, RunFilter(state=RunState.RUNNING)) == []
        assert self.ids(database, RunFilter(state=RunState.FAILED)) == ["r1"]

    def test_a_run_that_has_expired_is_stored_and_not_listed(self, database: Database) -> None:
        """Until the sweep removes it, it can be read but not listed."""
        write(database, created(a_run(), expire_at_ms=10))
        assert self.ids(database, now=9) == ["r1"]
        assert self.ids(database, now=10) == []
        assert database.stored("r1") is not None

    @pytest.mark.parametrize("wanted", [ALL, RunFilter(target="agent"), RunFilter(tenant="acme")])
    def test_pages_hold_every_run_once_over_equal_times(
        self, database: Database, wanted: RunFilter
    ) -> None:
        """Also when all runs have the same time of creation."""
        names = [f"r{number:02}" for number in range(23)]
        write(database, *(created(a_run(name, tenant="acme", created_ms=5)) for name in names))
        found: list[str] = []
        before = None
        while page := database.listing(wanted, 0, 4, before):
            found += [run.run_id for run in page]
            before = listing_key(page[-1].created_ms, page[-1].run_id)
        assert found == names[::-1]

    def test_a_listed_run_has_its_newest_version(self, database: Database) -> None:
        """A listing shows a plain append too, which changes only version and time."""
        write(database, created(a_run()))
        write(database, appended(stored_run(database), an_entry(a_run(), 2, 9)))
        assert database.listing(ALL, 0, 9, None) == [stored_run(database).run]


class TestDue:
    @pytest.mark.parametrize("what", list(Due))
    def test_the_earliest_moments_come_first(self, database: Database, what: Due) -> None:
        """Due rows come in the order of their time, up to a limit and a moment."""
        moments = {"a": 30, "b": 10, "c": 20, "d": 40, "e": None}
        write(database, *(created(a_run(n), **{str(what): ms}) for n, ms in moments.items()))
        assert database.due(what, 30, 9) == ["b", "c", "a"]
        assert database.due(what, 30, 2) == ["b", "c"]
        assert database.due(what, 9, 9) == []

    @pytest.mark.parametrize("what", list(Due))
    def test_a_moment_that_moved_counts_where_it_is(self, database: Database, what: Due) -> None:
        """A row has one time: the old one is gone, and a removed run has none."""
        write(database, created(a_run(), **{str(what): 10}))
        before = stored_run(database)
        write(database, RunChange(before, replace(before, **{str(what): 20}), is_plain=False))
        assert database.due(what, 19, 9) == []
        write(database, removed(stored_run(database)))
        assert database.due(what, 99, 9) == []

    def test_a_queue_goes_by_score_then_id(self, database: Database) -> None:
        """Each target has a queue of ready and one of delayed runs, each sorted by score."""
        ready = {"a": 3, "c": -4, "b": -4}
        write(
            database,
            *(created(a_run(n), queue=QueuePosition(True, score)) for n, score in ready.items()),
            created(a_run("d"), queue=QueuePosition(False, 1)),
            created(a_run("e", target="other"), queue=QueuePosition(True, 1)),
            created(a_run("f")),
        )
        assert database.queue("agent", is_ready=True, limit=9) == [(-4, "b"), (-4, "c"), (3, "a")]
        assert database.queue("agent", is_ready=True, limit=1) == [(-4, "b")]
        assert database.queue("agent", is_ready=False, limit=9) == [(1, "d")]

    def test_a_claimed_run_has_left_its_queue(self, database: Database) -> None:
        """A run without a queue position is in no queue."""
        write(database, created(a_run(), queue=QueuePosition(is_ready=True, score=1)))
        before = stored_run(database)
        write(database, RunChange(before, replace(before, queue=None), is_plain=False))
        assert database.queue("agent", is_ready=True, limit=9) == []


class TestFeed:
    def test_feed_positions_have_no_hole_and_time_never_decreases(self, reopen: Open) -> None:
        """Also after reopening, and for an entry whose own time is earlier than the last one."""
        database = reopen()
        run = a_run()
        assert write(database, created(run, an_entry(run, 1, 50), an_entry(run, 2, 60))) == (60, 2)
        database = reopen()
        other = a_run("r2")
        assert write(database, created(other, an_entry(other, 1, 20))) == (60, 3)
        rows = database.feed(0, 9)
        assert [row.position for row in rows] == [(50, 1), (60, 2), (60, 3)]
        assert [row.entry.ms for row in rows] == [50, 60, 20]
        assert database.feed(1, 1) == rows[1:2]
        assert database.feed(3, 9) == []

    def test_the_ends_of_an_empty_feed(self, database: Database) -> None:
        """Both ends of an empty feed are position 0."""
        assert database.feed_ends() == ((0, 0), (0, 0))

    @pytest.mark.parametrize(("limit", "most"), [(0, 0), (1, 1), (20, 22)])
    def test_old_entries_are_trimmed_and_numbers_continue(
        self, reopen: Open, limit: int, most: int
    ) -> None:
        """The feed keeps about as many entries as it may; the numbers go on after a reopen."""
        database = reopen(limit)
        run = a_run()
        write(database, created(run))
        for seq in range(2, 100):
            write(database, appended(stored_run(database), an_entry(run, seq)))
            start, last = database.feed_ends()
            rows = database.feed(0, 999)
            assert min(limit, seq) <= len(rows) <= most
            assert last == (seq, seq)
            assert start == (seq - len(rows), seq - len(rows))
            assert [row.position[1] for row in rows] == list(range(start[1] + 1, seq + 1))
        database = reopen(limit)
        assert write(database, appended(stored_run(database), an_entry(run, 100))) == (100, 100)

    def test_a_group_larger_than_the_feed_is_trimmed_to_it(self, reopen: Open) -> None:
        """Only the last entries of the group stay, as many as the feed may have."""
        database = reopen(5)
        run = a_run()
        write(database, created(run, *(an_entry(run, seq) for seq in range(1, 50))))
        assert database.feed_ends() == ((44, 44), (49, 49))

    @pytest.mark.parametrize("sign", ["x", "é", '"'])
    def test_a_long_entry_is_whole_while_its_run_is_there(
        self, database: Database, sign: str
    ) -> None:
        """The feed has an entry over 1 KiB from the journal; later maybe only its type."""
        run = a_run()
        entry = an_entry(run, 1, data=sign * 2000)
        write(database, created(run, entry))
        assert [row.entry for row in database.feed(0, 9)] == [entry]
        write(database, removed(stored_run(database)))
        fields = [row.entry.fields for row in database.feed(0, 9)]
        assert fields in ([entry.fields], [TYPE_ONLY])

    def test_a_long_entry_of_an_earlier_life_is_not_the_new_ones(self, database: Database) -> None:
        """The feed never shows an entry of the new life under the number of the old one."""
        old = a_run()
        write(database, created(old, an_entry(old, 1, data="x" * 2000)))
        new = a_run(epoch="e2")
        change = created(new, an_entry(new, 1, 9, data="y" * 2000))
        change.before, change.is_new_life = stored_run(database), True
        write(database, change)
        first, second = database.feed(0, 9)
        assert first.entry.fields in (an_entry(old, 1, data="x" * 2000).fields, TYPE_ONLY)
        assert first.entry.epoch == "e1"
        assert second.entry == change.entries[0]

    def test_an_entry_of_a_kibibyte_outlives_its_run(self, database: Database) -> None:
        """Entries of up to 1,024 bytes are whole in the feed itself."""
        run = a_run()
        size = 1024 - len("typeagent_starteddata")
        entries = [an_entry(run, n, data="x" * (size + n - 1)) for n in (1, 2)]
        write(database, created(run, *entries))
        write(database, removed(stored_run(database)))
        fields = [row.entry.fields for row in database.feed(0, 9)]
        assert fields[0] == entries[0].fields
        assert fields[1] in (entries[1].fields, TYPE_ONLY)


class TestItems:
    @pytest.fixture
    def filled(self, database: Database) -> Database:
        items = {(Space.DEAD, key): f"<{key}>" for key in ("b", "a", "d", "c", "é")}
        write(database, items={**items, (Space.WORKERS, "a"): "w"})
        return database

    def test_one_item(self, filled: Database) -> None:
        """An item is found by its space and key; None if it does not exist."""
        assert filled.item(Space.DEAD, "a") == "<a>"
        assert filled.item(Space.WORKERS, "a") == "w"
        assert filled.item(Space.PAUSED, "a") is None

    def test_ranges_go_both_ways(self, filled: Database) -> None:
        """Items can be read from both ends, between two keys, and up to a limit."""

        def keys(**options: object) -> str:
            found = filled.items(ItemRange(Space.DEAD, **{"limit": 9, **options}))  # pyright: ignore[reportArgumentType]
            assert all(text == f"<{key}>" for key, text in found)
            return "".join(key for key, _ in found)

        assert keys() == "abcdé"
        assert keys(newest_first=True) == "édcba"
        assert keys(limit=2) == "ab"
        assert keys(limit=2, newest_first=True) == "éd"
        assert keys(first="b", before="d") == "bc"
        assert keys(first="b", before="d", newest_first=True, limit=1) == "c"
        assert keys(first="bb") == "cdé"
        assert keys(before="") == ""

    def test_an_item_is_replaced_and_removed(self, filled: Database) -> None:
        """A new text replaces the old one, None removes it, also when it does not exist."""
        write(filled, items={(Space.DEAD, "a"): "new", (Space.DEAD, "b"): None})
        write(filled, items={(Space.DEAD, "nobody"): None})
        assert filled.items(ItemRange(Space.DEAD, limit=2)) == [("a", "new"), ("c", "<c>")]
