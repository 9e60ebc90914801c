"""A page of the documentation, to be held against the code."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import typer.main

from murmur_streams.cli.shell.app import app

ROOT = Path(__file__).resolve().parents[2]


class DocsPage:
    """The text of a page below ``docs/``, and what stands in it."""

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
        """Each line that calls ours, and there are so many, is a command with these options."""
        found = self.lines("murmur-streams")
        assert len(found) >= least
        for words in found:
            command: Any = typer.main.get_command(app)
            rest = list(words)
            while hasattr(command, "commands"):
                command = command.commands[rest.pop(0)]
            options = {name for parameter in command.params for name in parameter.opts}
            assert {word for word in rest if word.startswith("--")} <= options, words


def named(cell: str) -> list[str]:
    """What a cell of a table has in backticks."""
    return re.findall(r"`([^`]+)`", cell)
