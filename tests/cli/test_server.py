"""The embedded server and the commands that go to it."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import CommandLine


def test_a_server_starts_is_there_and_stops(line: CommandLine, data_dir: Path) -> None:
    """`server start`, `status` and `stop`."""
    before = line.run("server", "status", "--json")
    assert (before.returncode, json.loads(before.stdout)["running"]) == (1, False)
    started = json.loads(line.run("server", "start", "--json").stdout)
    assert (started["running"], started["kept"]) == (True, False)
    status = line.run("server", "status")
    assert (status.returncode, str(started["pid"]) in status.stdout) == (0, True)
    assert line.run("server", "stop").stdout == "stopped\n"
    assert "no server was running" in line.run("server", "stop").stdout
    assert data_dir.exists()


def test_the_status_of_a_server_with_keep_says_so(line: CommandLine) -> None:
    """It stays until it is stopped."""
    assert "kept until" in line.run("server", "start", "--keep").stdout
    assert json.loads(line.run("server", "status", "--json").stdout)["kept"] is True


def test_a_folder_can_be_named_by_url(line: CommandLine, tmp_path: Path) -> None:
    """`--url embedded://PATH` starts the server there."""
    url = f"embedded://{tmp_path / 'other'}"
    started = json.loads(line.run("server", "start", "--json", "--url", url).stdout)
    try:
        assert started["data_dir"] == str(tmp_path.resolve() / "other")
        assert line.run("redis", "--url", url, "PING").stdout == "PONG\n"
    finally:
        line.run("server", "stop", "--url", url)


@pytest.mark.leaves("--json")
def test_arguments_that_begin_with_a_dash_go_to_the_server(line: CommandLine) -> None:
    """Options after the first argument of `redis` are passed on."""
    assert line.run("redis", "SET", "--json", "-x").stdout == "OK\n"
    assert line.run("redis", "GET", "--json").stdout == "-x\n"
    assert line.run("redis", "--json", "ECHO", "--help").stdout == '"--help"\n'


def test_an_error_reply_is_exit_code_1(line: CommandLine) -> None:
    """The reply is printed on stderr."""
    failed = line.run("redis", "NONSENSE")
    assert failed.returncode == 1
    assert failed.stderr.startswith("(error) ERR unknown command")


@pytest.mark.leaves("a")
def test_commands_can_come_from_stdin(line: CommandLine) -> None:
    """`redis` without arguments reads one command a line."""
    asked = line.run("redis", stdin="SET a 'b c'\n\nGET a\n")
    assert (asked.returncode, asked.stdout) == (0, "OK\nb c\n")


def test_settings_prints_the_table_and_the_values(line: CommandLine) -> None:
    """With --json it prints the values, passwords hidden."""
    assert "| `MURMUR_URL` |" in line.run("settings").stdout
    asked = line.run("settings", "--json", MURMUR_URL="redis://:secret@host")
    assert json.loads(asked.stdout)["MURMUR_URL"] == "redis://:***@host"


def test_settings_print_no_secret(line: CommandLine) -> None:
    """Tokens and credentials in URLs are hidden."""
    secrets: dict[str, Any] = {
        "MURMUR_TOKEN": "secret-of-a-token",
        "MURMUR_SERVER": "http://me:secret-of-a-server@host",
    }
    for argv in (("settings",), ("settings", "--json"), ("--debug", "settings", "--json")):
        asked = line.run(*argv, **secrets)
        assert (asked.returncode, "secret-of" in asked.stdout + asked.stderr) == (0, False)
    reported = json.loads(line.run("settings", "--json", **secrets).stdout)
    assert (reported["MURMUR_TOKEN"], reported["MURMUR_SERVER"]) == ("***", "http://me:***@host")
    assert json.loads(line.run("settings", "--json").stdout)["MURMUR_TOKEN"] is None


def test_the_version_has_a_command_and_an_option(line: CommandLine) -> None:
    """Both print the same."""
    flag, command = line.run("--version"), line.run("version", "--json")
    assert flag.stdout == f"murmur-streams {json.loads(command.stdout)['version']}\n"


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_a_sentinel_service_runs_until_it_is_interrupted(
    line: CommandLine, ending: signal.Signals
) -> None:
    """`server start --sentinel` prints the URL of a service that works, and leaves nothing."""
    service = line.start("server", "start", "--sentinel", "--json")
    assert service.stdout is not None
    try:
        started = json.loads(service.stdout.readline())
        assert len(started["servers"]) == len(started["sentinels"]) == 3
        listed = line.run("runs", "--url", started["url"])
        assert listed.returncode == 0
    finally:
        service.send_signal(ending)
    assert service.wait(timeout=30) == 130
    pids = [*started["servers"].values(), *started["sentinels"].values()]
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_a_cluster_runs_until_it_is_interrupted(line: CommandLine, ending: signal.Signals) -> None:
    """`server start --cluster` prints the URL of a cluster that works, and leaves nothing."""
    service = line.start("server", "start", "--cluster", "--json")
    assert service.stdout is not None
    try:
        started = json.loads(service.stdout.readline())
        assert len(started["primaries"]) == len(started["replicas"]) == 3
        listed = line.run("runs", "--url", started["url"])
        assert listed.returncode == 0
    finally:
        service.send_signal(ending)
    assert service.wait(timeout=30) == 130
    pids = [*started["primaries"].values(), *started["replicas"].values()]
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def test_options_of_different_servers_are_refused(line: CommandLine) -> None:
    """Before anything is started."""
    for options, text in (
        (("--sentinel", "--cluster"), "use one of them"),
        (("--keep", "--cluster"), "--keep is for the embedded server"),
        (("--keep", "--sentinel"), "--keep is for the embedded server"),
        (("--primaries", "4"), "--primaries needs --cluster"),
        (("--cluster", "--primaries", "2"), "--primaries"),
    ):
        refused = line.run("server", "start", *options)
        assert refused.returncode == 2
        assert text in " ".join(refused.stderr.split())
