import asyncio
import resource
import subprocess
import sys
from collections.abc import Awaitable
from pathlib import Path

import pytest

from murmur_streams import RunEvent, RunEventType, RunState
from murmur_streams.core.model.errors import (
    OutcomeUnknownError,
    StoreClosedError,
    StoreConfigurationError,
    StoreDamagedError,
    StoreError,
    StoreFullError,
    StoreReadOnlyError,
)
from murmur_streams.stores.local.rocksdb.binding import failure
from murmur_streams.stores.local.rocksdb.database import RocksDatabase
from murmur_streams.stores.local.rocksdb.open_folder import OpenFolder
from murmur_streams.stores.local.rocksdb.store import RocksDBRunStore
from tests.stores.rocksdb.making import appended, created, new_run, opened

UNLIMITED = resource.RLIM_INFINITY
OVER_LIMIT = """
import resource, sys
from pathlib import Path
from tests.stores.rocksdb.test_failing_writes import over_the_limit
over_the_limit(Path(sys.argv[1]))
"""


def over_the_limit(path: Path) -> None:
    """Write until no file may grow, then past the limit's end; in a process of its own."""
    database = opened(path)
    reader = database.reader()
    stored = new_run("run")
    database.commit(created(stored))
    resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, UNLIMITED))
    errors: list[BaseException] = []
    after, group = appended(stored, data="x" * 5000)
    while not errors:
        try:
            database.commit(group)
        except StoreFullError as error:
            errors.append(error)
        else:
            stored = after
            after, group = appended(stored, data="x" * 5000)
    assert stored.run.version > 10
    for _ in range(2):
        with pytest.raises(StoreFullError, match="make room, then write again"):
            database.commit(group)
        assert database.stored("run") == reader.stored("run") == stored
    ends = database.feed_ends()
    resource.setrlimit(resource.RLIMIT_FSIZE, (UNLIMITED, UNLIMITED))
    position = database.commit(group)
    assert position[1] == ends[1][1] + 1
    assert database.stored("run") == reader.stored("run") == after
    database.close()
    database = opened(path)
    assert database.stored("run") == after
    assert len(database.last_entries("run", 10_000)) == after.run.version
    database.close()


@pytest.mark.fault("F24")
def test_a_full_disk_refuses_writes_until_there_is_room(tmp_path: Path) -> None:
    """A write to a full disk fails and changes nothing; with free space the next one works."""
    done = subprocess.run(
        [sys.executable, "-c", OVER_LIMIT, str(tmp_path / "store")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_a_store_that_failed_and_was_closed_stays_closed(tmp_path: Path) -> None:
    """After a close, reopening the folder raises StoreClosedError."""
    handle = OpenFolder(tmp_path / "store")
    handle.close()
    with pytest.raises(StoreClosedError):
        handle.reopen()


def test_a_folder_that_cannot_be_taken_again_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If reopening after a failure fails, the next write tries it once more."""
    path = tmp_path / "store"
    handle = OpenFolder(path)
    with monkeypatch.context() as patched:
        patched.setattr(handle, "_probe", lambda: None)
        patched.setattr(handle, "_open", lambda: failing("IO error: No space left on device"))
        with pytest.raises(Exception, match="No space left"):
            handle.reopen()
    with pytest.raises(StoreError, match="next write tries it again"):
        _ = handle.family
    handle.reopen()
    assert handle.family.get(b"x") is None
    handle.close()


def failing(text: str) -> None:
    raise Exception(text)


def test_a_disk_that_does_not_confirm_leaves_the_outcome_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failed sync raises OutcomeUnknownError, and the written data stays."""
    handle = OpenFolder(tmp_path / "store")
    database = RocksDatabase(handle, sync=True, feed_max_entries=10)
    stored = new_run("run")
    with monkeypatch.context() as patched:
        patched.setattr(handle, "sync", lambda: failing("IO error: Input/output error"))
        with pytest.raises(OutcomeUnknownError, match="did not confirm"):
            database.commit(created(stored))
    stored, group = appended(stored)
    assert database.commit(group)[1] == 2
    database.close()


async def test_a_group_without_confirmation_is_written_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its callers get OutcomeUnknownError; its events are there once, and its readers get them."""
    async with RocksDBRunStore(tmp_path / "store", sync=True) as store:
        await store.create("run", "work")

        async def read() -> list[object]:
            return [event.data async for event in store.stream("run") if event.data is not None]

        def append(number: int) -> Awaitable[int]:
            return store.append(
                "run", RunEvent(type=RunEventType.LOG, run_id="run", data=f"{number}")
            )

        reading = asyncio.create_task(read())
        await append(0)
        with monkeypatch.context() as patched:
            patched.setattr(OpenFolder, "sync", lambda _: failing("IO error: Input/output error"))
            calls = [*map(append, range(1, 6)), store.finish("run", RunState.COMPLETED)]
            outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} == {OutcomeUnknownError}
        async with asyncio.timeout(60):
            assert await reading == [f"{number}" for number in range(6)]


def test_a_synchronous_store_writes_and_reads_as_another(tmp_path: Path) -> None:
    """With sync=True a store gives the same results."""
    database = opened(tmp_path / "store", sync=True)
    stored = new_run("run")
    database.commit(created(stored))
    assert database.stored("run") == stored
    database.close()


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("IO error: No space left on device: While appending to file: x.log", StoreFullError),
        ("IO error: Disk quota exceeded", StoreFullError),
        ("IO error: While open a file: x.log: Read-only file system", StoreReadOnlyError),
        ("IO error: While open a file: x.log: Permission denied", StoreReadOnlyError),
        ("Corruption: block checksum mismatch", StoreDamagedError),
        ("IO error: While lock file: x/LOCK: Resource unavailable", StoreConfigurationError),
        ("IO error: Input/output error", StoreError),
    ],
)
def test_errors_of_rocksdb_become_ours_with_the_path(tmp_path: Path, text: str, kind: type) -> None:
    """Each text of RocksDB becomes the right error class, and the message names the folder."""
    reported = failure(tmp_path, Exception(text))
    assert type(reported) is kind
    assert str(tmp_path) in str(reported)
