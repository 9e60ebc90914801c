"""``murmur-streams cancel RUN``."""

from __future__ import annotations

from typing import Annotated

import typer

from murmur_streams.cli.shell.command import FAILED, command, message_on_interrupt
from murmur_streams.cli.shell.options import RunId, seconds_of
from murmur_streams.cli.shell.run_source import open_run_source
from murmur_streams.cli.shell.session import Session
from murmur_streams.core.model.states import RunState
from murmur_streams.core.rules.evolve import Cancellation

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


@command("cancel", over_http=True)
async def cancel(session: Session, run: RunId, reason: Reason = None, wait: Wait = None) -> None:
    """Cancel a run, and print the outcome.

    A waiting run never starts. A running one is notified at once, has its agent's grace time
    to clean up, and ends cancelled whatever it does. Exit code 0 when it is cancelled or will
    be; 1 when it had ended otherwise, or --wait was too short. When its worker is gone, it ends
    as soon as another one is there.

    Examples:
        murmur-streams cancel my-run
        murmur-streams cancel my-run --reason "wrong customer" --wait 30
    """
    missing = None
    with message_on_interrupt(
        lambda: f"Stopped waiting; `murmur-streams show {run}` prints what became of it."
    ):
        async with open_run_source(session) as source:
            found = await source.handle(run).cancel(
                reason=reason, wait=False if wait is None else wait
            )
            if not found.state.is_terminal and found.delivered is None:
                missing = await source.missing_worker(run)
    session.print(_as_json(run, found), _describe(run, found, missing))
    is_pending = wait is None and not found.state.is_terminal
    if found.state is not RunState.CANCELLED and not is_pending:
        raise typer.Exit(FAILED)


def _as_json(run_id: str, found: Cancellation) -> dict[str, str | None]:
    moments = (found.requested, found.delivered, found.stopped)
    texts = [moment and moment.isoformat() for moment in moments]
    return {
        "run_id": run_id,
        "state": str(found.state),
        **dict(zip(("requested", "delivered", "stopped"), texts, strict=True)),
        "how": found.how,
    }


def _describe(run_id: str, found: Cancellation, missing: str | None) -> str:
    if found.state is RunState.CANCELLED:
        how = STOPPED_BY.get(found.how or "")
        return f"{run_id} is cancelled" + (f": {how}" if how else "")
    if found.state.is_terminal:
        return f"{run_id} had ended before: {found.state}"
    progress = "its handler has been notified" if found.delivered else missing or REQUESTED
    return f"{run_id} will be cancelled: {progress}"
