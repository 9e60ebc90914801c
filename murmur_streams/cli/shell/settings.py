"""``murmur-streams settings``."""

from __future__ import annotations

from dataclasses import asdict

import typer

from murmur_streams.cli.shell.command import command
from murmur_streams.cli.shell.printing import print_json
from murmur_streams.cli.shell.session import Session
from murmur_streams.settings import VARIABLES, settings_table


def register(app: typer.Typer) -> None:
    """Add the command."""

    @command(
        app,
        "settings",
        examples=("murmur-streams settings", "murmur-streams settings --json"),
    )
    def show_settings(session: Session) -> None:
        """Print every MURMUR_* variable with its default and meaning.

        With --json: their values, as this command sees them.
        """
        if not session.as_json:
            print(settings_table(), end="")
            return
        values = asdict(session.settings)
        for row in VARIABLES:
            if isinstance(text := values[row.field], str):
                values[row.field] = row.shown(text)
        print_json({row.name: values[row.field] for row in VARIABLES})
