"""``murmur-streams cancel RUN``."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from murmur_streams.cli.shell.command import FAILED, INTERRUPTED, RunId, command
from murmur_streams.cli.shell.durations import seconds_of
from murmur_streams.cli.shell.printing import print_json, print_message
from murmur_streams.cli.shell.run_source import open_run_source
from murmur_streams.cli.shell.session import Session
from murmur_streams.core.model.states import RunState
from murmur_streams.core.rules.cancellation import Cancellation

REQUESTED = "its worker is being notified"
STOPPED_BY = {
    "handler": "its handler ended",
    "grace": "its handler did not end, and was left behind",
    "pending": "it was not running",
    "worker_lost": "its worker was gone",
}

Reason = Annotated[
    str | None,
    typer.Option("--reason", metavar="TEXT", help="The reason, for people; stored with the run."),
]
Wait = Annotated[
    float | None,
    typer.Option(
        "--wait",
        metavar="TIME",
        parser=seconds_of,
        help="Wait so long for its end, such as 30 or 5m.",
    ),
]


def register(app: typer.Typer) -> None:
    """Add the command."""

    @command(
        app,
        "cancel",
        over_http=True,
        examples=(
            "murmur-streams cancel my-run",
            'murmur-streams cancel my-run --reason "wrong customer" --wait 30',
        ),
    )
    def cancel(session: Session, run: RunId, reason: Reason = None, wait: Wait = None) -> None:
        """Cancel a run, and print the outcome.

        A waiting run never starts. A running one is notified at once, has its agent's grace time
        to clean up, and ends cancelled whatever it does. Exit code 0 when it is cancelled or will
        be; 1 when it had ended otherwise, or --wait was too short. When its worker is gone, it ends
        as soon as another one is there.
        """
        try:
            found, missing = asyncio.run(_cancel(session, run, reason, wait))
        except KeyboardInterrupt:
            print_message(
                f"\nStopped waiting; `murmur-streams show {run}` prints what became of it."
            )
            raise typer.Exit(INTERRUPTED) from None
        if session.as_json:
            print_json(_as_json(run, found))
        else:
            print(_describe(run, found, missing))
        if not _is_well(found, waited=wait is not None):
            raise typer.Exit(FAILED)


async def _cancel(
    session: Session, run_id: str, reason: str | None, wait: float | None
) -> tuple[Cancellation, str | None]:
    """The cancellation, and why the run's worker seems to be gone if it does."""
    async with open_run_source(session) as source:
        found = await source.cancel(run_id, reason=reason, wait=False if wait is None else wait)
        is_delivered = found.state.is_terminal or found.delivered is not None
        return found, None if is_delivered else await source.missing_worker(run_id)


def _as_json(run_id: str, found: Cancellation) -> dict[str, str | None]:
    moments = {
        "requested": found.requested,
        "delivered": found.delivered,
        "stopped": found.stopped,
    }
    texts = {name: moment and moment.isoformat() for name, moment in moments.items()}
    return {"run_id": run_id, "state": str(found.state), **texts, "how": found.how}


def _is_well(found: Cancellation, *, waited: bool) -> bool:
    return found.state is RunState.CANCELLED or not (waited or found.state.is_terminal)


def _describe(run_id: str, found: Cancellation, missing: str | None) -> str:
    if found.state is RunState.CANCELLED:
        how = STOPPED_BY.get(found.how or "")
        return f"{run_id} is cancelled" + (f": {how}" if how else "")
    if found.state.is_terminal:
        return f"{run_id} had ended before: {found.state}"
    progress = "its handler has been notified" if found.delivered else missing or REQUESTED
    return f"{run_id} will be cancelled: {progress}"
