"""The name, options and help of each command: a golden file, independent of typer's layout."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from murmur_streams.cli.shell.app import app
from tests.cli.conftest import CommandLine

GOLDEN = Path(__file__).parent / "golden" / "commands.txt"
SHARED = {"url", "prefix", "as_json", "debug", "server", "token_file"}


def described(command: Any, name: str) -> Iterator[str]:
    if hasattr(command, "commands"):
        if name:
            yield f"{name}: {command.help}\n"
        for child, each in sorted(command.commands.items()):
            yield from described(each, f"{name} {child}".strip())
        return
    yield f"{name}: {command.help}\n"
    for parameter in command.params:
        if parameter.name not in SHARED and not getattr(parameter, "hidden", False):
            names = ", ".join(parameter.opts) if parameter.param_type_name == "option" else ""
            names = names or parameter.metavar
            yield f"    {names}: {parameter.help}\n"
    yield "\n"


def test_the_commands_are_the_documented_ones() -> None:
    """The golden file changes only on purpose."""
    assert "".join(described(typer.main.get_command(app), "")) == GOLDEN.read_text()


def test_every_command_takes_the_shared_options() -> None:
    """Each command has --url, --prefix, --json and the others."""

    def leaves(command: Any) -> Iterator[Any]:
        children = getattr(command, "commands", None)
        if children is None:
            yield command
        for child in (children or {}).values():
            yield from leaves(child)

    for command in leaves(typer.main.get_command(app)):
        assert {parameter.name for parameter in command.params} >= SHARED


@pytest.mark.parametrize(
    "command",
    [
        *("submit", "worker", "dev", "redis", "keys", "demo", "cancel", "result", "retry"),
        *("serve", "token", "export", "import"),
        *("workers", "pause", "resume", "dead requeue", "acl"),
    ],
)
def test_help_teaches_by_examples(line: CommandLine, command: str) -> None:
    """The help of each of these commands has an example."""
    shown = line.run(*command.split(), "--help")
    assert shown.returncode == 0
    assert f"$ murmur-streams {command}" in shown.stdout


def test_without_a_command_the_help_is_shown(line: CommandLine) -> None:
    """The exit code is 2."""
    shown = line.run()
    assert shown.returncode == 2
    assert "murmur-streams demo" in shown.stdout + shown.stderr


def test_help_has_no_escapes_without_a_terminal(line: CommandLine) -> None:
    """The help can be piped into a file."""
    assert "\x1b" not in line.run("submit", "--help").stdout
