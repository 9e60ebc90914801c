"""The benchmarks run, with tiny sizes. No test judges their results."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from benchmarks.goals import GOALS, PEERS, judge
from benchmarks.harness.results import Results
from benchmarks.suites.all_suites import SUITES

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
COMMAND = (sys.executable, "-W", "error", "-m", "benchmarks")
RUN_SECONDS = 280
INTERRUPTED = 130
SOON = 0.3
"""Seconds after which the second suite has begun, and has not ended."""


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line to its end."""
    return subprocess.run(
        [*COMMAND, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=RUN_SECONDS,
    )


@pytest.mark.parametrize("suite", [suite for suite in SUITES if suite != "soak"])
def test_a_suite_measures_every_goal_it_has(suite: str, tmp_path: Path) -> None:
    """A tiny run has a row for each goal of the suite; peers that are not installed are named."""
    saved = tmp_path / "results.json"
    done = run("run", "--size", "tiny", "--only", suite, "--json", str(saved))
    assert done.returncode == 0, done.stderr
    results = Results.load(saved)
    missing = {peer for peer in PEERS if any(note.startswith(peer) for note in results.notes)}
    goals = tuple(goal for goal in GOALS if goal.suite == suite and goal.against not in missing)
    assert [verdict.goal.title for verdict in judge(results, goals) if verdict.found is None] == []
    assert results.rows
    assert f"--- {suite}" in done.stdout


def test_saved_results_are_shown_again(tmp_path: Path) -> None:
    """`show` prints the tables of saved files; another file is an error in one line."""
    saved, other = tmp_path / "results.json", tmp_path / "other.json"
    done = run("run", "--size", "tiny", "--only", "footprint", "--json", str(saved))
    assert run("show", str(saved)).stdout.strip() in done.stdout
    twice = run("show", str(saved), str(saved))
    assert twice.stdout == run("show", str(saved)).stdout
    other.write_text(json.dumps([1]))
    failed = run("show", str(other))
    assert (failed.returncode, failed.stdout) == (2, "")
    assert "Traceback" not in failed.stderr
    assert str(other) in failed.stderr


def test_two_trees_are_compared_in_one_run() -> None:
    """`compare` measures both in interleaved rounds; a wrong name is an error in one line."""
    sizes = ("--size", "tiny", "--rounds", "2", "--only", "footprint", "journals")
    done = run("compare", ".", ".", *sizes)
    assert done.returncode == 0, done.stderr
    for part in ("footprint: memory of a live run", "journals: append", "too few rounds"):
        assert part in done.stdout
    failed = run("compare", "nonsense", ".", *sizes)
    assert (failed.returncode, "Traceback" in failed.stderr) == (2, False)


def test_ctrl_c_prints_what_was_measured() -> None:
    """The tables of the finished suites are printed; no server or program is left."""
    process = subprocess.Popen(
        [*COMMAND, "run", "--size", "quick", "--only", "footprint", "live"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    try:
        while "live" not in process.stderr.readline():
            assert process.poll() is None
        time.sleep(SOON)
        started = psutil.Process(process.pid).children(recursive=True)
        assert started != []
        os.kill(process.pid, signal.SIGINT)
        printed, _ = process.communicate(timeout=60)
    finally:
        # What it has started would hold its pipes open, and outlive the test.
        with contextlib.suppress(psutil.NoSuchProcess):
            for each in psutil.Process(process.pid).children(recursive=True):
                each.kill()
        process.kill()
        process.communicate()
    assert process.returncode == INTERRUPTED
    assert "memory of a live run" in printed
    assert "the run was interrupted" in printed
    _, alive = psutil.wait_procs(started, timeout=10)
    assert alive == []


def test_help_teaches_by_examples() -> None:
    """`--help` names the commands and suites, and shows examples."""
    text = run("--help").stdout
    for part in ("run", "show", "compare", "docs", "examples:", *SUITES):
        assert part in text
