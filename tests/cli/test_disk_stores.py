"""The command line over runs in a file: what looks at runs works, what looks at Redis says so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from murmur_streams.cli.app import app
from tests.cli.conftest import CommandLine

KINDS = {"sqlite": "SQLite", "rocksdb": "RocksDB"}


@pytest.fixture(params=list(KINDS))
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"{request.param}://{tmp_path}/runs"


def run(*words: str) -> Any:
    """What a command that must succeed prints, as JSON."""
    result = CliRunner().invoke(app, [*words, "--json"])
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def refused(*words: str) -> str:
    result = CliRunner().invoke(app, list(words))
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    return result.stderr


def test_runs_are_submitted_shown_listed_and_cancelled(url: str) -> None:
    (told,) = run("submit", "work", "1", "--run-id", "r-1", "--url", url)
    assert told["run_id"] == "r-1"
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
    "words",
    [["keys", "r-1"], ["redis", "PING"], ["partitions", "show"], ["partitions", "raise", "2"]],
)
def test_what_looks_at_redis_keys_says_that_there_are_none(url: str, words: list[str]) -> None:
    kind = KINDS[url.partition(":")[0]]
    said = refused("--url", url, *words)
    assert f"this command looks at Redis keys; this store is {kind}" in said


def test_a_prefix_is_of_redis(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "--prefix is what Redis keys begin with" in refused(
        "runs", "--url", url, "--prefix", "mine"
    )
    monkeypatch.setenv("MURMUR_KEY_PREFIX", "mine")
    assert run("runs", "--url", url) == []


def test_a_rocksdb_folder_is_for_one_process(tmp_path: Path) -> None:
    said = refused(
        *("worker", "fleet_app:fleet", "--processes", "2", "--url", f"rocksdb://{tmp_path}/runs")
    )
    assert "a RocksDB folder is for one process" in said


def test_a_worker_executes_what_another_process_submits(line: CommandLine, tmp_path: Path) -> None:
    url = f"sqlite://{tmp_path}/runs"
    line.worker("--url", url)
    done = line.run("submit", "echo", '{"text": "hello"}', "--follow", "--url", url)
    assert done.returncode == 0, done.stderr
    assert "hello" in done.stdout
