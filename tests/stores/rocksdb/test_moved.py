import gc
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from threading import Thread

import pytest

from murmur_streams.core.model.errors import (
    StoreClosedError,
    StoreConfigurationError,
    StoreError,
    StoreUnavailableError,
)
from murmur_streams.stores.local.engine.database import Database, Reader
from murmur_streams.stores.local.rocksdb.open_folder import SHUTDOWN_MARKER, OpenFolder
from tests.stores.rocksdb.folders import contents
from tests.stores.rocksdb.making import appended, created, new_run, opened

BIG = "x" * 200_000
MORE_THAN_A_LOG = 60
"""So many big entries that RocksDB begins a new log at least once."""


def copied(path: Path) -> None:
    copy = path.with_name("copy")
    shutil.copytree(path, copy)
    shutil.rmtree(path)
    copy.rename(path)


def another(path: Path) -> None:
    new = path.with_name("new")
    database = opened(new)
    database.commit(created(new_run("another")))
    database.close()
    shutil.rmtree(path)
    new.rename(path)


def emptied(path: Path) -> None:
    for each in path.iterdir():
        each.unlink()


def renamed(path: Path) -> None:
    path.rename(path.with_name("renamed"))


def test_a_relative_path_means_the_folder_at_the_opening(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process changes its folder afterwards; the store goes on writing where it was opened."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    database = opened(Path("store"))
    stored = new_run("run")
    database.commit(created(stored))
    monkeypatch.chdir(tmp_path / "elsewhere")
    for _ in range(MORE_THAN_A_LOG):
        stored, group = appended(stored, data=BIG)
        database.commit(group)
    database.close()
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert (tmp_path / "store" / SHUTDOWN_MARKER).exists()
    database = opened(tmp_path / "store")
    assert database.stored("run") == stored
    database.close()


@pytest.mark.parametrize("move", [shutil.rmtree, renamed, copied, another, emptied])
def test_a_folder_that_is_not_there_any_more_takes_no_write(
    tmp_path: Path, move: Callable[[Path], object]
) -> None:
    """Deleted, moved, replaced or emptied: each write fails with the path, and writes nothing."""
    path = tmp_path / "store"
    database = opened(path)
    stored = new_run("run")
    database.commit(created(stored))
    move(path)
    before = contents(path) if path.exists() else None
    _, group = appended(stored)
    for _ in range(2):
        with pytest.raises(StoreUnavailableError, match="deleted, moved or replaced") as caught:
            database.commit(group)
        assert str(path) in str(caught.value)
    assert database.stored("run") == stored
    database.close()
    assert (contents(path) if path.exists() else None) == before


def test_a_deleted_store_can_be_made_again_once_closed(tmp_path: Path) -> None:
    """Closing does not bring the folder back, and a new store there is empty."""
    path = tmp_path / "store"
    database = opened(path)
    database.commit(created(new_run("run")))
    shutil.rmtree(path)
    database.close()
    assert not path.exists()
    database = opened(path)
    assert database.stored("run") is None
    database.close()


def test_a_renamed_store_can_be_opened_there_once_closed(tmp_path: Path) -> None:
    """Until then the new name is in use too, since it is the same folder."""
    path = tmp_path / "store"
    database = opened(path)
    database.commit(created(new_run("run")))
    renamed(path)
    with pytest.raises(StoreConfigurationError, match="is for one process"):
        opened(path.with_name("renamed"))
    database.close()
    database = opened(path.with_name("renamed"))
    assert database.stored("run") == new_run("run")
    database.close()


def test_a_folder_that_was_put_back_takes_writes_again(tmp_path: Path) -> None:
    """After the folder is back under its name, the next write works."""
    path = tmp_path / "store"
    database = opened(path)
    stored = new_run("run")
    database.commit(created(stored))
    renamed(path)
    stored, group = appended(stored)
    with pytest.raises(StoreUnavailableError):
        database.commit(group)
    path.with_name("renamed").rename(path)
    assert database.commit(group)[1] == 2
    database.close()
    database = opened(path)
    assert database.stored("run") == stored
    database.close()


def test_a_folder_that_goes_during_a_write_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error is that the folder is gone, not that it is damaged."""
    path = tmp_path / "store"
    database = opened(path)

    def write(_handle: OpenFolder, _batch: object) -> None:
        shutil.rmtree(path)
        raise Exception("IO error: No such file or directory: While open a file")

    with monkeypatch.context() as patched:
        patched.setattr(OpenFolder, "write", write)
        with pytest.raises(StoreUnavailableError):
            database.commit(created(new_run("run")))
    with pytest.raises(StoreUnavailableError):
        database.commit(created(new_run("run")))
    assert not path.exists()
    database.close()


def test_any_thread_may_close_it_and_the_folder_is_free_then(tmp_path: Path) -> None:
    """Opened in one thread and closed in another, it can be opened again."""
    path = tmp_path / "store"
    made: list[tuple[Database, Reader]] = []

    def work() -> None:
        database = opened(path)
        reader = database.reader()
        database.commit(created(new_run("run")))
        database.queue("writer", is_ready=True, limit=1)
        reader.journal("run", 0, 10)
        made.append((database, reader))

    thread = Thread(target=work)
    thread.start()
    thread.join()
    made[0][0].close()
    database = opened(path)
    assert database.stored("run") == new_run("run")
    database.close()


def test_it_can_be_closed_while_another_thread_writes(tmp_path: Path) -> None:
    """The writing thread gets StoreClosedError, and every acknowledged write is there."""
    path = tmp_path / "store"
    database = opened(path)
    stored = new_run("run")
    database.commit(created(stored))
    raised: list[StoreError] = []
    acknowledged = [stored]

    def work() -> None:
        try:
            while True:
                after, group = appended(acknowledged[-1], data="x" * 10_000)
                database.commit(group)
                acknowledged.append(after)
        except StoreError as error:
            raised.append(error)

    thread = Thread(target=work)
    thread.start()
    while len(acknowledged) < 50:
        os.sched_yield()
    database.close()
    thread.join()
    assert [type(error) for error in raised] == [StoreClosedError]
    gc.collect()
    database = opened(path)
    assert database.stored("run") == acknowledged[-1]
    database.close()
