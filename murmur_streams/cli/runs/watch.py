"""``murmur-streams tail RUN`` and ``result RUN``, and the follower of ``submit`` and ``retry``."""

from __future__ import annotations

import shlex
from contextlib import aclosing
from dataclasses import dataclass
from typing import Annotated

import typer

from murmur_streams.cli.shell import printing
from murmur_streams.cli.shell.command import EXIT_CODES, command, message_on_interrupt
from murmur_streams.cli.shell.options import RunId
from murmur_streams.cli.shell.run_source import RunSource, open_run_source
from murmur_streams.cli.shell.session import Session
from murmur_streams.core.model.errors import MurmurError
from murmur_streams.core.model.results import GroupResult, RunResult
from murmur_streams.core.model.run import Run
from murmur_streams.core.model.states import RunState

After = Annotated[
    str | None,
    typer.Option(
        "--after", metavar="CURSOR", help="Go on after this event: its id, as --json prints it."
    ),
]
Wait = Annotated[
    bool, typer.Option("--wait", help="Wait until it has ended; Ctrl-C leaves it running.")
]


class RunNotEndedError(MurmurError):
    """The run has no result yet."""


@dataclass
class Follower:
    """Prints a run's events as they come, and keeps the cursor of the last one.

    Ctrl-C leaves the run alone and prints how to follow it again.
    """

    session: Session
    run_id: str
    cursor: str | None = None

    async def follow(self, source: RunSource) -> None:
        """Print every event after the cursor, until the run's stream ends."""
        screen = printing.console()
        with message_on_interrupt(self._resumable):
            async with aclosing(source.handle(self.run_id).stream(after=self.cursor)) as events:
                async for event in events:
                    if self.session.as_json:
                        printing.print_json(event.model_dump(mode="json", exclude_none=True))
                    else:
                        screen.print(printing.event_line(event))
                    self.cursor = event.id

    async def follow_to_end(self, source: RunSource) -> int:
        """Print the run's events, then its outcome; returns the exit code."""
        await self.follow(source)
        with message_on_interrupt(self._resumable):
            run = await source.handle(self.run_id).snapshot()
            result = await source.result(run)
        if self.session.as_json:
            printing.print_json(printing.outcome_json(run, result))
        else:
            printing.print_outcome(run, result)
        return EXIT_CODES[run.state]

    def resume_command(self) -> str:
        """The command that continues to follow the run."""
        after = ["--after", self.cursor] if self.cursor else []
        given = self.session.given.argv()
        return shlex.join(["murmur-streams", "tail", self.run_id, *after, *given])

    def _resumable(self) -> str:
        return (
            f"Stopped watching; run {self.run_id} goes on. "
            f"Follow it again with:\n  {self.resume_command()}"
        )


@command("tail", over_http=True)
async def tail(session: Session, run: RunId, after: After = None) -> None:
    """Print a run's events: those so far, then live ones until it ends.

    Ctrl-C leaves the run alone and prints how to continue from there. With --json: one event a
    line.

    Examples:
        murmur-streams tail my-run
        murmur-streams tail my-run --json | jq .data
        murmur-streams tail my-run --after 0a1b2c3d-1700000000000-17
    """
    async with open_run_source(session) as source:
        await Follower(session, run, after).follow(source)


@command("result", over_http=True)
async def result(session: Session, run: RunId, wait: Wait = False) -> None:
    """Print the output of a run as JSON; its error goes to stderr.

    Exit code 0 when it completed, 1 when it failed, 3 when it was cancelled, 2 when it has
    not ended yet.

    Examples:
        murmur-streams result my-run --wait
        murmur-streams result my-run | jq .answer
    """
    with message_on_interrupt(lambda: f"Stopped waiting; run {run} goes on."):
        async with open_run_source(session) as source:
            found = await _ended(source, run, wait=wait)
            left = await source.result(found)
    if session.as_json:
        printing.print_json(printing.outcome_json(found, left))
    else:
        _print(found, left)
    raise typer.Exit(EXIT_CODES[found.state])


async def _ended(source: RunSource, run_id: str, *, wait: bool) -> Run:
    handle = source.handle(run_id)
    run = await handle.snapshot()
    if run.state.is_terminal:
        return run
    if not wait:
        raise RunNotEndedError(
            f"run {run_id!r} is {run.state} and has no result yet; --wait waits for it"
        )
    async with aclosing(handle.stream()) as events:
        async for _ in events:
            pass
    return await handle.snapshot()


def _print(run: Run, result: RunResult | None) -> None:
    is_completed = run.state is RunState.COMPLETED
    if isinstance(result, GroupResult) or (result is not None and is_completed):
        printing.print_pretty(printing.output_of(result))
    if not is_completed:
        text = printing.failure_text(run, result) or run.cancel_reason
        printing.print_message(f"{run.state}: {text}" if text else str(run.state))
