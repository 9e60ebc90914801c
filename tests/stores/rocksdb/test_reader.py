from dataclasses import replace
from pathlib import Path
from threading import Event, Thread

import pytest

from murmur_streams.core.model.errors import StoreClosedError
from murmur_streams.core.model.run import RunFilter
from murmur_streams.core.model.states import RunState
from murmur_streams.stores.local.engine.database import Changes
from tests.stores.rocksdb.making import appended, changed, created, new_run, opened


def test_a_reader_sees_what_was_committed_at_once(tmp_path: Path) -> None:
    """A commit is visible to a reader as soon as it has returned."""
    database = opened(tmp_path / "store")
    reader = database.reader()
    stored = new_run("run")
    database.commit(created(stored))
    assert reader.stored("run") == stored
    database.close()


def test_each_call_of_a_reader_sees_one_moment(tmp_path: Path) -> None:
    """While a thread writes two runs together, a read never sees only one of the changes."""
    # Two runs are always in the same state and have journals of the same length as their version.
    database = opened(tmp_path / "store")
    reader, is_over, seen = database.reader(), Event(), 0
    stored = [new_run("a"), new_run("b")]
    for each in stored:
        database.commit(created(each))

    def write() -> None:
        states = (RunState.RUNNING, RunState.PENDING)
        for number in range(2000):
            together = Changes()
            for position, before in enumerate(stored):
                grown, group = appended(before)
                after = replace(grown, run=replace(grown.run, state=states[number % 2]))
                group.runs[before.run.run_id].after = after
                group.runs[before.run.run_id].is_plain = False
                together.runs |= group.runs
                together.feed += group.feed
                stored[position] = after
            database.commit(together)
        is_over.set()

    writer = Thread(target=write)
    writer.start()
    while not is_over.is_set():
        assert len(reader.listing(RunFilter(state=RunState.PENDING), 0, 10, None)) in {0, 2}
        found = reader.journal("a", 0, 10_000)
        assert found is not None
        assert len(found[1]) == found[0].run.version
        rows = reader.feed(0, 10_000)
        assert [row.position[1] for row in rows] == list(
            range(rows[0].position[1], rows[-1].position[1] + 1)
        )
        assert rows[-1].position[1] % 2 == 0
        seen += 1
    writer.join()
    assert seen
    database.close()


def test_nothing_can_be_read_or_written_after_the_close(tmp_path: Path) -> None:
    """Each call raises StoreClosedError; closing again is harmless."""
    database = opened(tmp_path / "store")
    reader = database.reader()
    stored = new_run("run")
    database.commit(created(stored))
    reader.close()
    reader.close()
    database.close()
    database.close()
    for each in (database, reader):
        with pytest.raises(StoreClosedError, match="open a new one"):
            each.stored("run")
    with pytest.raises(StoreClosedError, match="open a new one"):
        database.commit(changed(stored, None))


def test_a_closed_folder_opens_again_whatever_was_raised_before(tmp_path: Path) -> None:
    """The traceback of an error does not keep the folder locked."""
    database = opened(tmp_path / "store")
    group = created(new_run("run"))
    group.runs["run"].entries = [None]  # type: ignore[list-item]
    with pytest.raises(AttributeError) as caught:
        database.commit(group)
    database.close()
    database = opened(tmp_path / "store")
    assert database.stored("run") is None
    assert caught.traceback
    database.close()
