"""Commands that list and repair: `runs`, `rebuild` and `partitions`."""

from __future__ import annotations

import json
import signal
import subprocess
from typing import Any

import pytest

from murmur_streams.core.model.states import RunState
from murmur_streams.stores.redis.store import RedisRunStore
from tests.cli.conftest import CommandLine


def objects(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture
def some_runs(in_store: Any) -> None:
    """Five runs: two of each agent wait, one has failed."""

    async def make(store: RedisRunStore) -> None:
        for number in range(4):
            await store.create(f"r-{number}", "even" if number % 2 == 0 else "odd")
        await store.create("wrong", "odd")
        await store.finish("wrong", RunState.FAILED, error="no")

    in_store(make)


@pytest.mark.usefixtures("some_runs")
@pytest.mark.parametrize(
    ("argv", "found"),
    [
        ([], {"r-0", "r-1", "r-2", "r-3", "wrong"}),
        (["--all"], {"r-0", "r-1", "r-2", "r-3", "wrong"}),
        (["--state", "failed"], {"wrong"}),
        (["--target", "even"], {"r-0", "r-2"}),
        (["--target", "odd", "--state", "pending"], {"r-1", "r-3"}),
        (["--target", "nobody"], set()),
    ],
)
def test_runs_lists_what_was_asked_for(line: CommandLine, argv: list[str], found: set[str]) -> None:
    """The selection is by state, target and limit."""
    listed = line.run("runs", *argv, "--json")
    assert listed.returncode == 0, listed.stderr
    assert {run["run_id"] for run in objects(listed.stdout)} == found


@pytest.mark.usefixtures("some_runs")
def test_runs_prints_a_plain_line_for_each_run(line: CommandLine) -> None:
    """Without escapes where the output is not a terminal."""
    printed = line.run("runs", "--state", "failed").stdout
    assert "\x1b" not in printed
    assert printed.split()[2:5] == ["failed", "odd", "wrong"]


@pytest.mark.usefixtures("some_runs")
def test_a_limit_keeps_the_newest(line: CommandLine) -> None:
    """`runs --limit 2` lists the two newest runs; 0 is refused."""
    assert len(objects(line.run("runs", "--limit", "2", "--json").stdout)) == 2
    refused = line.run("runs", "--limit", "0")
    assert refused.returncode == 2


def test_watch_prints_a_line_for_each_run_that_is_new_or_changed(
    line: CommandLine, in_store: Any
) -> None:
    """With --json, programs can read the changes."""
    in_store(lambda store: store.create("r-1", "t"))
    process = line.start("runs", "--watch", "--json")
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["state"] == "pending"
    in_store(lambda store: store.set_state("r-1", RunState.RUNNING))
    assert json.loads(process.stdout.readline())["state"] == "running"
    in_store(lambda store: store.create("r-2", "t"))
    assert json.loads(process.stdout.readline())["run_id"] == "r-2"
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) == 130


def test_watch_looks_at_the_newest_and_not_at_all(line: CommandLine) -> None:
    """--watch and --all exclude each other."""
    refused = line.run("runs", "--watch", "--all")
    assert (refused.returncode, "--all" in refused.stderr) == (2, True)


@pytest.mark.usefixtures("some_runs")
def test_rebuild_mends_what_audit_finds(line: CommandLine) -> None:
    """The exit code is 0, and the next audit is clean."""
    line.run("redis", "HSET", "murmur:runs:{0}:run:r-1", "target", "somebody", "version", "99")
    assert line.run("audit", "r-1").returncode == 1
    mended = line.run("rebuild", "r-1", "r-2", "--json")
    assert mended.returncode == 0, mended.stderr
    assert [(run["run_id"], run["ok"]) for run in objects(mended.stdout)] == [
        ("r-1", True),
        ("r-2", True),
    ]
    assert line.run("audit", "r-1").returncode == 0
    assert "rebuilt" in line.run("rebuild", "r-1").stdout


def test_a_run_without_a_journal_cannot_be_rebuilt(line: CommandLine) -> None:
    """The exit code is 2, and the error names the run."""
    missing = line.run("rebuild", "nobody")
    assert (missing.returncode, "nobody" in missing.stderr) == (2, True)


def raised(line: CommandLine, number: str, *argv: str) -> subprocess.CompletedProcess[str]:
    return line.run("partitions", "raise", number, *argv)


@pytest.mark.usefixtures("some_runs")
def test_partitions_are_raised_and_older_numbers_forgotten(
    line: CommandLine, in_store: Any
) -> None:
    """Runs stay until they are gone; then nothing is looked for by the number of before."""
    assert line.run("partitions", "show").stdout == "1\n"
    done = raised(line, "4")
    assert (done.returncode, done.stdout) == (0, "4 (earlier runs: 1)\n"), done.stderr
    assert line.run("submit", "nobody").returncode == 0
    refused = line.run("partitions", "forget")
    assert (refused.returncode, "4 live runs, 1 ended" in refused.stderr) == (2, True)

    async def delete(store: RedisRunStore) -> None:
        for run in (await store.list_runs()).runs:
            await store.delete(run.run_id, force=True)

    in_store(delete)
    forgotten = line.run("partitions", "forget")
    assert (forgotten.returncode, forgotten.stdout) == (0, "4\n"), forgotten.stderr
    refused = line.run("submit", "nobody", MURMUR_PARTITIONS="1")
    assert (refused.returncode, "partitions=4" in refused.stderr) == (2, True)
    submitted = line.run("submit", "nobody", MURMUR_PARTITIONS="4")
    assert submitted.returncode == 0, submitted.stderr


def test_partitions_are_never_lowered(line: CommandLine) -> None:
    """A lower number and the same one are refused."""
    line.run("runs", MURMUR_PARTITIONS="4")
    for number in ("4", "3"):
        refused = raised(line, number)
        assert (refused.returncode, f"{number} is not more" in refused.stderr) == (2, True)


def test_a_prefix_that_ends_with_a_colon_is_the_same_without(line: CommandLine) -> None:
    """Both name one key space."""
    line.run("runs", MURMUR_PARTITIONS="4")
    shown = line.run("partitions", "show", MURMUR_KEY_PREFIX="murmur:runs:")
    assert (shown.returncode, shown.stdout) == (0, "4\n"), shown.stderr


def test_an_empty_store_has_no_partitions_yet(line: CommandLine) -> None:
    """The first program fixes the number."""
    shown = line.run("partitions", "show")
    assert (shown.returncode, "no runs" in shown.stderr) == (2, True)


def test_the_lines_of_keys_name_the_partition_of_the_run(line: CommandLine) -> None:
    """The printed commands work as they are."""
    four = "4"
    line.run("submit", "nobody", "--run-id", "r-1", MURMUR_PARTITIONS=four)
    [keys] = objects(line.run("keys", "r-1", "--json", MURMUR_PARTITIONS=four).stdout)
    assert {key.split(":")[2] for key in keys["keys"]} == {"{1}"}
    argv = [each["argv"] for each in keys["commands"] if each["argv"][0] == "ZSCORE"]
    answers = [line.run("redis", *each, MURMUR_PARTITIONS=four).stdout.strip() for each in argv]
    assert len(answers) == 4
    assert [bool(answer) for answer in answers] == [True, True, False, True]
    assert line.run("show", "r-1", MURMUR_PARTITIONS=four).returncode == 0
