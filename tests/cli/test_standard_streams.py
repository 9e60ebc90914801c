"""Commands whose stdout or stderr takes nothing end without a traceback, by documented codes."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from tests.cli.conftest import HERE, CommandLine
from tests.warm import WarmProcess

WHY = '{"text": "why?"}'
FULL = Path("/dev/full")
NO_SPACE = "murmur-streams: stdout: No space left on device\n"
COMMANDS = (
    *("--version", "--help", "runs --help", "settings", "settings --json", "workers", "redis PING"),
    *("runs", "runs --json", "runs --all", "show r-1", "show r-1 --json", "result r-1", "tail r-1"),
    *("tail r-1 --json", "cancel r-1", "audit r-1", "export", "dead list", "server status"),
    *("submit echo null --follow", "submit echo null --json", "retry r-2", "token web", "keys r-1"),
)
RARE = pytest.mark.slow
"""Each command starts Python anew, and only a change of ``standard_streams.py`` breaks the test."""
needs_full = pytest.mark.skipif(not FULL.exists(), reason="/dev/full is a device of Linux")


@pytest.fixture
def runs(line: CommandLine) -> None:
    """A completed and a failed run, and a worker for others."""
    line.worker()
    line.run("submit", "echo", WHY, "--follow", "--run-id", "r-1")
    line.run("submit", "boom", WHY, "--follow", "--run-id", "r-2")


@pytest.fixture
def broken_pipe() -> Iterator[IO[bytes]]:
    """The writing end of a pipe whose reader has gone."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb", buffering=0) as pipe:
        yield pipe


def run(command: str, stdout: IO[bytes], stderr: IO[bytes] | None = None) -> tuple[int, str]:
    """Run a command; its exit code, and what it wrote on stderr."""
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as err:
        process = WarmProcess(
            "murmur_streams",
            *shlex.split(command),
            cwd=HERE,
            env=dict(os.environ),
            stdin=given,
            stdout=stdout,
            stderr=stderr or err,
        )
        try:
            code = process.wait(60)
        finally:
            process.kill()
        err.seek(0)
        return code, err.read().decode()


def in_shell(command: str, redirections: str) -> tuple[int, str, str]:
    """Run a command with what only a shell can do to its streams: close them."""
    line = f"{shlex.quote(sys.executable)} -m murmur_streams {command} {redirections}"
    done = subprocess.run(  # noqa: S602  # the words are this test's own
        line, shell=True, cwd=HERE, capture_output=True, text=True, timeout=60, check=False
    )
    return done.returncode, done.stdout, done.stderr


@needs_full
@pytest.mark.usefixtures("runs")
def test_a_full_disk_is_one_line() -> None:
    """Every command that prints ends with 1 and says why on stderr."""
    with FULL.open("wb", buffering=0) as full:
        for command in COMMANDS:
            code, err = run(command, full)
            assert code == 1, (command, err)
            last = err.splitlines(keepends=True)[-1]
            if "--json" in command:
                assert last.startswith('{"error": "OutputError", "message": "stdout: '), command
            else:
                assert last == NO_SPACE, command
            assert "Traceback" not in err, command


@pytest.mark.usefixtures("runs")
def test_a_gone_reader_ends_every_command(broken_pipe: IO[bytes]) -> None:
    """`| head` is not an error: the exit code is 141, as for other tools, and stderr is empty."""
    for command in COMMANDS:
        code, err = run(command, broken_pipe)
        assert code == 141, (command, err)
        # token has said its secret by then.
        assert err == "" or command == "token web", command


def test_a_watch_ends_with_its_reader(line: CommandLine, broken_pipe: IO[bytes]) -> None:
    """A command without an end of its own ends when nothing reads it any more."""
    line.run("submit", "echo", WHY, "--run-id", "r-1")
    for command in ("runs --watch", "runs --watch --json"):
        assert run(command, broken_pipe) == (141, "")


@needs_full
def test_a_full_stderr_changes_no_exit_code(line: CommandLine) -> None:
    """The code says what the line on stderr would have said."""
    with FULL.open("wb", buffering=0) as full, tempfile.TemporaryFile() as out:
        assert run("show nobody", out, full)[0] == 2
        assert run("nonsense", out, full)[0] == 2
        assert run("show nobody --json", full, full)[0] == 2
        assert run("--version", full, full)[0] == 1


@pytest.mark.parametrize(
    "command",
    [
        "runs --json",
        *(pytest.param(each, marks=RARE) for each in ("--version", "settings", "export")),
    ],
)
def test_a_closed_stdout_is_thrown_away(line: CommandLine, command: str) -> None:
    """A program that closes stdout wants no output: the command does its work and ends with 0."""
    code, _, err = in_shell(command, ">&-")
    assert (code, "Traceback" in err) == (0, False)


@RARE
def test_closed_streams_are_not_reused(line: CommandLine, tmp_path: Path) -> None:
    """No file that the command opens gets the number of a stream, where prints would damage it."""
    store = f"sqlite:{tmp_path}/runs.db"
    for order in (f"submit echo 1 --run-id r-1 --url {store}", f"runs --json --url {store}"):
        assert in_shell(order, "<&- >&- 2>&-") == (0, "", "")
    assert '"r-1"' in line.run("runs", "--json", "--url", store).stdout


@RARE
def test_a_closed_stderr_changes_no_exit_code(line: CommandLine) -> None:
    """Only the message that would be printed there is lost."""
    assert in_shell("show nobody", "2>&-") == (2, "", "")
    code, out, _ = in_shell("settings", "2>&-")
    assert (code, out.startswith("| variable |")) == (0, True)


def test_a_closed_stdin_is_empty(line: CommandLine) -> None:
    """A command that reads stdin finds nothing there, and says so in a sentence."""
    code, _, err = in_shell("submit echo -", "<&-")
    assert (code, err.startswith("murmur-streams: the input is not JSON")) == (2, True)


@RARE
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_streams_without_a_buffer_are_safe_too(
    line: CommandLine,
    broken_pipe: IO[bytes],
    monkeypatch: pytest.MonkeyPatch,
    unbuffered: str,
) -> None:
    """PYTHONUNBUFFERED is common in containers."""
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    done = subprocess.run(
        [sys.executable, "-m", "murmur_streams", "settings"],
        stdout=broken_pipe,
        stderr=subprocess.PIPE,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (141, b"")
