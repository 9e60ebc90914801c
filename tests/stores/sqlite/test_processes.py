"""Several processes share a file; a killed one loses no write that had returned."""

from __future__ import annotations

import random
from itertools import pairwise
from pathlib import Path

import pytest

from murmur_streams.stores.local.engine.database import Database
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
from tests.stores.sqlite import children


def _open(path: Path) -> Database:
    return open_sqlite(path, sync=False, feed_max_entries=1_000_000)


def _kill_after(path: Path, groups: int) -> int:
    """Let a child write some groups and kill it in the next; the last version that it printed."""
    with children.start("append-for-ever", path) as child:
        children.go(child)
        assert child.stdout is not None
        reported = [int(child.stdout.readline()) for _ in range(groups)]
        child.kill()
        # The last line may be cut off.
        rest = child.stdout.read().split("\n")[:-1]
    return max([*reported, *map(int, rest)])


@pytest.mark.slow
@pytest.mark.fault("F42")
def test_twenty_kills_lose_no_group_and_tear_none(tmp_path: Path) -> None:
    """After each kill every reported group is there, and each group is whole."""
    path = tmp_path / "runs.db"
    draw = random.Random(7)
    for _ in range(20):
        reported = _kill_after(path, draw.randrange(1, 40))
        database = _open(path)
        versions = {stored_run(database, name).run.version for name in children.RUNS}
        assert len(versions) == 1, "a group is whole"
        version = versions.pop()
        assert version >= reported
        for name in children.RUNS:
            assert seqs(database, name) == list(range(1, version + 1))
        positions = [row.position for row in database.feed(0, 1_000_000)]
        assert [n for _, n in positions] == list(range(1, 3 * version + 1))
        assert all(before <= after for before, after in pairwise(positions))
        database.close()
    assert sorted(tmp_path.iterdir()) == [path]


@pytest.mark.fault("F42")
def test_two_writers_at_once_lose_nothing(tmp_path: Path) -> None:
    """Two processes append to one run, and seq and feed have no hole."""
    path = tmp_path / "runs.db"
    database = _open(path)
    write(database, created(a_run(), an_entry(a_run(), 1, data="first")))
    pair = [children.start("append", path, mark, 200) for mark in "xy"]
    children.go(*pair)
    for child in pair:
        children.end(child)
    written = {f"{mark}{number}" for mark in "xy" for number in range(200)}
    assert seqs(database) == list(range(1, 402))
    assert set(texts(database)) == written | {"first"}
    assert [row.position[1] for row in database.feed(0, 999)] == list(range(1, 402))
    database.close()


@pytest.mark.slow
def test_six_processes_make_one_new_store(tmp_path: Path) -> None:
    """Six processes that create the file at once give one working store."""
    for number in range(3):
        path = tmp_path / f"{number}.db"
        crowd = [children.start("open", path) for _ in range(6)]
        children.go(*crowd)
        for child in crowd:
            children.end(child)
        database = _open(path)
        assert write(database, created(a_run())) == (1, 1)
        database.close()


class TestForeignWrites:
    def test_a_writer_learns_of_another_once(self, tmp_path: Path) -> None:
        """Begin reports the write of another connection exactly once."""
        one, other = _open(tmp_path / "runs.db"), _open(tmp_path / "runs.db")
        write(one, created(a_run()))
        assert not one.begin()
        one.rollback()
        write(other, created(a_run("r2")))
        assert one.begin()
        one.rollback()
        assert not one.begin()
        one.rollback()
        other.close()
        one.close()

    def test_a_reader_learns_of_every_group_of_every_writer_once(self, tmp_path: Path) -> None:
        """The first look after each commit reports it, the second does not."""
        one, other = _open(tmp_path / "runs.db"), _open(tmp_path / "runs.db")
        reader = one.reader()
        assert reader.has_foreign_writes()
        assert not reader.has_foreign_writes()
        for writer, name in ((one, "a"), (other, "b")):
            write(writer, created(a_run(name)))
            assert reader.has_foreign_writes()
            assert not reader.has_foreign_writes()
        reader.close()
        other.close()
        one.close()

    def test_a_writer_asks_for_others_only_and_apart_from_its_groups(self, tmp_path: Path) -> None:
        """Its own commits do not count as foreign writes."""
        one, other = _open(tmp_path / "runs.db"), _open(tmp_path / "runs.db")
        write(one, created(a_run()))
        assert one.has_foreign_writes()
        write(one, created(a_run("r2")))
        assert not one.has_foreign_writes()
        write(other, created(a_run("r3")))
        assert one.has_foreign_writes()
        assert one.begin()
        one.rollback()
        other.close()
        one.close()

    def test_a_run_that_another_made_anew_is_written_where_it_is_now(self, tmp_path: Path) -> None:
        """A cached row number of the old life is not used for the new one."""
        one, other = _open(tmp_path / "runs.db"), _open(tmp_path / "runs.db")
        write(one, created(a_run()))
        write(other, removed(stored_run(other)), created(a_run("r2")))
        write(other, created(a_run(epoch="e2")))
        write(one, appended(stored_run(one), an_entry(a_run(), 2)))
        assert seqs(other) == [1, 2]
        assert seqs(other, "r2") == [1]
        assert [row.position[1] for row in one.feed(0, 9)] == [1, 2, 3, 4]
        other.close()
        one.close()
