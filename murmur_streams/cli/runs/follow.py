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
from murmur_streams.cli.shell.printing import console, event_json, event_line, print_json, tell
from murmur_streams.cli.shell.run_source import Place
from murmur_streams.cli.shell.session import Session
from murmur_streams.core.redaction import redacted


@dataclass
class Follower:
    """Prints a run's events as they come, and remembers how far it got."""

    session: Session
    run_id: str | None = None
    cursor: str | None = None

    async def follow(self, place: Place, run_id: str) -> None:
        """Print every event after the cursor, until the run's stream ends."""
        self.run_id = run_id
        screen = console()
        async with aclosing(place.stream(run_id, after=self.cursor)) as events:
            async for event in events:
                if self.session.as_json:
                    print_json(event_json(event))
                else:
                    screen.print(event_line(event))
                self.cursor = event.id

    def how_to_go_on(self) -> str:
        """The command that follows the run from here."""
        words = ["murmur-streams", "tail", self.run_id or ""]
        words += ["--after", self.cursor] if self.cursor else []
        given = self.session.given
        words += ["--prefix", given.prefix] if given.prefix else []
        words += ["--url", redacted(given.url)] if given.url else []
        words += ["--server", redacted(given.server)] if given.server else []
        words += ["--token-file", str(given.token_file)] if given.token_file else []
        return shlex.join(words)


async def follow_to_end(session: Session, place: Place, follower: Follower, run_id: str) -> int:
    """Print a run's events, then its outcome; returns the exit code."""
    await follower.follow(place, run_id)
    run = await place.snapshot(run_id)
    result = await place.result(run)
    if session.as_json:
        print_json(outcome_json(run, result))
    else:
        print_outcome(run, result)
    return EXIT_CODES[run.state]


def run_interruptibly(follower: Follower, body: Callable[[], Awaitable[int | None]]) -> int | None:
    """Run to the end; Ctrl-C leaves the run alone and says how to follow it again."""

    async def awaited() -> int | None:
        return await body()

    try:
        return asyncio.run(awaited())
    except KeyboardInterrupt:
        if follower.run_id is not None:
            tell(
                f"\nStopped watching; run {follower.run_id} goes on. "
                f"Follow it again with:\n  {follower.how_to_go_on()}"
            )
        raise typer.Exit(INTERRUPTED) from None
