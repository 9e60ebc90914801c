"""A file that is deleted, moved or replaced while it is open takes no more writes."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from murmur_streams.core.model.errors import StoreClosedError, StoreUnavailableError
from murmur_streams.stores.local.sqlite.store import open_sqlite
from tests.stores.local.databases import a_run, created, stored_run, write


def _delete(path: Path) -> None:
    path.unlink()


def _delete_all(path: Path) -> None:
    for each in path.parent.iterdir():
        each.unlink()


def _move(path: Path) -> None:
    path.rename(path.with_name("other.db"))


def _move_folder(path: Path) -> None:
    path.parent.rename(path.parent.with_name("other"))


def _replace(path: Path) -> None:
    copy = path.with_name("copy.db")
    shutil.copy(path, copy)
    copy.rename(path)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "folder").mkdir()
    return tmp_path / "folder" / "runs.db"


@pytest.mark.parametrize("lose", [_delete, _delete_all, _move, _move_folder, _replace])
def test_nothing_is_written_to_a_deleted_file(path: Path, lose: Callable[[Path], None]) -> None:
    """The file was deleted or replaced: the next group fails with an error that names it."""
    database = open_sqlite(path, sync=False, feed_max_entries=10)
    write(database, created(a_run()))
    lose(path)
    with pytest.raises(StoreUnavailableError, match=r"runs\.db is not there any more"):
        database.begin()
    database.close()
    with pytest.raises((StoreClosedError, StoreUnavailableError)):
        database.begin()


def test_a_file_that_is_put_back_is_written_to_again(path: Path) -> None:
    """After the file is back under its name, the next group is written."""
    database = open_sqlite(path, sync=False, feed_max_entries=10)
    write(database, created(a_run()))
    _move(path)
    with pytest.raises(StoreUnavailableError):
        database.begin()
    path.with_name("other.db").rename(path)
    write(database, created(a_run("r2")))
    assert stored_run(database, "r2").run.version == 1
    database.close()
