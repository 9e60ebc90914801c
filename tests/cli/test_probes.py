"""A worker reports its health: `--health-port` and `--health-file`."""

from __future__ import annotations

import json
import re
import signal
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import CommandLine
from tests.cli.waiting import next_object, objects, wait_until


def asked(address: str, path: str, method: str = "GET") -> tuple[int, dict[str, Any]]:
    request = urllib.request.Request(address + path, method=method)  # noqa: S310  # our own
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310  # our own
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


def test_a_worker_is_ready_once_the_server_has_heard_of_it(line: CommandLine) -> None:
    """/readyz is 200 after its first entry in the list."""
    process = line.start("worker", "fleet_app:fleet", "--json", "--health-port", "0")
    address = next_object(process, "worker")["health"]
    assert address.startswith("http://127.0.0.1:")
    wait_until(lambda: asked(address, "/readyz")[0] == 200, "the worker is ready")
    code, reported = asked(address, "/livez")
    assert (code, reported["ok"], reported["status"]) == (200, True, "working")
    assert asked(address, "/")[0] == 404
    assert asked(address, "/readyz", "POST")[0] == 405


@pytest.mark.parametrize("more", [(), ("--processes", "2")], ids=["alone", "two"])
def test_a_free_port_is_printed(line: CommandLine, more: tuple[str, ...]) -> None:
    """`--health-port 0` takes a free port and prints its address."""
    process = line.start("worker", "fleet_app:fleet", "--health-port", "0", *more)
    assert process.stderr is not None
    found = None
    while found is None:
        reported = process.stderr.readline()
        assert reported, "no address was printed"
        found = re.search(r"http://127.0.0.1:[0-9]+", reported)
    assert asked(found[0], "/livez")[0] == 200
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == 0


def test_a_worker_that_drains_is_live_and_not_ready(line: CommandLine, gate: Path) -> None:
    """/livez stays 200 and /readyz is 503."""
    process = line.start("worker", "fleet_app:fleet", "--json", "--health-port", "0")
    address = next_object(process, "worker")["health"]
    line.run("submit", "gated", "--run-id", "r-1")
    wait_until(
        lambda: objects(line.run("show", "r-1", "--json").stdout)[0]["state"] == "running",
        "the run has begun",
    )
    process.send_signal(signal.SIGTERM)
    wait_until(lambda: asked(address, "/readyz")[1]["status"] == "draining", "it drains")
    assert asked(address, "/readyz")[0] == 503
    assert asked(address, "/livez")[0] == 200
    gate.touch()
    assert process.wait(timeout=60) == 0


def test_a_parent_speaks_for_all_its_processes(line: CommandLine, tmp_path: Path) -> None:
    """The parent is ready when all of its processes are."""
    file = tmp_path / "alive"
    process = line.start(
        *("worker", "fleet_app:fleet", "--json", "--processes", "2"),
        *("--health-port", "0", "--health-file", str(file)),
    )
    address = next_object(process, "parent")["health"]
    assert asked(address, "/livez")[0] == 200
    wait_until(lambda: asked(address, "/readyz")[0] == 200, "both are ready")
    workers = {each["worker"] for each in asked(address, "/readyz")[1]["processes"]}
    assert len(workers) == 2
    wait_until(file.exists, "the file is touched")
    process.terminate()
    assert process.wait(timeout=60) == 0
    assert not file.exists()


def test_the_health_file_is_there_while_the_worker_is(line: CommandLine, tmp_path: Path) -> None:
    """It is touched, and removed at the end."""
    file = tmp_path / "alive"
    file.touch()
    file.chmod(0o400)
    process = line.worker("--health-file", str(file))
    wait_until(lambda: file.exists() and file.stat().st_mode & 0o200 != 0, "it is a new file")
    first = file.stat().st_mtime_ns
    wait_until(lambda: file.stat().st_mtime_ns > first, "it is touched again")
    process.terminate()
    assert process.wait(timeout=60) == 0
    assert not file.exists()


def test_a_health_port_or_file_that_cannot_be_had_is_a_mistake(line: CommandLine) -> None:
    """The worker ends at the start with exit code 2."""
    refused = line.run("worker", "fleet_app:fleet", "--health-file", "/nowhere/alive")
    assert (refused.returncode, "--health-file /nowhere/alive" in refused.stderr) == (2, True)
    process = line.start("worker", "fleet_app:fleet", "--json", "--health-port", "0")
    taken = next_object(process, "worker")["health"].rpartition(":")[2]
    refused = line.run("worker", "fleet_app:fleet", "--health-port", taken)
    assert (refused.returncode, f"--health-port {taken}" in refused.stderr) == (2, True)
