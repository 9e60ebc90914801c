"""Every database on disk keeps the same protocol: runs, journals and groups."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from murmur_streams.core.model.run import PayloadKind, RunFilter
from murmur_streams.core.model.states import RunProgress, RunState
from murmur_streams.stores.local.engine.database import (
    Changes,
    Database,
    ItemRange,
    QueuePosition,
    RunChange,
    Space,
    Stored,
)
from tests.stores.local.databases import (
    OPENERS,
    Open,
    a_run,
    an_entry,
    appended,
    created,
    group,
    removed,
    reopening,
    seqs,
    stored_run,
    texts,
    write,
)


@pytest.fixture(params=sorted(OPENERS))
def reopen(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    with reopening(OPENERS[request.param], tmp_path) as again:
        yield again


@pytest.fixture
def database(reopen: Open) -> Database:
    return reopen()


class TestRuns:
    def test_an_unknown_run_has_nothing(self, database: Database) -> None:
        """It has no row, journal, entries or payloads."""
        assert database.stored("r1") is None
        assert database.journal("r1", 0, 10) is None
        assert database.last_entries("r1", 10) == []
        assert database.payload("r1", PayloadKind.INPUT) is None

    def test_a_run_comes_back_with_every_field(self, reopen: Open) -> None:
        """A stored run with all fields set is read as an equal run."""
        run = a_run(
            state=RunState.RUNNING,
            started_ms=2,
            progress=RunProgress(total=3, completed=1, failed=1, running=1),
            progress_ms=5,
            progress_dirty=True,
            attempt=2,
            queued=True,
            priority=-3,
            tenant="acme",
            errors="1 first\n2 second",
            metadata_json='{"a": "\\u0000é"}',
        )
        queue = QueuePosition(is_ready=False, score=77)
        change = created(
            run, expire_at_ms=1, live_until_ms=2, overdue_ms=3, lease_until_ms=4, queue=queue
        )
        write(reopen(), change)
        assert stored_run(reopen()) == change.after

    def test_a_run_that_changes_is_written_as_a_whole(self, database: Database) -> None:
        """All fields of the new state replace those of the old one."""
        write(database, created(a_run(tenant="acme"), queue=QueuePosition(is_ready=True, score=1)))
        before = stored_run(database)
        run = replace(before.run, state=RunState.COMPLETED, tenant=None, version=2, last_ms=9)
        after = Stored(run, expire_at_ms=99)
        change = RunChange(before, after, is_plain=False, entries=[an_entry(run, 2, 9)])
        write(database, change)
        assert stored_run(database) == after
        assert seqs(database) == [1, 2]

    def test_a_change_without_an_entry_is_stored(self, database: Database) -> None:
        """A new lease, for example, changes the run and adds nothing to its journal."""
        write(database, created(a_run()))
        before = stored_run(database)
        write(database, RunChange(before, replace(before, lease_until_ms=5), is_plain=False))
        assert stored_run(database).lease_until_ms == 5

    def test_a_plain_change_moves_version_and_time_only(self, reopen: Open) -> None:
        """An append writes the new version and time, also for a second connection."""
        database = reopen()
        write(database, created(a_run(tenant="acme"), live_until_ms=7))
        before = stored_run(database)
        change = appended(before, an_entry(before.run, 2, 50))
        write(database, change)
        assert stored_run(reopen()) == change.after

    def test_a_removed_run_leaves_nothing(self, database: Database) -> None:
        """Row, journal and payloads are gone; another run is untouched."""
        write(database, created(a_run(), payloads={PayloadKind.INPUT: "1"}), created(a_run("r2")))
        write(database, removed(stored_run(database)))
        assert database.stored("r1") is None
        assert database.journal("r1", 0, 10) is None
        assert database.payload("r1", PayloadKind.INPUT) is None
        assert seqs(database, "r2") == [1]

    def test_two_hundred_runs_go_in_one_group(self, database: Database) -> None:
        """One commit can remove almost two hundred runs."""
        names = [f"r{number}" for number in range(200)]
        write(database, *(created(a_run(name)) for name in names))
        write(database, *(removed(stored_run(database, name)) for name in names[:199]))
        assert [run.run_id for run in database.listing(RunFilter(), 0, 10, None)] == ["r199"]

    def test_a_new_life_has_nothing_of_the_old_one(self, reopen: Open) -> None:
        """Journal, payloads and times of the old life are gone."""
        database = reopen()
        old = a_run()
        payloads = {PayloadKind.INPUT: "1", PayloadKind.RESULT: "2"}
        write(database, created(old, *(an_entry(old, n) for n in (1, 2, 3)), payloads=payloads))
        new = a_run(epoch="e2", created_ms=2_000)
        change = created(new, an_entry(new, 1, 9), payloads={PayloadKind.INPUT: "3"})
        change.before, change.is_new_life = stored_run(database), True
        write(database, change)
        database = reopen()
        assert stored_run(database) == change.after
        assert database.last_entries("r1", 10) == change.entries
        assert database.payload("r1", PayloadKind.INPUT) == "3"
        assert database.payload("r1", PayloadKind.RESULT) is None

    def test_a_run_made_and_removed_in_one_group_was_never_there(self, database: Database) -> None:
        """Only the feed has its entries."""
        run = a_run()
        whole = Changes(
            runs={"r1": RunChange(None, None, is_plain=False, entries=[an_entry(run, 1)])}
        )
        whole.feed.append(("agent", an_entry(run, 1)))
        database.begin()
        database.commit(whole)
        assert database.stored("r1") is None
        assert [row.entry.seq for row in database.feed(0, 10)] == [1]


class TestJournal:
    @pytest.mark.parametrize("count", [1, 2, 3, 9, 10, 99, 100, 101, 457])
    def test_entries_of_a_group_stay_in_order(self, database: Database, count: int) -> None:
        """The journal and the feed have them in the order in which they were written."""
        run = a_run()
        entries = [an_entry(run, seq, data=str(seq)) for seq in range(1, count + 1)]
        write(database, created(run, *entries))
        assert database.last_entries("r1", count + 1) == entries
        assert [row.entry for row in database.feed(0, count + 1)] == entries

    @pytest.mark.parametrize(
        "text",
        ["", "é", "\x00", "a\x00b", "\U0001f600", "\u2028", '"\\/', "\ufeff", "\uffff", "' OR 1=1"],
    )
    def test_every_text_comes_back(self, reopen: Open, text: str) -> None:
        """Empty texts, zero bytes, quotes and emoji are stored and read unchanged."""
        database = reopen()
        run = a_run(error=text or None)
        change = created(run, an_entry(run, 1, data=text), payloads={PayloadKind.INPUT: text})
        write(database, change, items={(Space.WORKERS, f"k{text}"): text})
        database = reopen()
        assert stored_run(database) == change.after
        assert texts(database) == [text]
        assert database.payload("r1", PayloadKind.INPUT) == text
        assert database.items(ItemRange(Space.WORKERS, limit=9)) == [(f"k{text}", text)]
        assert [row.entry.fields["data"] for row in database.feed(0, 9)] == [text]

    def test_a_page_of_the_journal_begins_after_a_seq(self, database: Database) -> None:
        """A read takes the entries after a number, up to a limit."""
        run = a_run()
        entries = [an_entry(run, seq) for seq in range(1, 8)]
        write(database, created(run, *entries), created(a_run("r2")))
        assert database.journal("r1", 2, 3) == (stored_run(database), entries[2:5])
        assert database.journal("r1", 7, 3) == (stored_run(database), [])
        assert database.last_entries("r1", 2) == entries[-2:]

    def test_older_entries_go_when_the_journal_is_trimmed(self, reopen: Open) -> None:
        """Entries before the first number to keep are removed, in this run only."""
        database = reopen(1)
        run = a_run()
        write(database, created(run, *(an_entry(run, seq) for seq in range(1, 6))))
        write(database, created(a_run("r2")))
        write(database, appended(stored_run(database), an_entry(run, 6), keep_from_seq=5))
        assert seqs(database) == [5, 6]
        assert seqs(database, "r2") == [1]

    def test_a_trimmed_journal_has_no_hole(self, database: Database) -> None:
        """A database may keep older entries for the feed, but then all of them."""
        run = a_run()
        write(database, created(run, *(an_entry(run, seq) for seq in range(1, 6))))
        write(database, appended(stored_run(database), an_entry(run, 6), keep_from_seq=5))
        # It may keep what the feed shows.
        assert seqs(database) in ([5, 6], [1, 2, 3, 4, 5, 6])
        assert [row.entry.seq for row in database.feed(0, 9)] == [1, 2, 3, 4, 5, 6]

    def test_a_payload_that_is_left_out_stays(self, database: Database) -> None:
        """A change replaces only the payloads that it names."""
        write(
            database,
            created(a_run(), payloads={PayloadKind.INPUT: "1", PayloadKind.CHECKPOINT: "2"}),
        )
        before = stored_run(database)
        change = appended(before, an_entry(before.run, 2), payloads={PayloadKind.CHECKPOINT: "3"})
        write(database, change)
        found = [database.payload("r1", kind) for kind in PayloadKind]
        assert found == ["1", None, "3"]


class TestGroups:
    def test_a_group_that_is_rolled_back_leaves_nothing(self, database: Database) -> None:
        """The next commit gets the first position of the feed."""
        database.begin()
        database.rollback()
        assert write(database, created(a_run())) == (1, 1)

    def test_an_empty_group_moves_nothing(self, database: Database) -> None:
        """A commit without changes returns the last position of the feed."""
        write(database, created(a_run()))
        assert write(database) == (1, 1)

    def test_the_first_group_knows_nothing_and_later_ones_their_own(self, reopen: Open) -> None:
        """Begin reports foreign writes only; those of this connection do not count."""
        database = reopen()
        write(database, created(a_run()))
        assert not database.begin()
        database.commit(group(created(a_run("r2"))))
        assert not database.begin()
        database.rollback()

    def test_a_reader_sees_each_group_whole_once_committed(self, database: Database) -> None:
        """A second connection has the run and its entries right after the commit."""
        reader = database.reader()
        try:
            write(database, created(a_run()), created(a_run("r2")))
            before = reader.stored("r1")
            assert before is not None
            change = appended(before, an_entry(before.run, 2))
            write(database, change)
            assert reader.stored("r1") == change.after
            assert reader.journal("r1", 1, 9) == (change.after, change.entries)
        finally:
            reader.close()
            reader.close()

    def test_closing_twice_does_nothing_more(self, database: Database) -> None:
        """A second close of a database is harmless."""
        database.close()
        database.close()
