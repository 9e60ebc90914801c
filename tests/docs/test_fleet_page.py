"""docs/fleet.md: its programs run, its commands exist, its tables agree with the code."""

from __future__ import annotations

import inspect
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from murmur_streams.core.rules.executions import ATTEMPTS_EXHAUSTED, DEADLINE_EXCEEDED
from murmur_streams.embedded import stop_server
from murmur_streams.fleet.policy import (
    NOT_RETRYABLE,
    RETRIES_EXHAUSTED,
    AgentOptions,
    Policy,
)
from murmur_streams.wire.requests import SubmitOptions
from tests.cli.waiting import wait_until
from tests.docs.pages import DocsPage, named
from tests.key_audit import audit_folder

PAGE = DocsPage("fleet.md")
BIN = Path(sys.executable).parent
PROGRAM = re.compile(r"^```python\n(# (\w+\.py)\n.*?)^```", re.DOTALL | re.MULTILINE)
PROGRAMS = {name: text for text, name in PROGRAM.findall(PAGE.text)}
WHY = "the wrong bird"


class Fleets:
    """A folder with the page's programs, a server, and a worker of `jobs.py`."""

    def __init__(self, folder: Path) -> None:
        self.data = folder / "data"
        self.folder = folder / "programs"
        self.folder.mkdir()
        for name, text in PROGRAMS.items():
            (self.folder / name).write_text(text, encoding="utf-8")
        environ = {
            name: text for name, text in os.environ.items() if not name.startswith("MURMUR_")
        }
        self.environ = {**environ, "MURMUR_DATA_DIR": str(self.data)}

    def program(self, name: str) -> subprocess.CompletedProcess[str]:
        return self._run(sys.executable, "-W", "error", name)

    def values(self, *arguments: str, given: str | None = None) -> list[Any]:
        """Run a command, and read its output: one JSON value a line."""
        done = self._run(str(BIN / "murmur-streams"), *arguments, given=given)
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    def _run(self, *command: str, given: str | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=self.folder,
            env=self.environ,
            input=given,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )


@pytest.fixture(scope="module")
def fleets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleets]:
    made = Fleets(tmp_path_factory.mktemp("fleet"))
    worker = subprocess.Popen(
        [str(BIN / "murmur-streams"), "worker", "jobs:fleet"],
        cwd=made.folder,
        env=made.environ,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: bool(made.values("workers", "--json")), "the worker is listed")
        yield made
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(60) == 0
        audit_folder(made.data)
    finally:
        worker.kill()
        worker.wait()
        stop_server(made.data)


def test_every_block_of_python_is_a_program_that_a_test_runs() -> None:
    """A new block fails here until it has a test."""
    assert len(PROGRAMS) == PAGE.text.count("```python")
    assert set(PROGRAMS) == {
        *("jobs.py", "orders.py", "desk.py", "stop.py", "logs.py", "view.py", "memory.py")
    }


@pytest.mark.slow
def test_orders_are_idempotent_retried_delayed_and_resumed(fleets: Fleets) -> None:
    """orders.py prints what the page says."""
    done = fleets.program("orders.py")
    assert done.returncode == 0, done.stderr
    same, output, counters, later, pages = done.stdout.splitlines()
    assert (same, output) == ("True", "invoice 7")
    assert counters == "3 1 1 ['2 ConnectionError: the bank hung up']"
    assert "cancelled" in later
    assert "how='pending'" in later
    assert pages == "['a', 'b', 'c', 'd']"


@pytest.mark.slow
def test_the_desk_requeues_purges_and_pauses(fleets: Fleets) -> None:
    """desk.py prints what the page says."""
    done = fleets.program("desk.py")
    assert done.returncode == 0, done.stderr
    error, letter, origin, purged, paused, worker = done.stdout.splitlines()
    assert error == "NonRetryableError unknown order -1"
    assert letter == "not_retryable 1 -1"
    assert origin == "True"
    assert re.fullmatch(r"\d+ letters purged", purged)
    assert int(purged.split()[0]) >= 2
    assert paused == "{'invoice'}"
    assert " working " in worker


@pytest.mark.slow
def test_a_running_run_is_cancelled_by_its_handler(fleets: Fleets) -> None:
    """stop.py prints what the page says."""
    done = fleets.program("stop.py")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "cancelled handler True\n"


@pytest.mark.slow
def test_a_program_without_a_loop_cancels_a_thread(fleets: Fleets) -> None:
    """view.py prints what the page says."""
    done = fleets.program("view.py")
    assert done.returncode == 0, done.stderr
    how, runs, letters = done.stdout.splitlines()
    assert (how, int(runs) >= 1, letters[0]) == ("handler", True, "(")


def test_a_fleet_in_memory_needs_no_server(tmp_path: Path) -> None:
    """The program of "In one process, in memory" runs without a server."""
    (tmp_path / "memory.py").write_text(PROGRAMS["memory.py"], encoding="utf-8")
    done = subprocess.run(
        (sys.executable, "-W", "error", "memory.py"),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "42\n", "")


@pytest.mark.slow
def test_a_record_outside_of_a_run_says_so(fleets: Fleets) -> None:
    """logs.py prints what the page says."""
    done = fleets.program("logs.py")
    assert done.returncode == 0, done.stderr
    assert done.stderr == "- - INFO outside of a run\n"


@pytest.mark.slow
def test_the_entries_of_a_cancel_are_those_of_the_table(fleets: Fleets) -> None:
    """The journal has the types and fields of the table."""
    fleets.values("submit", "research", '"storks"', "--run-id", "storks", "--json")

    def runs() -> bool:
        return fleets.values("show", "storks", "--json")[0]["state"] == "running"

    wait_until(runs, "the run is executed")
    fleets.values("cancel", "storks", "--reason", WHY, "--wait", "60", "--json")
    command = "XRANGE murmur:runs:{0}:journal:storks - +"
    (journal,) = fleets.values("redis", "--json", given=command)
    entries = [dict(zip(flat[::2], flat[1::2], strict=True)) for _, flat in journal]
    fields_of = {entry["type"]: set(entry) for entry in entries}
    for kind, fields, _ in PAGE.table("entry"):
        (name,) = named(kind)
        assert set(named(fields)) <= fields_of[name], name
        assert fields_of[name] - set(named(fields)) <= {"type", "seal"}, name


@pytest.mark.slow
def test_the_lines_for_redis_show_what_they_say(fleets: Fleets) -> None:
    """Each redis-cli line of the page has an answer."""
    fleets.values("submit", "invoice", "1", "--delay", "1h", "--json")
    fleets.values("submit", "invoice", '"no order"', "--run-id", "dead-1", "--json")

    def died() -> bool:
        return fleets.values("show", "dead-1", "--json")[0]["state"] == "failed"

    wait_until(died, "the run has failed")
    worker = fleets.values("workers", "--json")[0]["id"]
    commands = [
        shlex.join(line).replace("RUN", "dead-1").replace("WORKER", worker)
        for line in PAGE.lines("redis-cli")
    ]
    replies = fleets.values("redis", "--json", given="\n".join(commands))
    by_command = dict(zip(commands, replies, strict=True))

    def reply(part: str) -> Any:
        (found,) = [reply for command, reply in by_command.items() if part in command]
        return found

    assert reply("-inf '(10000000000000'") == 0
    assert reply("ZCOUNT 'murmur:runs:{0}:queue:invoice' 10000000000000") >= 1
    assert reply("ZRANGEBYSCORE")
    assert "invoice" in reply("SMEMBERS 'murmur:runs:{0}:dead'")
    assert reply("XLEN") >= 1
    assert "dead-1" in reply("dead:invoice' + -")[0][1]
    assert reply("HMGET")[:2] == ["failed", "1"]
    assert worker in reply("murmur:runs:workers")
    assert "working" in reply("murmur:runs:worker:")
    assert reply("journal:dead-1")


def test_every_command_of_the_page_is_one_with_these_options() -> None:
    """Each line for a shell is a command with options that exist."""
    PAGE.check_commands(least=8)


def test_the_table_of_agent_options_is_the_signature() -> None:
    """Names and defaults agree."""
    parameters = inspect.signature(Policy).parameters.values()
    defaults = {"name": "None", **{each.name: repr(each.default) for each in parameters}}
    documented = {named(row[0])[0]: "".join(named(row[1])) for row in PAGE.table("option")}
    assert list(documented) == list(defaults)
    assert {**documented, "name": "None"} == defaults
    assert set(defaults) == {"name", *AgentOptions.__annotations__}


def test_the_table_of_submit_options_has_all_of_them() -> None:
    """Each option of submit is in a row."""
    rows = re.search(r"^\| option \| meaning \|\n.*\n((?:\|.*\n)+)", PAGE.text, re.MULTILINE)
    assert rows is not None
    documented = [name for row in rows[1].splitlines() for name in named(row.split(" | ")[0])]
    assert sorted(documented) == sorted(SubmitOptions.__annotations__)


def test_the_table_of_dead_letters_has_every_reason() -> None:
    """Each reason is in a row."""
    documented = {named(row[0])[0] for row in PAGE.table("reason")}
    ours = {RETRIES_EXHAUSTED, NOT_RETRYABLE, ATTEMPTS_EXHAUSTED, DEADLINE_EXCEEDED}
    assert documented == ours | {"overdue"}
