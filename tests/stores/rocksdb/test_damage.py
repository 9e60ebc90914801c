from collections.abc import Callable
from pathlib import Path
from shutil import copytree, rmtree

import pytest

from murmur_streams.core.model.errors import StoreDamagedError
from murmur_streams.stores.local.engine.database import Stored
from murmur_streams.stores.local.rocksdb import keys, opening
from murmur_streams.stores.local.rocksdb.open_folder import SHUTDOWN_MARKER, OpenFolder
from tests.stores.rocksdb.folders import contents, garbled, only, truncated
from tests.stores.rocksdb.making import appended, created, new_run, opened


def filled(path: Path, entries: int) -> Stored:
    database = opened(path)
    stored = new_run("run")
    database.commit(created(stored))
    for _ in range(entries):
        stored, group = appended(stored, data="x" * 100)
        database.commit(group)
    database.close()
    return stored


def killed(path: Path, entries: int) -> None:
    """A folder as it is when its process is killed: the log has what no table has yet."""
    living = path.with_name("living")
    database = opened(living)
    stored = new_run("run")
    database.commit(created(stored))
    for _ in range(entries):
        stored, group = appended(stored, data="x" * 100)
        database.commit(group)
    copytree(living, path)
    database.close()
    rmtree(living)


def read(path: Path, version: int) -> None:
    database = opened(path)
    try:
        # A garbled block of a table is found when it is read.
        database.journal("run", 0, version)
    finally:
        database.close()


@pytest.mark.parametrize("at", [0.02, 0.3, 0.5, 0.9, 0.999])
def test_a_manifest_that_was_cut_off_is_damage(tmp_path: Path, at: float) -> None:
    """RocksDB would open it with old data; our note of the last close shows the loss."""
    path = tmp_path / "store"
    filled(path, 3)
    for _ in range(3):
        database = opened(path)
        stored = database.stored("run")
        assert stored is not None
        _, group = appended(stored)
        database.commit(group)
        database.close()
    truncated(only(path, "MANIFEST-*"), at)
    before = contents(path)
    for _ in range(2):
        with pytest.raises(StoreDamagedError, match="when it was closed"):
            opened(path)
    assert contents(path) == before


def test_a_folder_that_another_tool_opened_since_is_opened(tmp_path: Path) -> None:
    """A note of an older close, left by another tool, is not taken for damage."""
    path = tmp_path / "store"
    stored = filled(path, 3)
    note = (path / SHUTDOWN_MARKER).read_text()
    OpenFolder(path).close()
    (path / SHUTDOWN_MARKER).write_text(note)
    database = opened(path)
    assert database.stored("run") == stored
    database.close()


@pytest.mark.parametrize("spoil", [garbled, truncated, Path.unlink])
@pytest.mark.parametrize("pattern", ["CURRENT", "MANIFEST-*", "*.sst"])
def test_damage_is_reported_and_the_files_stay(
    tmp_path: Path, pattern: str, spoil: Callable[[Path], object]
) -> None:
    """The error names the folder and advises a backup; nothing in the folder changes."""
    path = tmp_path / "store"
    stored = filled(path, 300)
    spoil(only(path, pattern))
    before = contents(path)
    with pytest.raises(StoreDamagedError, match="restore it from a backup") as caught:
        read(path, stored.run.version)
    assert str(path) in str(caught.value)
    if (pattern, spoil) != ("*.sst", garbled):
        # Garbled blocks are found when they are read: the folder is open by then.
        assert contents(path) == before


@pytest.mark.parametrize("cut", [1, 7, 30, 150])
@pytest.mark.fault("F43")
def test_a_log_with_a_torn_end_opens_with_all_that_is_whole(tmp_path: Path, cut: int) -> None:
    """A killed process may leave half a record at the end of the log."""
    path = tmp_path / "store"
    killed(path, 50)
    log = only(path, "*.log")
    log.write_bytes(log.read_bytes()[:-cut])
    database = opened(path)
    found = database.journal("run", 0, 100)
    assert found is not None
    assert found[0].run.version == 50
    assert len(found[1]) == 50
    assert database.feed_ends()[1][1] == 50
    database.close()


@pytest.mark.fault("F43")
def test_a_log_that_is_damaged_before_its_end_is_refused(tmp_path: Path) -> None:
    """A wrong checksum in the middle of the log is damage, and no file changes."""
    path = tmp_path / "store"
    killed(path, 500)
    garbled(only(path, "*.log"), 0.4)
    before = contents(path)
    for _ in range(2):
        with pytest.raises(StoreDamagedError, match="checksum"):
            opened(path)
    assert contents(path) == before


def test_a_folder_that_rocksdb_refuses_keeps_its_closing_note(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The note of the last close is removed only once the folder is open."""
    path = tmp_path / "store"
    filled(path, 300)
    note = (path / SHUTDOWN_MARKER).read_bytes()
    truncated(only(path, "*.sst"))
    # Where the look before it finds nothing.
    monkeypatch.setattr(opening, "check_folder", lambda _: None)
    with pytest.raises(StoreDamagedError):
        opened(path)
    assert (path / SHUTDOWN_MARKER).read_bytes() == note


@pytest.mark.parametrize(
    "row", [b"1 2", b"1 2 3 x", b"5 5 4 4", b"0 -1 0 0", b"0 0 0 " + b"9" * 30]
)
def test_feed_ends_that_cannot_be_read_are_damage(tmp_path: Path, row: bytes) -> None:
    """The store is not opened, and no file changes."""
    path = tmp_path / "store"
    filled(path, 1)
    handle = OpenFolder(path)
    handle.family[keys.FEED] = row
    handle.close()
    before = contents(path)
    with pytest.raises(StoreDamagedError, match="feed"):
        opened(path)
    assert contents(path) == before
