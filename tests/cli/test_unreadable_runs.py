"""One run that cannot be read is named and left out; the others are exported and audited."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from murmur_streams import SQLiteRunStore
from murmur_streams.cli.data.audit import concerns_one_run, damage_reason
from murmur_streams.cli.shell.app import app
from murmur_streams.core.archive.run_archive import RunArchive
from murmur_streams.core.model.errors import (
    RunDamagedError,
    StoreClosedError,
    StoreError,
    StoreFullError,
    StoreUnavailableError,
)


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A store in which the journal of r-2 was destroyed by hand."""
    path = tmp_path / "runs.db"

    async def make() -> None:
        async with SQLiteRunStore(path) as store:
            for number in (1, 2, 3):
                await store.create(f"r-{number}", "t")

    asyncio.run(make())
    with sqlite3.connect(path) as connection:
        connection.execute(
            "UPDATE journal SET fields = 'rubbish' WHERE run_no = "
            "(SELECT no FROM runs WHERE run_id = 'r-2')"
        )
    connection.close()
    return f"sqlite:{path}"


def run(*argv: str) -> Result:
    return CliRunner().invoke(app, list(argv))


def exported(path: Path) -> list[str]:
    rows = [json.loads(row) for row in path.read_text().splitlines()]
    return sorted(row["run"] for row in rows if "run" in row)


def test_an_export_leaves_it_out_and_goes_on(url: str, tmp_path: Path) -> None:
    """The exit code is 1, and the other runs are in the file."""
    done = run("export", "--url", url, "-o", str(tmp_path / "file"))
    assert done.exit_code == 1, done.output
    assert "run r-2 cannot be read and is left out: " in done.stderr
    assert "rebuild cannot mend it" in done.stderr
    assert "exported 2 runs" in done.stderr
    assert exported(tmp_path / "file") == ["r-1", "r-3"]
    reported = run("export", "--url", url, "-o", str(tmp_path / "again"), "--json")
    assert json.loads(reported.stdout)["damaged"] == ["r-2"]


def test_an_audit_of_all_names_it_and_goes_on(url: str) -> None:
    """The exit code is 1, and the sum counts it as not clean."""
    done = run("audit", "--all", "--url", url)
    assert done.exit_code == 1, done.output
    assert "r-2  NOT CLEAN" in done.stdout
    assert "3 runs audited, 1 not clean" in done.stdout
    rows = [
        json.loads(row)
        for row in run("audit", "--all", "--url", url, "--json").stdout.split("\n")[:-1]
    ]
    assert sorted((row["run_id"], row["ok"]) for row in rows) == [
        ("r-1", True),
        ("r-2", False),
        ("r-3", True),
    ]


def test_an_audit_of_named_runs_names_it_and_goes_on(url: str) -> None:
    """The exit code is 1, and the other run is audited."""
    done = run("audit", "r-2", "r-3", "--url", url)
    assert done.exit_code == 1, done.output
    assert "r-2  NOT CLEAN" in done.stdout
    assert "r-3  clean" in done.stdout


def test_a_run_that_is_written_to_all_the_while_is_left_out_too(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It can be exported later."""
    archive = SQLiteRunStore.archive

    async def busy(store: SQLiteRunStore, run_id: str) -> RunArchive:
        if run_id == "r-1":
            raise StoreError(f"run {run_id!r} was written to all the while; try again")
        return await archive(store, run_id)

    monkeypatch.setattr(SQLiteRunStore, "archive", busy)
    done = run("export", "--url", url, "-o", str(tmp_path / "file"))
    assert done.exit_code == 1, done.output
    assert "run r-1 cannot be read and is left out: run 'r-1' was written to" in done.stderr
    assert exported(tmp_path / "file") == ["r-3"]


def test_a_failing_store_ends_an_export_that_can_be_resumed(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message has the command to resume."""

    async def gone(_: SQLiteRunStore, run_id: str) -> RunArchive:
        raise StoreUnavailableError(f"nobody answers for {run_id}")

    monkeypatch.setattr(SQLiteRunStore, "archive", gone)
    done = run("export", "--url", url, "-o", str(tmp_path / "file"))
    assert done.exit_code == 2, done.output
    assert "interrupted after 0 runs" in done.stderr
    assert f"--url {url} --resume -o" in done.stderr


def test_only_what_is_wrong_with_one_run_is_passed_over() -> None:
    """An error of the store itself ends the command."""
    assert concerns_one_run(RunDamagedError("r", "state is 'x'"))
    assert concerns_one_run(StoreError("run 'r' was written to all the while; try again"))
    for error in (StoreUnavailableError("-"), StoreClosedError("-"), StoreFullError("-")):
        assert not concerns_one_run(error)


def test_rebuild_is_advised_only_where_it_helps() -> None:
    """A damaged journal cannot be rebuilt."""
    mendable = damage_reason(RunDamagedError("r", "state is 'x'"))
    assert mendable == "state is 'x'; `murmur-streams rebuild` may mend it"
    lost = RunDamagedError("r", "entry 5 is 'rubbish'", can_rebuild=False)
    assert "rebuild cannot mend it" in damage_reason(lost)
