"""A page of the documentation, read by tests that compare it with the code."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import typer.main

from murmur_streams.cli.shell.app import app

ROOT = Path(__file__).resolve().parents[2]


class DocsPage:
    """The text of a page below ``docs/``, its tables and its commands."""

    def __init__(self, name: str) -> None:
        self.text = (ROOT / "docs" / name).read_text(encoding="utf-8")

    def table(self, header: str) -> list[list[str]]:
        """The rows of the table that begins with these cells."""
        shape = rf"^\| {header} \|.*\n\|[- |]+\n((?:\|.*\n)+)"
        rows = re.search(shape, self.text, re.MULTILINE)
        assert rows is not None, header
        return [[cell.strip(" |") for cell in row.split(" | ")] for row in rows[1].splitlines()]

    def lines(self, program: str) -> list[list[str]]:
        """The lines of the page that call this program, without it and without comments."""
        found = re.findall(rf"^(?:    )?{program} (.+)$", self.text, re.MULTILINE)
        return [shlex.split(line, comments=True) for line in found]

    def check_commands(self, least: int) -> None:
        """Check that the page calls our program on so many lines, each with options that exist."""
        found = self.lines("murmur-streams")
        assert len(found) >= least
        for arguments in found:
            command: Any = typer.main.get_command(app)
            rest = list(arguments)
            while hasattr(command, "commands"):
                command = command.commands[rest.pop(0)]
            options = {name for parameter in command.params for name in parameter.opts}
            assert {each for each in rest if each.startswith("--")} <= options, arguments


def named(cell: str) -> list[str]:
    """The texts in backticks in a cell of a table."""
    return re.findall(r"`([^`]+)`", cell)
