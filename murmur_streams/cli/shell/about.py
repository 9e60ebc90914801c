"""``murmur-streams settings``, ``version`` and ``--version``."""

from __future__ import annotations

import platform
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated

import typer

from murmur_streams.cli.shell.command import command
from murmur_streams.cli.shell.printing import print_json
from murmur_streams.cli.shell.session import Session
from murmur_streams.settings import VARIABLES


def _print_and_end(wanted: bool) -> None:
    if wanted:
        print(f"murmur-streams {_installed_version()}")
        raise typer.Exit


Version = Annotated[
    bool,
    typer.Option("--version", callback=_print_and_end, is_eager=True, help="Print the version."),
]


def _installed_version() -> str:
    try:
        return version("murmur-streams")
    except PackageNotFoundError:
        return "unknown (not installed)"


@command("settings")
def show_settings(session: Session) -> None:
    """Print every MURMUR_* variable with its default and meaning.

    With --json: their values, as this command sees them.

    Examples:
        murmur-streams settings
        murmur-streams settings --json
    """
    if not session.as_json:
        print(settings_table(), end="")
        return
    values = asdict(session.settings)
    for row in VARIABLES:
        if isinstance(text := values[row.field], str):
            values[row.field] = row.shown(text)
    print_json({row.name: values[row.field] for row in VARIABLES})


def settings_table() -> str:
    """The variables as a Markdown table, as it stands in the README."""
    lines = ["| variable | default | meaning |", "| --- | --- | --- |"]
    for row in VARIABLES:
        is_value = row.default is not None and row.default not in {"", ()}
        default = f"`{row.default_text}`" if is_value else row.default_text
        lines.append(f"| `{row.name}` | {default} | {row.meaning} |")
    return "\n".join(lines) + "\n"


@command("version")
def show_version(session: Session) -> None:
    """Print the versions of murmur-streams and of Python."""
    installed, python = _installed_version(), platform.python_version()
    session.print(
        {"version": installed, "python": python}, f"murmur-streams {installed} (Python {python})"
    )
