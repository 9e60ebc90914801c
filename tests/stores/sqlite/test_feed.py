"""The journal is the feed: what a run no longer has stays as long as the feed shows it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import pytest

from murmur_streams.core.model.entries import JournalEntry
from murmur_streams.core.model.feed import Position
from murmur_streams.core.model.run import PayloadKind, Run
from murmur_streams.stores.local.engine.database import Changes, Database, RunChange, Stored
from murmur_streams.stores.local.sqlite.database import SQLiteDatabase
from murmur_streams.stores.local.sqlite.store import open_sqlite
from tests.stores.local.databases import (
    Open,
    a_run,
    an_entry,
    appended,
    created,
    removed,
    reopening,
    seqs,
    stored_run,
    write,
)

LIMIT = 10


@pytest.fixture
def reopen(tmp_path: Path) -> Iterator[Open]:
    def opener(folder: Path, limit: int) -> Database:
        return open_sqlite(folder / "runs.db", sync=False, feed_max_entries=limit)

    with reopening(opener, tmp_path) as again:
        yield again


@pytest.fixture
def database(reopen: Open) -> Database:
    return reopen(LIMIT)


def _count(database: Database, table: str) -> int:
    connection = cast("SQLiteDatabase", database)._session.connection
    return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])  # noqa: S608


def _entries(run: Run, first: int, last: int) -> list[JournalEntry]:
    return [an_entry(run, seq, data=f"{run.epoch} {seq}") for seq in range(first, last + 1)]


def _ns(database: Database) -> list[int]:
    return [row.position[1] for row in database.feed(0, 1_000)]


class TestGoneRuns:
    def test_entries_of_a_removed_run_stay_in_the_feed(self, reopen: Open) -> None:
        """Big entries, which only the journal had whole, stay with their type alone."""
        database = reopen(LIMIT)
        run = a_run(target="t")
        big = an_entry(run, 3, data="x" * 5_000)
        entries = [*_entries(run, 1, 2), big]
        write(database, created(run, *entries, payloads={PayloadKind.INPUT: "1"}))
        assert [row.entry for row in database.feed(0, LIMIT)] == entries
        write(database, removed(stored_run(database)))
        rows = database.feed(0, LIMIT)
        assert [row.entry for row in rows] == [
            *entries[:2],
            replace(big, fields={"type": big.type}),
        ]
        assert _count(database, "payloads") == 0
        assert reopen(LIMIT).feed(0, LIMIT) == rows

    def test_only_what_the_feed_shows_stays(self, database: Database) -> None:
        """A removed run leaves the entries that the feed may still show, and no others."""
        run = a_run()
        write(database, created(run, *_entries(run, 1, 3 * LIMIT)))
        write(database, removed(stored_run(database)))
        assert _count(database, "journal") == LIMIT
        assert _ns(database) == list(range(2 * LIMIT + 1, 3 * LIMIT + 1))

    def test_it_goes_when_the_feed_has_moved_past_it(self, database: Database) -> None:
        """The last entries of a removed run are deleted when the feed no longer shows them."""
        run = a_run()
        write(database, created(run, *_entries(run, 1, 4)))
        write(database, removed(stored_run(database)))
        other = a_run("r2")
        write(database, created(other, *_entries(other, 1, LIMIT - 1)))
        assert _count(database, "gone") == 1
        write(database, appended(stored_run(database, "r2"), an_entry(other, LIMIT)))
        assert _count(database, "gone") == 0
        assert _count(database, "journal") == LIMIT
        assert _ns(database) == list(range(5, LIMIT + 5))

    def test_a_long_run_goes_piece_by_piece(self, reopen: Open) -> None:
        """Each commit deletes only a bounded number of old entries."""
        database = reopen(300)
        run, other = a_run(), a_run("r2")
        write(database, created(run, *_entries(run, 1, 300)))
        write(database, removed(stored_run(database)))
        write(database, created(other, *_entries(other, 1, 299)))
        counts: list[int] = []
        for seq in range(300, 305):
            write(database, appended(stored_run(database, "r2"), an_entry(other, seq)))
            counts.append(_count(database, "journal") - seq)
        assert counts == [198, 96, 0, 0, 0]
        assert _count(database, "gone") == 0

    def test_many_short_runs_go_a_few_at_a_time(self, reopen: Open) -> None:
        """A commit deletes as many old runs as it adds entries."""
        database = reopen(300)
        names = [f"r{number}" for number in range(300)]
        write(database, *(created(a_run(name)) for name in names))
        write(database, *(removed(stored_run(database, name)) for name in names))
        other = a_run("other")
        write(database, created(other, *_entries(other, 1, 300)))
        assert _count(database, "gone") == 0, "so large a group takes as many with it"

    def test_a_feed_of_nothing_keeps_nothing(self, reopen: Open) -> None:
        """With a feed of length 0 a removed run leaves no rows."""
        database = reopen(0)
        run = a_run()
        write(database, created(run, *_entries(run, 1, 5)))
        assert seqs(database) == [1, 2, 3, 4, 5]
        write(database, removed(stored_run(database)))
        assert _count(database, "journal") == _count(database, "gone") == 0
        database = reopen(0)
        assert database.feed_ends() == ((5, 5), (5, 5))
        assert write(database, created(a_run(epoch="e2"), an_entry(run, 1, 2))) == (5, 6)

    def test_its_number_is_not_given_to_another(self, reopen: Open) -> None:
        """A new run never gets the internal number of a removed one."""
        database = reopen(LIMIT)
        write(database, created(a_run()))
        write(database, removed(stored_run(database)))
        database = reopen(LIMIT)
        write(database, created(a_run("r2")))
        assert seqs(database, "r2") == [1]
        assert [row.entry.run_id for row in database.feed(0, 9)] == ["r1", "r2"]


class TestWithinAGroup:
    def test_a_life_that_begins_and_ends_in_one_group_is_in_the_feed(
        self, database: Database
    ) -> None:
        """A run that is created and deleted by the same commit leaves its entries in the feed."""
        run = a_run()
        entries = _entries(run, 1, 3)
        whole = Changes(runs={"r1": RunChange(None, None, is_plain=False, entries=entries)})
        whole.feed += [("agent", entry) for entry in entries]
        database.begin()
        assert database.commit(whole) == (3, 3)
        assert [(row.target, row.entry) for row in database.feed(0, 9)] == whole.feed
        other = a_run("r2")
        write(database, created(other, *_entries(other, 1, LIMIT)))
        assert _count(database, "gone") == 0
        assert _count(database, "journal") == LIMIT

    def test_three_lives_of_an_id_stay_apart(self, database: Database) -> None:
        """Entries of three lives in one commit keep their epoch and target in the feed."""
        lives = [a_run(epoch=f"e{number}", target=f"t{number}") for number in range(3)]
        first, second, third = (_entries(run, 1, 4) for run in lives)
        write(database, created(lives[0], *first[:2]))
        change = created(lives[2], *third)
        change.before, change.is_new_life = stored_run(database), True
        whole = Changes(runs={"r1": change})
        reported = [("t0", each) for each in first[2:]] + [("t1", each) for each in second]
        whole.feed += [*reported, *(("t2", each) for each in third)]
        database.begin()
        database.commit(whole)
        rows = [(row.target, row.entry) for row in database.feed(2, LIMIT)]
        assert rows == whole.feed
        assert database.last_entries("r1", LIMIT) == third


class TestRestoredRuns:
    @staticmethod
    def restore(database: Database, run: Run, entries: list[JournalEntry]) -> Changes:
        return Changes(runs={run.run_id: created(run, *entries)})

    def test_the_feed_does_not_show_a_restored_run(self, database: Database) -> None:
        """An imported journal is not news: the feed stays empty and its numbers do not move."""
        for name in ("a", "b"):
            run = a_run(name)
            entries = _entries(run, 1, 250)
            database.begin()
            assert database.commit(self.restore(database, run, entries)) == (0, 0)
            assert database.last_entries(name, 999) == entries
        assert database.feed(0, 999) == []
        assert database.feed_ends() == ((0, 0), (0, 0))
        write(database, created(a_run("c")))
        assert database.feed_ends() == ((0, 0), (1, 1))

    def test_the_feed_shows_later_writes_to_a_restored_run(self, reopen: Open) -> None:
        """Entries that are appended after the import are in the feed, also after a removal."""
        database = reopen(LIMIT)
        run = a_run()
        database.begin()
        database.commit(self.restore(database, run, _entries(run, 1, 3)))
        more = _entries(run, 4, 5)
        database = reopen(LIMIT)
        assert write(database, appended(stored_run(database), more[0])) == (4, 1)
        database = reopen(LIMIT)
        write(database, appended(stored_run(database), more[1]))
        assert seqs(database) == [1, 2, 3, 4, 5]
        assert [row.entry for row in database.feed(0, 9)] == more
        write(database, removed(stored_run(database)))
        assert [row.entry for row in database.feed(0, 9)] == more
        assert _count(database, "journal") == 2


class TestTrimming:
    def test_what_the_feed_shows_stays_in_the_journal(self, database: Database) -> None:
        """A trim keeps entries that the feed still shows."""
        run = a_run()
        write(database, created(run, *_entries(run, 1, 3 * LIMIT)))
        write(database, appended(stored_run(database), an_entry(run, 31), keep_from_seq=30))
        assert seqs(database) == list(range(22, 32))
        assert _ns(database) == list(range(22, 32))
        more = _entries(run, 32, 45)
        write(database, appended(stored_run(database), *more, keep_from_seq=44))
        assert seqs(database) == list(range(36, 46))
        write(database, appended(stored_run(database), an_entry(run, 46), keep_from_seq=30))
        assert seqs(database) == list(range(36, 47)), "not below what was asked for"


class TestWindows:
    def test_a_feed_made_longer_does_not_bring_back_old_entries(self, reopen: Open) -> None:
        """Entries that a shorter limit has dropped do not appear again with a longer one."""
        database = reopen(4)
        run, other = a_run(), a_run("r2")
        write(database, created(run, *_entries(run, 1, 3)), created(other, *_entries(other, 1, 5)))
        write(database, removed(stored_run(database)))
        assert _ns(database) == [5, 6, 7, 8]
        database = reopen(100)
        assert _ns(database) == [5, 6, 7, 8], "2 and 3 are gone, so 4 is not shown"
        assert database.feed_ends() == ((3, 4), (5, 8))
        write(database, appended(stored_run(database, "r2"), an_entry(other, 6)))
        assert _ns(database) == [5, 6, 7, 8, 9]

    def test_a_longer_feed_shows_again_what_is_still_there(self, reopen: Open) -> None:
        """Entries that exist in the journal come back with a larger limit."""
        run = a_run()
        database = reopen(4)
        write(database, created(run, *_entries(run, 1, 9)))
        assert _ns(database) == [6, 7, 8, 9]
        assert _ns(reopen(100)) == list(range(1, 10))

    def test_two_processes_may_keep_feeds_of_different_lengths(self, tmp_path: Path) -> None:
        """Each reads as many entries as its own limit allows, once both have written."""
        path = tmp_path / "runs.db"
        short = open_sqlite(path, sync=False, feed_max_entries=2)
        long = open_sqlite(path, sync=False, feed_max_entries=100)
        for number in range(6):
            run = a_run(f"r{number}")
            write(long, created(run, *_entries(run, 1, 2)))
        write(short, removed(stored_run(short, "r0")))
        write(long, removed(stored_run(long, "r5")))
        assert _ns(short) == _ns(long) == [11, 12]
        write(long, created(a_run("new")))
        assert (_ns(short), _ns(long)) == ([12, 13], [11, 12, 13])
        short.close()
        long.close()


@dataclass
class _Model:
    """The right content of feed and journals, from the groups that were written."""

    draw: random.Random
    feed: list[tuple[Position, str, JournalEntry]] = field(default_factory=list[Any])
    runs: dict[str, Stored] = field(default_factory=dict[str, Stored])
    journals: dict[str, list[JournalEntry]] = field(default_factory=dict[str, list[JournalEntry]])
    lives: int = 0
    clock: int = 100

    def group(self) -> Changes:
        """Some steps to some runs."""
        whole = Changes()
        for _ in range(self.draw.randrange(1, 7)):
            name = self.draw.choice("abcde")
            change = whole.runs.get(name)
            if change is None:
                before = self.runs.get(name)
                change = whole.runs[name] = RunChange(before, before, is_plain=False)
            if change.after is None:
                self._begin(whole, change, name)
            elif self.draw.random() < 0.3:
                self._add(whole, change, change.after.run, 1)
                change.after = None
            else:
                self._add(whole, change, change.after.run, self.draw.randrange(1, 4))
        for name, change in whole.runs.items():
            self._keep(name, change)
        return whole

    def _begin(self, whole: Changes, change: RunChange, name: str) -> None:
        self.lives += 1
        run = a_run(name, epoch=f"e{self.lives}", target=self.draw.choice("xy"))
        change.entries, change.is_new_life = [], change.before is not None
        if self.draw.random() < 0.2:  # restored: not shown in the feed
            change.entries = _entries(run, 1, self.draw.randrange(1, 5))
            change.after = Stored(replace(run, version=len(change.entries), last_ms=1))
        else:
            self._add(whole, change, run, self.draw.randrange(1, 4))

    def _add(self, whole: Changes, change: RunChange, run: Run, count: int) -> None:
        for seq in range(run.version + 1, run.version + count + 1):
            self.clock += self.draw.randrange(-3, 5)
            entry = an_entry(run, seq, self.clock)
            ms, n = self.feed[-1][0] if self.feed else (0, 0)
            self.feed.append(((max(ms, entry.ms), n + 1), run.target, entry))
            whole.feed.append((run.target, entry))
            change.entries.append(entry)
        run = replace(run, version=run.version + count, last_ms=self.clock)
        change.after = Stored(run)

    def _keep(self, name: str, change: RunChange) -> None:
        if change.after is None:
            self.runs.pop(name, None)
            self.journals.pop(name, None)
            return
        self.runs[name] = change.after
        before = [] if change.is_new_life else self.journals.get(name, [])
        self.journals[name] = [*before, *change.entries]
        if self.draw.random() < 0.1:
            change.keep_from_seq = max(1, change.after.run.version - 3)


@pytest.mark.parametrize("seed", range(6))
def test_any_groups_leave_the_feed_and_journals_of_the_model(reopen: Open, seed: int) -> None:
    """Random groups of changes: the database has what a simple model of them has."""
    draw = random.Random(seed)
    limit = draw.choice([0, 1, 7, 40])
    database, model = reopen(limit), _Model(draw)
    for _ in range(150):
        whole = model.group()
        database.begin()
        last = database.commit(whole)
        if draw.random() < 0.05:
            database = reopen(limit)
        expected = model.feed[-limit:] if limit else []
        assert [(row.position, row.target, row.entry) for row in database.feed(0, 999)] == expected
        assert database.feed_ends()[1] == last == (model.feed[-1][0] if model.feed else (0, 0))
        for name, entries in model.journals.items():
            found = database.last_entries(name, 999)
            assert found == entries[-len(found) :]
            oldest = whole.runs[name].keep_from_seq if name in whole.runs else None
            assert found[0].seq <= (oldest or found[0].seq)
            model.journals[name] = found
        assert all(before < after for before, after in pairwise(_ns(database)))
        left = _count(database, "journal") - sum(map(len, model.journals.values()))
        assert left <= limit + 30, "what is left of gone runs"
