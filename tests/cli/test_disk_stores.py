"""The command line over runs in a file: what looks at runs works, what looks at Redis says so."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from murmur_streams import Fleet
from murmur_streams.cli.shell.app import app
from murmur_streams.core.archive.lines import HEADER
from tests.cli.conftest import HERE, CommandLine

KINDS = {"sqlite": "SQLite", "rocksdb": "RocksDB"}


@pytest.fixture(params=list(KINDS))
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"{request.param}://{tmp_path}/runs"


def run(*argv: str) -> Any:
    """The JSON that a command prints; the command must succeed."""
    result = CliRunner().invoke(app, [*argv, "--json"])
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def refused(*argv: str) -> str:
    result = CliRunner().invoke(app, list(argv))
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    return result.stderr


def test_runs_are_submitted_shown_listed_and_cancelled(url: str) -> None:
    """The commands for runs work on a file."""
    (reported,) = run("submit", "work", "1", "--run-id", "r-1", "--url", url)
    assert reported["run_id"] == "r-1"
    (listed,) = run("runs", "--url", url)
    assert (listed["run_id"], listed["state"]) == ("r-1", "pending")
    (shown,) = run("show", "r-1", "--url", url)
    assert shown["state"] == "pending"
    run("cancel", "r-1", "--url", url)
    (shown,) = run("show", "r-1", "--url", url)
    assert shown["state"] == "cancelled"
    (report,) = run("audit", "r-1", "--url", url)
    assert report["ok"]
    assert run("workers", "--url", url) == []
    assert run("dead", "list", "--url", url) == []


@pytest.mark.parametrize(
    "argv",
    [["keys", "r-1"], ["redis", "PING"], ["partitions", "show"], ["partitions", "raise", "2"]],
)
def test_what_looks_at_redis_keys_says_that_there_are_none(url: str, argv: list[str]) -> None:
    """The error names the kind of the store."""
    kind = KINDS[url.partition(":")[0]]
    said = refused("--url", url, *argv)
    assert f"this command looks at Redis keys; this store is {kind}" in said


@pytest.mark.parametrize(
    "argv",
    [
        *(["runs"], ["show", "r-1"], ["tail", "r-1"], ["result", "r-1"], ["cancel", "r-1"]),
        *(["retry", "r-1"], ["workers"], ["pause", "work"], ["dead", "list"]),
        *(["audit", "--all"], ["rebuild", "r-1"], ["export", "-o", "file"]),
    ],
)
def test_what_looks_at_runs_makes_no_store_of_a_mistyped_name(
    url: str, argv: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command is refused, and no file is created."""
    monkeypatch.chdir(tmp_path)
    said = refused("--url", url, *argv)
    assert f"no store exists at {tmp_path}/runs" in said
    assert not list(tmp_path.iterdir())


def test_an_import_reports_that_it_creates_a_store(url: str, tmp_path: Path) -> None:
    """The line is on stderr, and only the first import prints it."""
    source = tmp_path / "file"
    source.write_text(HEADER)
    made = CliRunner().invoke(app, ["import", str(source), "--url", url])
    assert (made.exit_code, made.stderr) == (0, f"a new store at {tmp_path}/runs\n")
    again = CliRunner().invoke(app, ["import", str(source), "--url", url])
    assert (again.exit_code, again.stderr) == (0, "")


def test_the_demo_shows_redis(url: str, tmp_path: Path) -> None:
    """It is refused on another store."""
    said = refused("demo", "--url", url)
    assert "the demo shows Redis itself" in said
    assert not (tmp_path / "runs").exists()


def test_a_fleet_says_which_options_are_of_redis(url: str) -> None:
    """The TypeError names the option and the store."""
    kind = KINDS[url.partition(":")[0]]
    for name in ("key_prefix", "partitions"):
        refusal = f"{name} is an option of Redis's, and this URL names {kind}"
        with pytest.raises(TypeError, match=refusal):
            Fleet(url, **{name: None})


def test_a_worker_on_rocksdb_warns_that_no_process_can_submit(
    line: CommandLine, tmp_path: Path
) -> None:
    """The warning has the command that works."""
    url = f"rocksdb:{tmp_path}/runs"
    process = line.worker("--url", url)
    process.send_signal(signal.SIGTERM)
    _, reported = process.communicate(timeout=30)
    (warning,) = [row for row in reported.splitlines() if "WARNING" in row]
    assert f"murmur-streams serve fleet_app:fleet --with-worker --url {url}" in warning


def test_dev_on_rocksdb_prints_no_submit_command(line: CommandLine, tmp_path: Path) -> None:
    """It prints the one that works."""
    (tmp_path / "app.py").write_text((HERE / "fleet_app.py").read_text())
    process = line.start("dev", "app:fleet", "--url", "rocksdb:runs", cwd=tmp_path)
    assert process.stderr is not None
    reported = next(row for row in process.stderr if row.startswith("submit"))
    assert "murmur-streams serve app:fleet --with-worker --url rocksdb:runs" in reported
    assert "murmur-streams submit" not in reported
    process.send_signal(signal.SIGTERM)
    process.wait(30)


def test_a_prefix_is_of_redis(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The option is refused, the variable ignored."""
    run("submit", "work", "1", "--run-id", "r-1", "--url", url)
    assert "--prefix is what Redis keys begin with" in refused(
        "runs", "--url", url, "--prefix", "mine"
    )
    monkeypatch.setenv("MURMUR_KEY_PREFIX", "mine")
    assert len(run("runs", "--url", url)) == 1


def test_a_rocksdb_folder_is_for_one_process(tmp_path: Path) -> None:
    """A worker with --processes is refused."""
    said = refused(
        *("worker", "fleet_app:fleet", "--processes", "2", "--url", f"rocksdb://{tmp_path}/runs")
    )
    assert "a RocksDB folder is for one process" in said


@pytest.mark.parametrize("where", ["option", "code"])
def test_a_worker_on_memory_is_refused(line: CommandLine, tmp_path: Path, where: str) -> None:
    """No other process can submit to it, whether the option or the fleet's code names memory."""
    text = (HERE / "fleet_app.py").read_text()
    if where == "code":
        text = text.replace("Fleet()", 'Fleet("memory:")', 1)
    (tmp_path / "app.py").write_text(text)
    url = "memory:" if where == "option" else f"sqlite://{tmp_path}/runs"
    done = line.run("worker", "app:fleet", "--url", url, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "this fleet's runs are in the memory of its process" in done.stderr


def test_a_worker_executes_what_another_process_submits(line: CommandLine, tmp_path: Path) -> None:
    """Both processes use one SQLite file."""
    url = f"sqlite://{tmp_path}/runs"
    line.worker("--url", url)
    done = line.run("submit", "echo", '{"text": "hello"}', "--follow", "--url", url)
    assert done.returncode == 0, done.stderr
    assert "hello" in done.stdout
