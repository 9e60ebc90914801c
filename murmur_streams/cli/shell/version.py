"""``murmur-streams version`` and ``--version``."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated

import typer

from murmur_streams.cli.shell.command import command
from murmur_streams.cli.shell.printing import print_json
from murmur_streams.cli.shell.session import Session


def installed_version() -> str:
    """The version of the installed package."""
    try:
        return version("murmur-streams")
    except PackageNotFoundError:
        return "unknown (not installed)"


def _show(wanted: bool) -> None:
    if wanted:
        print(f"murmur-streams {installed_version()}")
        raise typer.Exit


Version = Annotated[
    bool, typer.Option("--version", callback=_show, is_eager=True, help="Print the version.")
]


def register_version(app: typer.Typer) -> None:
    """Add the command."""

    @command(app, "version")
    def show_version(session: Session) -> None:
        """Print the versions of murmur-streams and of Python."""
        if session.as_json:
            print_json({"version": installed_version(), "python": platform.python_version()})
        else:
            print(f"murmur-streams {installed_version()} (Python {platform.python_version()})")
