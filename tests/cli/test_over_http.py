"""Commands that ask a server print what they print of a store, with the same exit codes."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from murmur_streams.cli.shell.app import app
from murmur_streams.cli.shell.session import Globals, Session
from murmur_streams.core.model.errors import StoreConfigurationError
from murmur_streams.settings import Settings
from tests.cli.conftest import CommandLine

WHY = '{"text": "why?"}'
SECRET = "a-token-that-must-stay-hidden"
NOT_REPORTED = {"dead"}
"""Fields that a store returns and a server leaves out."""


def objects(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture
def server(line: CommandLine) -> Iterator[str]:
    """The address of a server with a worker, over the test's own store."""
    process = line.start(
        *("serve", "fleet_app:fleet", "--with-worker", "--port", "0", "--json"),
        *("--drain-seconds", "0"),
    )
    assert process.stdout is not None
    yield json.loads(process.stdout.readline())["url"]
    process.send_signal(signal.SIGINT)


def test_submit_and_follow(line: CommandLine, server: str) -> None:
    """`submit --follow --server` prints the run, its events and its end."""
    argv = ("submit", "echo", WHY, "--follow", "--json", "--server", server)
    done = line.run(*argv)
    assert done.returncode == 0, done.stderr
    first, *events, last = objects(done.stdout)
    assert first == {"run_id": first["run_id"], "target": "echo", "submitted": True}
    assert [event["type"] for event in events] == [
        *("agent_started", "agent_output", "agent_completed"),
    ]
    assert (last["state"], last["result"]["output"]) == ("completed", {"answer": "why?"})
    assert objects(line.run("tail", first["run_id"], "--json").stdout) == events


def test_what_is_printed_is_the_same(line: CommandLine, server: str) -> None:
    """Each command prints the same for a server as for the store."""
    line.run("submit", "echo", WHY, "--follow", "--run-id", "r-1", "--server", server)
    line.run("submit", "boom", WHY, "--follow", "--run-id", "r-2", "--server", server)
    for argv in (
        *(("tail", "r-1"), ("tail", "r-1", "--json"), ("result", "r-1"), ("tail", "r-2")),
        *(("result", "r-1", "--json"), ("runs", "--state", "completed"), ("cancel", "r-1")),
        *(("runs", "--target", "echo"), ("runs", "--target", "x"), ("cancel", "r-1", "--json")),
        *(("runs",), ("runs", "--json"), ("result", "r-2"), ("result", "r-2", "--json")),
    ):
        here, there = line.run(*argv), line.run(*argv, "--server", server)
        assert outcome_of(there) == outcome_of(here), argv
    assert "1 failed" in line.run("runs", "--server", server).stdout
    assert line.run("result", "r-2", "--server", server).stderr == "failed: RuntimeError: why?\n"


def outcome_of(done: subprocess.CompletedProcess[str]) -> tuple[str, str, int]:
    return done.stdout, done.stderr, done.returncode


def test_a_run_without_a_result_is_printed_the_same(line: CommandLine, server: str) -> None:
    """The run was cancelled, or failed at its deadline."""
    line.run("submit", "echo", WHY, "--run-id", "r-1", "--delay", "1h", "--deadline", "2h")
    line.run("cancel", "r-1", "--reason", "no", "--wait", "30")
    line.run("submit", "waits", "--run-id", "r-2", "--deadline", "0.1s", "--follow")
    for argv in (
        *(("result", "r-1"), ("result", "r-1", "--json"), ("runs", "--json")),
        *(("result", "r-2"), ("result", "r-2", "--json"), ("show", "r-1", "--last", "0")),
    ):
        here, there = line.run(*argv), line.run(*argv, "--server", server)
        assert outcome_of(there) == outcome_of(here), argv


@pytest.mark.parametrize("argv", [("show", "r-1", "--json"), ("runs", "--json", "--all")])
def test_json_has_the_same_members(line: CommandLine, server: str, argv: tuple[str, ...]) -> None:
    """Apart from a few that a server does not report."""
    line.run("submit", "boom", WHY, "--follow", "--run-id", "r-1", "--server", server)
    [here] = objects(line.run(*argv).stdout)
    [there] = objects(line.run(*argv, "--server", server).stdout)
    assert list(there) == list(here)
    different = {name for name in here if there[name] != here[name]}
    assert different <= NOT_REPORTED
    assert (there["failures"], there["errors"]) == (1, ["1 RuntimeError: why?"])


def test_exit_codes_show_how_a_run_ended(line: CommandLine, server: str) -> None:
    """They are the same as with the store."""
    line.run("submit", "boom", WHY, "--run-id", "r-1", "--server", server)
    failed = line.run("result", "r-1", "--wait", "--server", server)
    assert (failed.returncode, "why?" in failed.stderr) == (1, True)
    line.run("submit", "echo", WHY, "--run-id", "r-2", "--delay", "1h", "--server", server)
    waits = line.run("result", "r-2", "--server", server)
    assert (waits.returncode, "has no result yet" in waits.stderr) == (2, True)
    reported = line.run("cancel", "r-2", "--reason", "no", "--wait", "30", "--server", server)
    assert (reported.returncode, reported.stdout) == (0, "r-2 is cancelled: it was not running\n")
    cancelled = line.run("result", "r-2", "--server", server)
    assert (cancelled.returncode, cancelled.stderr) == (3, "cancelled: no\n")
    again = line.run("submit", "echo", WHY, "--run-id", "r-2", "--server", server)
    assert (again.returncode, "already exists" in again.stderr) == (2, True)


@pytest.mark.parametrize(
    ("argv", "why"),
    [
        (("show", "nobody"), "run_id 'nobody' not found"),
        (("tail", "nobody"), "run_id 'nobody' not found"),
        (("submit", "ecko", WHY), "this fleet has no agent 'ecko'"),
        (("submit", "echo", '{"txt": 1}'), "text: Field required"),
    ],
)
def test_what_the_server_refuses_is_one_sentence(
    line: CommandLine, server: str, argv: tuple[str, ...], why: str
) -> None:
    """The sentence is on stderr, and the exit code is 2."""
    refused = line.run(*argv, "--server", server)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert why in refused.stderr
    assert refused.stderr.count("\n") == 1


def test_the_variable_stands_for_the_option(line: CommandLine, server: str) -> None:
    """MURMUR_SERVER wins over MURMUR_URL."""
    line.run("submit", "echo", WHY, "--run-id", "r-1", MURMUR_SERVER=server)
    reported = line.run("result", "r-1", "--wait", MURMUR_SERVER=server, MURMUR_URL="redis://x:1")
    assert json.loads(reported.stdout) == {"answer": "why?"}


def test_ctrl_c_prints_how_to_resume_over_http(
    line: CommandLine, server: str, gate: Path, tmp_path: Path
) -> None:
    """The printed command has --server."""
    process = line.start("submit", "gated", "--follow", "--server", server)
    assert process.stdout is not None
    _wait_for(process, "begun")
    process.send_signal(signal.SIGINT)
    _, reported = process.communicate(timeout=30)
    command = reported.strip().splitlines()[-1].split()
    assert process.returncode == 130
    assert command[-2:] == ["--server", server]
    gate.touch()
    rest = line.run(*command[1:], "--json")
    assert [event["type"] for event in objects(rest.stdout)] == ["agent_completed"]


def _wait_for(process: subprocess.Popen[str], argument: str) -> None:
    assert process.stdout is not None
    assert any(argument in found for found in process.stdout)


@pytest.mark.parametrize(
    "argv",
    [
        *(("dead", "list"), ("retry", "r-1"), ("workers",), ("audit", "r-1"), ("keys", "r-1")),
        *(("pause", "echo"), ("rebuild", "r-1"), ("redis", "PING"), ("worker", "fleet_app:fleet")),
    ],
)
def test_commands_that_look_into_the_store_say_so(argv: tuple[str, ...]) -> None:
    """They ask for --url."""
    reported = CliRunner().invoke(app, ["--server", "http://localhost:1", *argv])
    assert reported.exit_code == 2
    assert "give --url or MURMUR_URL" in reported.stderr


def test_the_variable_alone_is_no_store(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those commands are refused with MURMUR_SERVER, too."""
    monkeypatch.setenv("MURMUR_SERVER", "http://localhost:1")
    reported = CliRunner().invoke(app, ["retry", "r-1"])
    assert (reported.exit_code, "give --url or MURMUR_URL" in reported.stderr) == (2, True)


@pytest.mark.parametrize(
    ("argv", "why"),
    [
        (["--url", "redis://x"], "leave one of them out"),
        (["--prefix", "mine"], "leave one of them out"),
        (["--token-file", "/nowhere"], "the token file /nowhere cannot be read"),
    ],
)
def test_options_that_do_not_fit_together(argv: list[str], why: str) -> None:
    """The error names both options."""
    for order in (["show", "r-1", *argv], [*argv, "show", "r-1"]):
        reported = CliRunner().invoke(app, ["--server", "http://localhost:1", *order])
        assert reported.exit_code == 2
        assert why in reported.stderr


def test_the_url_option_wins_over_the_server_variable() -> None:
    """An option is more than a variable."""
    known = Settings(server="http://s", url="redis://r")
    assert Session(Globals(), known).server == "http://s"
    assert Session(Globals(url="redis://u"), known).server is None
    assert Session(Globals(prefix="mine"), known).server is None
    assert Session(Globals(server="http://t"), known).server == "http://t"


def test_an_app_is_no_option_beside_a_server() -> None:
    """The error says that the server has the fleet."""
    argv = [
        "submit",
        "echo",
        WHY,
        "--app",
        "fleet_app:fleet",
        "--server",
        "http://localhost:1",
    ]
    reported = CliRunner().invoke(app, argv)
    assert (reported.exit_code, "--app checks by a fleet" in reported.stderr) == (2, True)


def test_the_token_comes_from_its_file_or_the_environment(tmp_path: Path) -> None:
    """--token-file wins over MURMUR_TOKEN, which wins over MURMUR_TOKEN_FILE."""
    file = tmp_path / "token"
    file.write_text(f"{SECRET}\n")
    assert Session(Globals(token_file=file), Settings(token="other")).token == SECRET
    assert Session(Globals(), Settings(token="other", token_file=file)).token == "other"
    assert Session(Globals(), Settings(token_file=file)).token == SECRET
    file.write_bytes(b"\xef\xbb\xbf" + SECRET.encode())
    assert Session(Globals(token_file=file), Settings()).token == SECRET
    assert Session(Globals(), Settings()).token is None
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(StoreConfigurationError, match="it is not text"):
        assert Session(Globals(token_file=file), Settings()).token


@pytest.mark.parametrize(("mode", "warned"), [(0o600, False), (0o604, True), (0o640, True)])
def test_a_token_file_that_others_can_read_is_warned_about(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, mode: int, warned: bool
) -> None:
    """The client's token is as good as a password; the warning says what to do."""
    file = tmp_path / "token"
    file.write_text(f"{SECRET}\n")
    file.chmod(mode)
    assert Session(Globals(token_file=file), Settings()).token == SECRET
    assert ("chmod 600" in caplog.text) == warned
    assert SECRET not in caplog.text


def test_a_token_is_printed_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings, errors and tracebacks hide it."""
    monkeypatch.setenv("MURMUR_TOKEN", SECRET)
    assert SECRET not in repr(Settings(token=SECRET))
    assert SECRET not in CliRunner().invoke(app, ["settings", "--json"]).output
    monkeypatch.setenv("MURMUR_TOKEN", f"{SECRET} with spaces")
    reported = CliRunner().invoke(app, ["--debug", "settings"])
    assert (reported.exit_code, SECRET in reported.output) == (2, False)
    assert "MURMUR_TOKEN is '***', but must be" in reported.stderr


def test_a_token_opens_a_server_that_asks_for_one(line: CommandLine, tmp_path: Path) -> None:
    """A command that its scope does not allow ends with exit code 2."""
    [drawn] = objects(line.run("token", "tester", "--scope", "read", "--json").stdout)
    token = drawn["token"]
    records = tmp_path / "tokens.toml"
    records.write_text(drawn["record"])
    process = line.start(
        *("serve", "fleet_app:fleet", "--port", "0", "--json", "--tokens-file", str(records)),
        *("--drain-seconds", "0"),
    )
    assert process.stdout is not None
    url = json.loads(process.stdout.readline())["url"]
    own = tmp_path / "token"
    own.write_text(token)
    assert line.run("runs", "--server", url, "--token-file", str(own)).returncode == 0
    assert line.run("runs", "--server", url, MURMUR_TOKEN=token).returncode == 0
    refused = line.run("runs", "--server", url)
    assert (refused.returncode, "HTTP 401" in refused.stderr) == (2, True)
    forbidden = line.run("submit", "echo", WHY, "--server", url, MURMUR_TOKEN=token)
    assert (forbidden.returncode, "HTTP 403" in forbidden.stderr) == (2, True)
    assert token not in refused.stderr + forbidden.stderr


def test_a_bad_proxy_variable_is_one_line(line: CommandLine, server: str) -> None:
    """The command names the variable and ends with 2; MURMUR_TRUST_ENV=0 ignores it."""
    argv = ("runs", "--json", "--server", server)
    done = line.run(*argv, NO_PROXY="[::1]")
    assert (done.returncode, done.stdout) == (2, "")
    reported = json.loads(done.stderr)
    assert reported["message"].startswith("NO_PROXY is '[::1]', but")
    assert (reported["error"], reported["exit_code"]) == ("StoreConfigurationError", 2)
    done = line.run("runs", "--server", server, NO_PROXY="[::1]")
    assert done.stderr == f"murmur-streams: {reported['message']}\n"
    done = line.run(*argv, NO_PROXY="[::1]", MURMUR_TRUST_ENV="0")
    assert (done.returncode, done.stderr) == (0, "")
