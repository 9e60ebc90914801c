"""A process does not lose its locks on a file through a second store or a fork."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from murmur_streams.core.model.errors import StoreConfigurationError
from murmur_streams.stores.local.engine.database import Database
from murmur_streams.stores.local.sqlite.store import open_sqlite
from tests.stores.local.databases import a_run, an_entry, appended, created, seqs, stored_run, write
from tests.warm import ROOT

KILLED = -9


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs.db"


def _open(path: Path) -> Database:
    return open_sqlite(path, sync=False, feed_max_entries=100)


def _run(what: str, path: Path, code: int = 0) -> list[str]:
    command = [sys.executable, "-m", "tests.stores.sqlite.forking", what, str(path)]
    done = subprocess.run(
        command, check=False, cwd=ROOT, stdout=subprocess.PIPE, text=True, timeout=60
    )
    assert done.returncode == code
    return done.stdout.splitlines()


@pytest.mark.parametrize("what", ["two_stores", "many_threads", "forgotten"])
def test_a_log_survives_with_several_stores_in_one_process(path: Path, what: str) -> None:
    """A killed process with several stores loses no acknowledged write."""
    reported = _run(what, path, KILLED)
    assert reported[-1] == "49"
    database = _open(path)
    assert seqs(database) == list(range(1, 50)), "what was acknowledged is there"
    database.close()


def test_a_file_that_was_open_before_a_fork_is_refused_after_it(path: Path) -> None:
    """The child gets an error with advice; a file closed before the fork can be opened."""
    before, after = _run("fork_while_open", path)
    assert before.startswith(f"StoreConfigurationError: {path} was open in the process that this")
    assert before.endswith("open the store after forking, or start the process with spawn")
    assert after == "opened", "it was closed before the second fork"
    database = _open(path)
    assert seqs(database) == [1, 2]
    assert seqs(database, "of-the-child") == [1]
    database.close()


def test_a_file_open_before_a_fork_is_known_by_every_name(path: Path) -> None:
    """A forked child that opens it by another name gets a StoreConfigurationError."""
    (reported,) = _run("fork_by_link", path)
    assert reported.startswith("StoreConfigurationError")


def test_a_file_that_is_open_here_is_not_read_again(path: Path) -> None:
    """A second store of a process skips the check, which would drop the locks of the first."""
    database = _open(path)
    write(database, created(a_run()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("murmur_streams.stores.local.sqlite.store.check_file", _refuse)
        other = _open(path)
        write(other, appended(stored_run(other), an_entry(a_run(), 2)))
        other.close()
        database.close()
        with pytest.raises(StoreConfigurationError, match="it was read"):
            _open(path)


def _refuse(path: Path) -> None:
    raise StoreConfigurationError(f"{path}: it was read")
