"""Commands that submit say on stderr when no live worker serves the target; the run is taken."""

from __future__ import annotations

import json
import signal

from murmur_streams.fleet.stores import unserved_warning
from tests.cli.conftest import CommandLine

WHY = '{"text": "why?"}'


def test_submit_warns_on_stderr(line: CommandLine) -> None:
    """stdout has the id alone, so scripts work as before; the exit code is 0."""
    done = line.run("submit", "ecko", WHY, "--run-id", "r-1")
    assert (done.returncode, done.stdout) == (0, "r-1\n")
    assert done.stderr == f"murmur-streams: {unserved_warning('ecko')}\n"


def test_submit_warns_in_json(line: CommandLine) -> None:
    """With --json the warning is a JSON object on one line of stderr."""
    done = line.run("submit", "ecko", WHY, "--json")
    assert json.loads(done.stderr) == {"warning": unserved_warning("ecko")}


def test_submit_to_a_live_worker_says_nothing(line: CommandLine) -> None:
    """A worker that serves the target is found, and stderr stays empty."""
    line.worker()
    done = line.run("submit", "echo", WHY, "--follow")
    assert (done.returncode, done.stderr) == (0, "")


def test_retry_warns_on_stderr(line: CommandLine) -> None:
    """A run that is submitted again waits for a worker, too."""
    line.run("submit", "ecko", "--run-id", "r-1")
    line.run("cancel", "r-1", "--wait", "30")
    done = line.run("retry", "r-1", "--run-id", "r-2")
    assert (done.returncode, done.stdout) == (0, "r-2\n")
    assert done.stderr == f"murmur-streams: {unserved_warning('ecko')}\n"


def test_submit_over_http_warns_on_stderr(line: CommandLine) -> None:
    """A pod without workers passes the warning on, and has it in its own log."""
    process = line.start("serve", "fleet_app:fleet", "--port", "0", "--json")
    assert process.stdout is not None
    assert process.stderr is not None
    url = json.loads(process.stdout.readline())["url"]
    done = line.run("submit", "echo", WHY, "--run-id", "r-1", "--server", url)
    assert (done.returncode, done.stdout) == (0, "r-1\n")
    assert done.stderr == f"murmur-streams: {unserved_warning('echo')}\n"
    process.send_signal(signal.SIGINT)
    assert unserved_warning("echo") in process.communicate(timeout=60)[1]
