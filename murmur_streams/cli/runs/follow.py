"""Following one run to its end, for ``tail`` and ``submit --follow``."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass

import typer

from murmur_streams.cli.shell.command import EXIT_CODES, INTERRUPTED
from murmur_streams.cli.shell.outcome import outcome_json, print_outcome
from murmur_streams.cli.shell.printing import (
    console,
    event_json,
    event_line,
    print_json,
    print_message,
)
from murmur_streams.cli.shell.run_source import RunSource
from murmur_streams.cli.shell.session import Session
from murmur_streams.core.redaction import redacted


@dataclass
class Follower:
    """Prints a run's events as they come, and keeps the cursor of the last one."""

    session: Session
    run_id: str | None = None
    cursor: str | None = None

    async def follow(self, source: RunSource, run_id: str) -> None:
        """Print every event after the cursor, until the run's stream ends."""
        self.run_id = run_id
        screen = console()
        async with aclosing(source.stream(run_id, after=self.cursor)) as events:
            async for event in events:
                if self.session.as_json:
                    print_json(event_json(event))
                else:
                    screen.print(event_line(event))
                self.cursor = event.id

    def resume_command(self) -> str:
        """The command that continues to follow the run."""
        argv = ["murmur-streams", "tail", self.run_id or ""]
        argv += ["--after", self.cursor] if self.cursor else []
        given = self.session.given
        argv += ["--prefix", given.prefix] if given.prefix else []
        argv += ["--url", redacted(given.url)] if given.url else []
        argv += ["--server", redacted(given.server)] if given.server else []
        argv += ["--token-file", str(given.token_file)] if given.token_file else []
        return shlex.join(argv)


async def follow_to_end(
    session: Session, source: RunSource, follower: Follower, run_id: str
) -> int:
    """Print a run's events, then its outcome; returns the exit code."""
    await follower.follow(source, run_id)
    run = await source.snapshot(run_id)
    result = await source.result(run)
    if session.as_json:
        print_json(outcome_json(run, result))
    else:
        print_outcome(run, result)
    return EXIT_CODES[run.state]


def run_interruptibly(follower: Follower, body: Callable[[], Awaitable[int | None]]) -> int | None:
    """Run the body; Ctrl-C leaves the run alone and prints how to follow it again."""

    async def awaited() -> int | None:
        return await body()

    try:
        return asyncio.run(awaited())
    except KeyboardInterrupt:
        if follower.run_id is not None:
            print_message(
                f"\nStopped watching; run {follower.run_id} goes on. "
                f"Follow it again with:\n  {follower.resume_command()}"
            )
        raise typer.Exit(INTERRUPTED) from None
