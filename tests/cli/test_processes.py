"""`worker --processes` and `--reload`: a parent that keeps processes, and leaves none behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.cli.conftest import CommandLine
from tests.cli.waiting import is_gone, next_object, objects, wait_until

APP = """
from murmur_streams import Fleet

fleet = Fleet()


@fleet.agent
async def version() -> int:
    return {number}
"""


@pytest.fixture
def started() -> Iterator[list[int]]:
    """The ids of processes that a test has seen start; it may not leave one."""
    pids: list[int] = []
    yield pids
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def two(line: CommandLine, started: list[int]) -> tuple[subprocess.Popen[str], list[int]]:
    """A parent and its two workers, which work."""
    parent = line.start("worker", "fleet_app:fleet", "--processes", "2", "--json")
    pids = [next_object(parent, "worker")["pid"] for _ in range(2)]
    started += pids
    return parent, pids


def begun(line: CommandLine, run_id: str) -> bool:
    [found] = objects(line.run("show", run_id, "--json").stdout)
    return any(entry.get("name") == "begun" for entry in found["journal"])


def state_of(line: CommandLine, run_id: str) -> str:
    [found] = objects(line.run("show", run_id, "--json").stdout)
    return found["state"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_all_processes(
    line: CommandLine, started: list[int], number: signal.Signals
) -> None:
    """The exit code is 0, and no process is left."""
    parent, pids = two(line, started)
    parent.send_signal(number)
    printed, reported = parent.communicate(timeout=60)
    assert parent.returncode == 0, reported
    ends = [found for found in objects(printed) if found.get("stopped")]
    assert ["parent" in found for found in ends] == [False, False, True]
    assert all(map(is_gone, pids))


@pytest.mark.slow
def test_a_process_that_died_is_replaced_and_logged(line: CommandLine, started: list[int]) -> None:
    """The other process executes runs meanwhile."""
    parent, [first, second] = two(line, started)
    os.kill(first, signal.SIGKILL)
    third = next_object(parent, "worker")["pid"]
    started.append(third)
    assert not is_gone(second)
    assert not psutil.pid_exists(first), "it is a zombie"
    assert line.run("submit", "echo", '{"text": "a"}', "--follow").returncode == 0
    parent.terminate()
    _, reported = parent.communicate(timeout=60)
    assert parent.returncode == 0, reported
    assert f"(pid {first}) was ended by SIGKILL; another is started in 0.5 s" in reported
    assert is_gone(third)


@pytest.mark.slow
def test_no_process_outlives_a_parent_that_was_killed(
    line: CommandLine, started: list[int]
) -> None:
    """Orphaned processes drain and end by themselves."""
    parent, pids = two(line, started)
    parent.kill()
    parent.wait()
    for pid in pids:
        wait_until(lambda pid=pid: is_gone(pid), "the orphan ends")


@pytest.mark.slow
def test_a_second_signal_hands_the_runs_of_all_back(line: CommandLine, started: list[int]) -> None:
    """The runs are pending again."""
    parent, pids = two(line, started)
    line.run("submit", "gated", "--run-id", "r-1")
    wait_until(lambda: begun(line, "r-1"), "a worker has begun")
    parent.send_signal(signal.SIGINT)
    parent.send_signal(signal.SIGTERM)
    _, reported = parent.communicate(timeout=60)
    assert parent.returncode == 0, reported
    assert state_of(line, "r-1") == "pending"
    assert all(map(is_gone, pids))


def test_a_fleet_that_cannot_be_loaded_is_logged_once(line: CommandLine) -> None:
    """The parent tries the import before it starts processes."""
    refused = line.run("worker", "nowhere:fleet", "--processes", "3")
    assert refused.returncode == 2
    assert refused.stderr.count("no module 'nowhere'") == 1


@pytest.mark.slow
def test_the_names_of_the_processes_are_numbered(line: CommandLine, started: list[int]) -> None:
    """`--id blue` gives blue-1 and blue-2."""
    parent = line.start(
        *("worker", "fleet_app:fleet", "--processes", "2", "--id", "blue", "--json")
    )
    found = [next_object(parent, "worker") for _ in range(2)]
    started += [each["pid"] for each in found]
    assert sorted(each["worker"] for each in found) == ["blue-1", "blue-2"]

    def are_listed() -> bool:
        listed = objects(line.run("workers", "--json").stdout)
        return {each["pid"] for each in listed} == set(started)

    wait_until(are_listed, "both workers are in the list")


@pytest.mark.slow
def test_a_handler_that_ignores_cancellation_does_not_block_exit(line: CommandLine) -> None:
    """Its run is handed back."""
    process = line.worker("--drain-seconds", "0")
    line.run("submit", "stubborn", "--run-id", "r-1")
    wait_until(lambda: begun(line, "r-1"), "the worker has begun")
    process.terminate()
    _, reported = process.communicate(timeout=60)
    assert process.returncode == 0, reported
    assert state_of(line, "r-1") == "pending"


def answered(line: CommandLine) -> Any:
    done = line.run("submit", "version", "--follow", "--json")
    return objects(done.stdout)[-1]["result"]["output"]


@pytest.mark.slow
def test_reload_takes_new_code_and_outlives_broken_code(
    line: CommandLine, started: list[int], tmp_path: Path
) -> None:
    """The worker starts again after each change."""
    app = tmp_path / "app.py"
    app.write_text(APP.format(number=1))
    parent = line.start("worker", "app:fleet", "--reload", "--json", cwd=tmp_path)
    first = next_object(parent, "worker")
    started.append(first["pid"])
    assert answered(line) == 1
    app.write_text("this was never Python")
    assert next_object(parent, "worker")["stopped"] is True
    # Of another length: Python compares a cached module with its source by size and whole seconds.
    app.write_text(APP.format(number=22))
    second = next_object(parent, "targets")
    started.append(second["pid"])
    assert answered(line) == 22
    assert is_gone(first["pid"])
    parent.terminate()
    _, reported = parent.communicate(timeout=60)
    assert parent.returncode == 0, reported
    assert "app.py changed" in reported


@pytest.mark.slow
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_worker_runs_on_either_event_loop(line: CommandLine, loop: str) -> None:
    """`--loop` takes asyncio and uvloop."""
    pytest.importorskip("uvloop")
    process = line.worker("--loop", loop)
    assert line.run("submit", "echo", '{"text": "a"}', "--follow").returncode == 0
    assert line.run("submit", "boom", '{"text": "a"}', "--follow").returncode == 1
    process.terminate()
    assert process.wait(timeout=60) == 0


def test_dev_says_where_it_is_and_how_to_submit(
    line: CommandLine, started: list[int], tmp_path: Path, data_dir: Path
) -> None:
    """`dev` prints the data folder and a submit command, and executes runs."""
    (tmp_path / "app.py").write_text(APP.format(number=1))
    process = line.start("dev", "app:fleet", cwd=tmp_path)
    assert process.stderr is not None
    reported = ""
    while "agents" not in reported:
        read = process.stderr.readline()
        assert read, reported
        reported += read
    assert str(data_dir) in reported
    assert "murmur-streams submit version" in reported
    assert answered(line) == 1
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 0
