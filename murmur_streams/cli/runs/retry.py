"""``murmur-streams retry RUN``."""

from __future__ import annotations

from typing import Annotated

import typer

from murmur_streams.cli.runs.follow import Follower, follow_to_end, run_interruptibly
from murmur_streams.cli.runs.submit import Follow, warn
from murmur_streams.cli.shell.command import RunId, command
from murmur_streams.cli.shell.load_fleet import open_fleet
from murmur_streams.cli.shell.printing import print_json
from murmur_streams.cli.shell.run_source import StoreSource, check_served, print_own_warnings
from murmur_streams.cli.shell.session import Session

RunIdOption = Annotated[
    str | None,
    typer.Option("--run-id", metavar="ID", help="The new run's id. Default: a random one."),
]


def register(app: typer.Typer) -> None:
    """Add the command."""

    @command(
        app,
        "retry",
        examples=(
            "murmur-streams retry my-run",
            "murmur-streams retry my-run --follow",
            "murmur-streams retry my-run --run-id my-run-2",
        ),
    )
    def retry(
        session: Session, run: RunId, follow: Follow = False, run_id: RunIdOption = None
    ) -> None:
        """Submit a failed or cancelled run again: a new run with the same input. Prints its id.

        Called twice, it makes two runs; with --run-id, the second call is refused.

        With --follow the exit code shows how the new run ended, as for submit.
        """
        follower = Follower(session)
        print_own_warnings()

        async def body() -> int:
            async with open_fleet(session) as fleet:
                handle = await fleet.retry(run, new_run_id=run_id)
                if session.as_json:
                    print_json({"run_id": handle.run_id, "retry_of": run, "submitted": True})
                else:
                    print(handle.run_id, flush=True)
                warn(session, await check_served(handle))
                if not follow:
                    return 0
                return await follow_to_end(session, StoreSource(fleet), follower, handle.run_id)

        raise typer.Exit(run_interruptibly(follower, body) or 0)
