"""No command shows a secret of its URL or token, whatever the server does."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
from typer.testing import CliRunner

from murmur_streams.cli.data.export_runs import Asked, resume_command
from murmur_streams.cli.data.keys import client_for
from murmur_streams.cli.shell.app import app
from murmur_streams.cli.shell.session import Globals, Session
from murmur_streams.cli.supervisor.child import Child, WorkerOptions
from murmur_streams.cli.work.worker import _print_server, _print_submit_hint
from murmur_streams.core.model.run import RunFilter
from murmur_streams.settings import Settings
from murmur_streams.stores.redis import server as server_module
from murmur_streams.stores.redis.store import RedisRunStore
from murmur_streams.testing.faults import ServerHandle
from tests.cli.conftest import CommandLine
from tests.stores.faults.servers import spare_server

SECRET = "s3cr3t-hunter2"
ENCODED = "s3cr3t%2Dhunter2"
URLS = (
    f"redis://{SECRET}@{{}}",
    f"redis://{ENCODED}@{{}}",
    f"redis://app:{ENCODED}@{{}}",
    f"redis://{{}}?password={SECRET}",
)
NAMELESS = f"redis://{SECRET}@127.0.0.1:1"
COMMANDS: dict[str, list[str]] = {
    "acl": ["api"],
    "audit": ["r-1"],
    "cancel": ["r-1"],
    "dead list": [],
    "dead purge": ["--all", "--yes"],
    "dead requeue": ["--all", "--yes"],
    "dead show": ["r-1"],
    "export": [],
    "import": ["empty.ndjson"],
    "keys": ["r-1"],
    "partitions forget": [],
    "partitions raise": ["2"],
    "partitions show": [],
    "pause": ["echo"],
    "rebuild": ["r-1"],
    "redis": ["PING"],
    "result": ["r-1"],
    "resume": ["echo"],
    "retry": ["r-1"],
    "runs": [],
    "server start": [],
    "server status": [],
    "server stop": [],
    "settings": [],
    "show": ["r-1"],
    "submit": ["echo", "1"],
    "tail": ["r-1"],
    "token": ["me"],
    "version": [],
    "workers": [],
}
"""The arguments with which each command looks for its server."""
PROCESSES = {"demo", "dev", "serve", "worker"}
"""The commands that begin processes or answer requests; they are tried as processes, below."""


def leaves(command: Any, name: str = "") -> Iterator[str]:
    children = getattr(command, "commands", None)
    if children is None:
        yield name
    for child, each in (children or {}).items():
        yield from leaves(each, f"{name} {child}".strip())


def test_every_command_is_tried() -> None:
    """A new command has to be added here."""
    assert set(leaves(typer.main.get_command(app))) == COMMANDS.keys() | PROCESSES


@pytest.fixture
async def refusing(tmp_path: Path) -> AsyncIterator[ServerHandle]:
    async with spare_server(tmp_path / "spare", password="another") as server:
        yield server


def shown_by(*argv: str, **environ: str) -> str:
    """All that a command prints."""
    result = CliRunner().invoke(app, list(argv), env=environ)
    return result.output + result.stderr + repr(result.exception)


@pytest.fixture
def in_a_hurry(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(server_module, "OPENING_SECONDS", 0.01)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.ndjson").touch()


@pytest.mark.parametrize(
    "url",
    # Every command, 1.4 s for each form of a URL: two forms are enough for a quick look.
    [URLS[0], URLS[3], *(pytest.param(url, marks=pytest.mark.slow) for url in URLS[1:3])],
)
def test_no_command_shows_the_secret_of_its_url(
    url: str, refusing: ServerHandle, in_a_hurry: None, caplog: pytest.LogCaptureFixture
) -> None:
    """Against a port where nothing answers, and a server that refuses the credentials."""
    caplog.set_level("DEBUG")
    for root in ("127.0.0.1:1", f"127.0.0.1:{refusing.port}"):
        for name, argv in COMMANDS.items():
            shown = shown_by(*name.split(), "--debug", "--url", url.format(root), *argv)
            assert SECRET not in shown, name
            assert ENCODED not in shown, name
    assert SECRET not in caplog.text
    assert ENCODED not in caplog.text


def test_no_form_of_output_shows_the_secret(refusing: ServerHandle, in_a_hurry: None) -> None:
    """JSON, help and an address in the environment are the same."""
    url = URLS[0].format(f"127.0.0.1:{refusing.port}")
    for name, argv in COMMANDS.items():
        shown = shown_by(*name.split(), "--json", "--url", url, *argv)
        shown += shown_by(*name.split(), *argv, MURMUR_URL=url)
        shown += shown_by(*name.split(), "--help", MURMUR_URL=url)
        assert SECRET not in shown, name


@pytest.mark.parametrize(
    "argv",
    [["serve", "fleet_app:fleet", "--port", "0"], ["worker", "fleet_app:fleet"], ["demo"]],
)
async def test_no_process_shows_the_secret_of_its_url(
    argv: list[str], refusing: ServerHandle, line: CommandLine
) -> None:
    """A command that starts processes ends on a server that refuses the credentials."""
    for url in URLS[:2]:
        done = line.run(*argv, "--debug", "--url", url.format(f"127.0.0.1:{refusing.port}"))
        assert done.returncode == 2
        assert SECRET not in done.stdout + done.stderr


@pytest.mark.parametrize("given", [True, False])
def test_dev_shows_no_secret(capsys: pytest.CaptureFixture[str], *, given: bool) -> None:
    """The address and the command to copy are without it, on the terminal and as JSON."""
    for as_json in (False, True):
        settings = Settings(url=None if given else NAMELESS)
        session = Session(Globals(url=NAMELESS, as_json=as_json), settings)
        options = WorkerOptions("app:fleet", settings)
        _print_server(session, options)
        child: Any = Child.__new__(Child)
        child.report = {"targets": ["echo"]}
        _print_submit_hint(session, "app:fleet", child)
    shown = capsys.readouterr()
    assert SECRET not in shown.out + shown.err
    assert "127.0.0.1:1" in shown.out + shown.err


async def test_commands_to_copy_show_no_secret() -> None:
    """Printed commands, such as those for redis-cli, have no credentials."""
    session = Session(Globals(url=NAMELESS), Settings())
    which = RunFilter()
    shown = resume_command(session, Asked((), which), Path("runs.ndjson"))
    store = RedisRunStore(NAMELESS)
    shown += f"{client_for(session, store)}"
    await store.close()
    assert SECRET not in shown


def test_settings_show_no_secret() -> None:
    """Neither the values nor their repr, of addresses and tokens of any kind."""
    environ = {
        "MURMUR_URL": NAMELESS,
        "MURMUR_SERVER": f"https://app:{SECRET}@h",
        "MURMUR_TOKEN": SECRET,
    }
    shown = shown_by("settings", "--json", **environ)
    assert json.loads(shown.splitlines()[0])["MURMUR_URL"] == "redis://***@127.0.0.1:1"
    assert SECRET not in shown
    settings = Settings.from_environment({**os.environ, **environ})
    given = Globals(url=NAMELESS, server=f"https://{SECRET}@h")
    assert SECRET not in repr(settings) + repr(given) + repr(Session(given, settings))


@pytest.mark.parametrize(
    "server",
    [
        f"https://app:{SECRET}@127.0.0.1:1",
        f"https://{SECRET}@h",
        f"https//a:{SECRET}@h",
        f"x:{SECRET}@h",
    ],
)
def test_no_command_shows_the_secret_of_its_server(server: str) -> None:
    """Credentials in the URL of --server are refused and not repeated, and a token stays hidden."""
    for name in ("submit", "runs", "show", "tail", "result", "cancel"):
        argv = [*name.split(), *COMMANDS[name]]
        for more in ([], ["--json"], ["--debug"]):
            shown = shown_by(*argv, *more, "--server", server, MURMUR_TOKEN=f"{SECRET}-t")
            shown += shown_by(*argv, *more, MURMUR_SERVER=server, MURMUR_TOKEN=f"{SECRET}-t")
            assert SECRET not in shown
