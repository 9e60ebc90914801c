"""A run as the shell sees it: submitted, followed, looked at, interrupted."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from murmur_streams.core.model.states import RunState
from tests.cli.conftest import CommandLine

WHY = '{"text": "why?"}'


def objects(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def read_until(process: subprocess.Popen[str], argument: str) -> str:
    assert process.stdout is not None
    for found in process.stdout:
        if argument in found:
            return found
    raise AssertionError(f"{argument!r} never came; stderr: {process.communicate()[1]}")


def test_a_completed_run_is_exit_code_0(line: CommandLine) -> None:
    """Its id and its output are on stdout."""
    line.worker()
    done = line.run("submit", "echo", WHY, "--follow", "--run-id", "r-1")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("r-1\n")
    assert '"answer": "why?"' in done.stdout
    assert "\x1b" not in done.stdout


def test_a_failed_run_is_exit_code_1(line: CommandLine) -> None:
    """`submit --follow` prints the error."""
    line.worker()
    failed = line.run("submit", "boom", WHY, "--follow")
    assert failed.returncode == 1
    assert "RuntimeError: why?" in failed.stdout


def test_a_cancelled_run_is_exit_code_3(line: CommandLine, in_store: Any) -> None:
    """`submit --follow` ends when another program cancels the run."""
    process = line.start("submit", "nobody", "--follow", "--run-id", "r-1")
    read_until(process, "r-1")
    in_store(lambda store: store.finish("r-1", RunState.CANCELLED))
    assert process.wait(timeout=30) == 3


def test_json_is_a_line_for_each_thing(line: CommandLine) -> None:
    """One line each for the submission, every event and the end."""
    line.worker()
    marked = f"\ufeff{WHY}"  # as Windows tools pipe it
    done = line.run("submit", "echo", "-", "--follow", "--run-id", "r-1", "--json", stdin=marked)
    first, *events, last = objects(done.stdout)
    assert first == {"run_id": "r-1", "target": "echo", "submitted": True}
    assert [event["type"] for event in events] == [
        "agent_started",
        "agent_output",
        "agent_completed",
    ]
    assert (last["state"], last["result"]["output"]) == ("completed", {"answer": "why?"})


def test_the_fleet_checks_what_is_submitted(line: CommandLine) -> None:
    """With --app, a wrong input or agent is refused before the submission."""
    wrong = line.run("submit", "echo", '{"txt": 1}', "--app", "fleet_app:fleet")
    assert (wrong.returncode, "text: Field required" in wrong.stderr) == (2, True)
    unknown = line.run("submit", "ecko", WHY, "--app", "fleet_app:fleet")
    assert (unknown.returncode, "it has: boom, echo, gated" in unknown.stderr) == (2, True)


def test_an_id_can_be_used_once(line: CommandLine) -> None:
    """The second submission ends with exit code 2."""
    assert line.run("submit", "echo", WHY, "--run-id", "r-1").returncode == 0
    again = line.run("submit", "echo", WHY, "--run-id", "r-1")
    assert (again.returncode, "already exists" in again.stderr) == (2, True)


def test_ctrl_c_leaves_the_run_alone_and_prints_a_command(line: CommandLine, gate: Path) -> None:
    """The command follows on from there."""
    line.worker()
    process = line.start("submit", "gated", "--follow", "--run-id", "r-1")
    read_until(process, "begun")
    process.send_signal(signal.SIGINT)
    _, reported = process.communicate(timeout=30)
    assert process.returncode == 130
    command = reported.strip().splitlines()[-1].split()
    assert command[:4] == ["murmur-streams", "tail", "r-1", "--after"]
    gate.touch()
    rest = line.run(*command[1:], "--json")
    assert rest.returncode == 0, rest.stderr
    assert [event["type"] for event in objects(rest.stdout)] == ["agent_completed"]


def test_tail_goes_on_after_a_cursor(line: CommandLine) -> None:
    """`tail --after` prints only the later events."""
    line.worker()
    line.run("submit", "echo", WHY, "--follow", "--run-id", "r-1")
    whole = objects(line.run("tail", "r-1", "--json").stdout)
    rest = objects(line.run("tail", "r-1", "--after", whole[0]["id"], "--json").stdout)
    assert rest == whole[1:]


def test_a_reader_that_goes_away_is_no_error(line: CommandLine) -> None:
    """The exit code is 141, and stderr is empty."""
    line.worker()
    line.run("submit", "echo", WHY, "--follow", "--run-id", "r-1")
    process = line.start("tail", "r-1")
    assert process.stdout is not None
    process.stdout.close()
    assert process.wait(timeout=30) == 141
    assert process.stderr is not None
    assert process.stderr.read() == ""


def test_show_prints_everything_about_a_run(line: CommandLine) -> None:
    """State, attempt, error and last entries."""
    line.worker()
    line.run("submit", "boom", WHY, "--follow", "--run-id", "r-1")
    shown = line.run("show", "r-1")
    assert shown.returncode == 0
    for text in ("state     failed", "attempt   1", "RuntimeError: why?", "last 5 of"):
        assert text in shown.stdout
    [found] = objects(line.run("show", "r-1", "--json", "--last", "1").stdout)
    assert (found["state"], found["target"], len(found["journal"])) == ("failed", "boom", 1)
    assert "claim" not in found


def test_the_lines_of_keys_run_as_they_stand(line: CommandLine) -> None:
    """Each printed redis command has an answer."""
    line.worker()
    line.run("submit", "echo", WHY, "--follow", "--run-id", "r-1")
    [keys] = objects(line.run("keys", "r-1", "--json").stdout)
    assert keys["client"] == ["murmur-streams", "redis"]
    argv = [command["argv"] for command in keys["commands"]]
    asked = line.run("redis", "--json", stdin="\n".join(map(shlex.join, argv)))
    assert asked.returncode == 0, asked.stderr
    answers = [json.loads(answer) for answer in asked.stdout.splitlines()]
    assert len(answers) == len(argv)
    assert all(answers), answers


def test_keys_prints_lines_for_a_shell(line: CommandLine) -> None:
    """Keys with braces are quoted."""
    line.run("submit", "nobody", "--run-id", "r-1")
    printed = line.run("keys", "r-1").stdout.splitlines()
    commands = [text for text in printed if not text.startswith("#")]
    assert "murmur-streams redis HGETALL 'murmur:runs:{0}:run:r-1'" in commands
    assert "murmur-streams redis ZSCORE 'murmur:runs:{0}:queue:nobody' r-1" in commands


def test_audit_is_exit_code_1_when_something_is_wrong(line: CommandLine) -> None:
    """The output names the fault."""
    line.run("submit", "nobody", "--run-id", "r-1")
    clean = line.run("audit", "r-1")
    assert (clean.returncode, "clean" in clean.stdout) == (0, True)
    line.run("redis", "HSET", "murmur:runs:{0}:run:r-1", "target", "somebody")
    [damaged] = objects((wrong := line.run("audit", "r-1", "--json")).stdout)
    assert wrong.returncode == 1
    assert (damaged["ok"], "somebody" in str(damaged["problems"])) == (False, True)


def test_all_runs_can_be_audited(line: CommandLine) -> None:
    """`audit --all` names the faulty runs and prints a sum."""
    for number in range(3):
        line.run("submit", "nobody", "--run-id", f"r-{number}")
    clean = line.run("audit", "--all")
    assert (clean.returncode, clean.stderr) == (0, "")
    assert clean.stdout == "3 runs audited, 0 not clean\n"
    line.run("redis", "HSET", "murmur:runs:{0}:run:r-1", "target", "somebody")
    wrong = line.run("audit", "--all")
    assert wrong.returncode == 1
    assert wrong.stdout.startswith("r-1  NOT CLEAN")
    assert wrong.stdout.endswith("3 runs audited, 1 not clean\n")
    audited = objects(line.run("audit", "--all", "--json").stdout)
    assert {each["run_id"]: each["ok"] for each in audited} == {
        "r-0": True,
        "r-1": False,
        "r-2": True,
    }
    for argv in ([], ["r-1", "--all"]):
        refused = line.run("audit", *argv)
        assert (refused.returncode, "name runs, or --all" in refused.stderr) == (2, True)


def test_a_prefix_is_another_world(line: CommandLine) -> None:
    """Runs under --prefix or MURMUR_KEY_PREFIX are separate."""
    line.run("submit", "nobody", "--run-id", "r-1", "--prefix", "team:a")
    assert line.run("show", "r-1").returncode == 2
    assert line.run("--prefix", "team:a", "show", "r-1").returncode == 0
    assert line.run("show", "r-1", MURMUR_KEY_PREFIX="team:a").returncode == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_stops_cleanly_on_a_signal(line: CommandLine, number: signal.Signals) -> None:
    """The exit code is 0, and the last line says that it has stopped."""
    process = line.worker()
    process.send_signal(number)
    printed, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    assert objects(printed)[-1]["stopped"] is True


def test_a_second_signal_hands_the_runs_back(line: CommandLine) -> None:
    """The run is pending again."""
    first = line.worker()
    process = line.start("submit", "gated", "--follow", "--run-id", "r-1", "--json")
    read_until(process, "begun")
    first.send_signal(signal.SIGTERM)
    first.send_signal(signal.SIGTERM)
    first.send_signal(signal.SIGINT)
    first.communicate(timeout=30)
    [found] = objects(line.run("show", "r-1", "--json").stdout)
    assert found["state"] == "pending"
