"""``murmur-streams result RUN``."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Annotated

import typer

from murmur_streams.cli.shell.command import EXIT_CODES, INTERRUPTED, RunId, command
from murmur_streams.cli.shell.outcome import failure_text, outcome_json, print_pretty, result_json
from murmur_streams.cli.shell.printing import print_json, print_message
from murmur_streams.cli.shell.run_source import open_run_source
from murmur_streams.cli.shell.session import Session
from murmur_streams.core.model.errors import MurmurError
from murmur_streams.core.model.results import RunResult
from murmur_streams.core.model.run import Run
from murmur_streams.core.model.states import RunState

Wait = Annotated[
    bool, typer.Option("--wait", help="Wait until it has ended; Ctrl-C leaves it running.")
]


class RunNotEndedError(MurmurError):
    """The run has no result yet."""


def register(app: typer.Typer) -> None:
    """Add the command."""

    @command(
        app,
        "result",
        over_http=True,
        examples=(
            "murmur-streams result my-run --wait",
            "murmur-streams result my-run | jq .answer",
        ),
    )
    def result(session: Session, run: RunId, wait: Wait = False) -> None:
        """Print the output of a run as JSON; its error goes to stderr.

        Exit code 0 when it completed, 1 when it failed, 3 when it was cancelled, 2 when it has
        not ended yet.
        """
        try:
            found, left = asyncio.run(_read(session, run, wait=wait))
        except KeyboardInterrupt:
            print_message(f"\nStopped waiting; run {run} goes on.")
            raise typer.Exit(INTERRUPTED) from None
        if session.as_json:
            print_json(outcome_json(found, left))
        else:
            _print(found, left)
        raise typer.Exit(EXIT_CODES[found.state])


async def _read(session: Session, run_id: str, *, wait: bool) -> tuple[Run, RunResult | None]:
    async with open_run_source(session) as source:
        run = await source.snapshot(run_id)
        if not run.state.is_terminal and not wait:
            raise RunNotEndedError(
                f"run {run_id!r} is {run.state} and has no result yet; --wait waits for it"
            )
        if not run.state.is_terminal:
            async with aclosing(source.stream(run_id, after=None)) as events:
                async for _ in events:
                    pass
            run = await source.snapshot(run_id)
        return run, await source.result(run)


def _print(run: Run, result: RunResult | None) -> None:
    found = result_json(result)
    if found is not None and "outputs" in found:
        print_pretty({name: leaf["output"] for name, leaf in found["outputs"].items()})
    elif found is not None and run.state is RunState.COMPLETED:
        print_pretty(found["output"])
    if run.state is RunState.COMPLETED:
        return
    text = failure_text(run, result) or run.cancel_reason
    print_message(f"{run.state}: {text}" if text else str(run.state))
