from dataclasses import replace
from pathlib import Path

from murmur_streams.stores.local.engine.database import Changes, Database
from tests.stores.rocksdb.making import NOW, appended, changed, created, entry, new_run, opened


def fed(database: Database, count: int) -> None:
    stored = database.stored("run")
    if stored is None:
        stored = new_run("run")
        database.commit(created(stored))
        count -= 1
    for _ in range(count):
        stored, group = appended(stored)
        database.commit(group)


def test_feed_positions_have_no_hole_and_time_never_decreases(tmp_path: Path) -> None:
    """An entry with an earlier time gets the time of the entry before it."""
    database = opened(tmp_path / "store")
    late, early = entry("a", 1, ms=NOW + 5), entry("b", 1, ms=NOW)
    assert database.commit(Changes(feed=[("x", late), ("y", early)])) == (NOW + 5, 2)
    rows = database.feed(0, 10)
    assert [(row.position, row.target, row.entry) for row in rows] == [
        ((NOW + 5, 1), "x", late),
        ((NOW + 5, 2), "y", early),
    ]
    assert database.feed(1, 10) == rows[1:]
    assert database.feed(0, 1) == rows[:1]
    assert database.feed(2, 10) == []
    assert database.feed_ends() == ((0, 0), (NOW + 5, 2))
    database.close()


def test_it_is_trimmed_to_its_size_with_a_tenth_of_slack(tmp_path: Path) -> None:
    """Trimming begins when the feed is a tenth longer than it may be."""
    database = opened(tmp_path / "store", feed_max_entries=20)
    fed(database, 22)
    assert len(database.feed(0, 100)) == 22
    fed(database, 1)
    assert [row.position[1] for row in database.feed(0, 100)] == list(range(4, 24))
    assert database.feed_ends() == ((NOW, 3), (NOW, 23))
    database.close()


def test_a_group_longer_than_the_feed_leaves_its_end(tmp_path: Path) -> None:
    """Only the last entries of such a commit are in the feed."""
    database = opened(tmp_path / "store", feed_max_entries=10)
    entries = [("x", entry("run", seq, ms=NOW + seq)) for seq in range(1, 101)]
    database.commit(Changes(feed=entries))
    assert [row.position for row in database.feed(0, 100)] == [
        (NOW + seq, seq) for seq in range(91, 101)
    ]
    assert database.feed_ends() == ((NOW + 90, 90), (NOW + 100, 100))
    database.close()


def test_its_end_outlives_a_restart_and_everything_in_it(tmp_path: Path) -> None:
    """The numbers go on after a restart, even if the feed is empty."""
    database = opened(tmp_path / "store", feed_max_entries=0)
    fed(database, 3)
    assert database.feed(0, 10) == []
    assert database.feed_ends() == ((NOW, 3), (NOW, 3))
    database.close()
    database = opened(tmp_path / "store")
    assert database.feed_ends() == ((NOW, 3), (NOW, 3))
    fed(database, 1)
    assert [row.position for row in database.feed(0, 10)] == [(NOW, 4)]
    database.close()


def test_a_big_entry_is_looked_up_in_its_journal(tmp_path: Path) -> None:
    """The entry of another life with the same seq is never shown instead."""
    database = opened(tmp_path / "store")
    stored = new_run("run")
    database.commit(created(stored))
    stored, group = appended(stored, data="x" * 2000)
    database.commit(group)
    assert database.feed(1, 1)[0].entry == group.feed[0][1]
    # Another life of the id, whose journal has another entry of that seq.
    again = new_run("run", epoch="ffffffff")
    database.commit(changed(stored, None))
    database.commit(created(again))
    _, group = appended(again)
    database.commit(group)
    big = database.feed(1, 1)[0].entry
    assert (big.epoch, big.seq, big.fields) == (stored.run.epoch, 2, {"type": "agent_started"})
    database.close()


def test_a_big_entry_of_a_trimmed_journal_keeps_its_type(tmp_path: Path) -> None:
    """Without the journal's entry the feed still has the type."""
    database = opened(tmp_path / "store")
    stored = new_run("run")
    database.commit(created(stored))
    stored, group = appended(stored, data="é" * 1000)
    database.commit(group)
    after = replace(stored, run=replace(stored.run, error="x"))
    group = changed(stored, after)
    group.runs["run"].keep_from_seq = 3
    database.commit(group)
    assert database.feed(1, 1)[0].entry.fields == {"type": "agent_started"}
    database.close()
