"""``murmur-streams tail RUN``."""

from __future__ import annotations

from typing import Annotated

import typer

from murmur_streams.cli.runs.follow import Follower, run_interruptibly
from murmur_streams.cli.shell.command import RunId, command
from murmur_streams.cli.shell.run_source import open_run_source
from murmur_streams.cli.shell.session import Session

After = Annotated[
    str | None,
    typer.Option(
        "--after", metavar="CURSOR", help="Go on after this event: its id, as --json prints it."
    ),
]


def register(app: typer.Typer) -> None:
    """Add the command."""

    @command(
        app,
        "tail",
        over_http=True,
        examples=(
            "murmur-streams tail my-run",
            "murmur-streams tail my-run --json | jq .data",
            "murmur-streams tail my-run --after 0a1b2c3d-1700000000000-17",
        ),
    )
    def tail(session: Session, run: RunId, after: After = None) -> None:
        """Print a run's events: those so far, then live ones until it ends.

        Ctrl-C leaves the run alone and prints how to continue from there. With --json: one event a
        line.
        """
        follower = Follower(session, cursor=after)

        async def body() -> None:
            async with open_run_source(session) as source:
                await follower.follow(source, run)

        run_interruptibly(follower, body)
