"""``murmur-streams submit TARGET [INPUT]`` and ``retry RUN``."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Annotated, cast

import typer
from pydantic import JsonValue

from murmur_streams.cli.runs.watch import Follower
from murmur_streams.cli.shell import run_source
from murmur_streams.cli.shell.command import command
from murmur_streams.cli.shell.load_fleet import open_fleet
from murmur_streams.cli.shell.options import AgentName, RunId, moment_of, option, seconds_of
from murmur_streams.cli.shell.printing import print_message
from murmur_streams.cli.shell.session import Session
from murmur_streams.core.model.errors import InvalidPayloadError
from murmur_streams.core.rules.requests import MOST_PRIORITY
from murmur_streams.wire.requests import SubmitOptions

Input = Annotated[
    str | None,
    typer.Argument(metavar="[INPUT]", help="The input as JSON; - reads it from stdin."),
]
Follow = Annotated[
    bool, typer.Option("--follow", "-f", help="Print its events until it ends, then its result.")
]
NewRunId = Annotated[
    str | None,
    typer.Option("--run-id", metavar="ID", help="The new run's id. Default: a random one."),
]


@dataclass(frozen=True, slots=True)
class SubmitFlags:
    """The options of a submission, by the names of SubmitOptions."""

    run_id: str | None = option(metavar="ID", help="The run's id. Default: a random one.")
    app: str | None = option(
        metavar="MODULE:FLEET",
        help="Check target and input against this fleet first, and take the agent's deadline.",
    )
    delay: float | None = option(
        metavar="TIME", parser=seconds_of, help="Begin after so long, such as 90 or 5m."
    )
    at: datetime | None = option(
        metavar="MOMENT",
        parser=moment_of,
        help="Begin then: 2030-01-31T09:00, in this machine's zone unless it names one.",
    )
    priority: int = option(
        default=0,
        min=-MOST_PRIORITY,
        max=MOST_PRIORITY,
        help="A step is worth a minute of waiting, so that nothing starves.",
    )
    deadline: float | None = option(
        metavar="TIME",
        parser=seconds_of,
        help="Fail it when it has not ended so long after it may begin, retries included. "
        "Default: the agent's, which is only known with --app; else none.",
    )
    idempotency_key: str | None = option(
        metavar="KEY", help="The same key and input again is the same run, and not another one."
    )

    def options(self) -> SubmitOptions:
        """The options without the app, which is not a part of the submission."""
        given = asdict(self)
        del given["app"]
        return SubmitOptions(**given)


@command("submit", over_http=True)
async def submit(
    session: Session,
    target: AgentName,
    given: Input = None,
    follow: Follow = False,
    *,
    flags: SubmitFlags,
) -> None:
    """Submit a run to any worker that serves TARGET, and print its id.

    With --follow the exit code shows how it ended: 0 completed, 1 failed, 3 cancelled. Ctrl-C
    leaves the run alone and prints how to follow it again.

    Examples:
        murmur-streams submit researcher '{"text": "why?"}' --follow
        murmur-streams submit researcher - < question.json
        murmur-streams submit researcher '{}' --app app:fleet --run-id monday-1 --json
        murmur-streams submit report --at 2030-01-31T09:00 --deadline 2h
        murmur-streams submit invoice '{"order": 7}' --idempotency-key order-7
    """
    value = read_input(given)
    run_source.print_own_warnings()
    async with run_source.open_run_source(session, flags.app, may_be_new=True) as source:
        new_id, warning = await source.submit(target, value, flags.options())
        session.print({"run_id": new_id, "target": target, "submitted": True}, new_id)
        _print_warning(session, warning)
        if follow:
            raise typer.Exit(await Follower(session, new_id).follow_to_end(source))


@command("retry")
async def retry(
    session: Session, run: RunId, follow: Follow = False, run_id: NewRunId = None
) -> None:
    """Submit a failed or cancelled run again: a new run with the same input. Prints its id.

    Called twice, it makes two runs; with --run-id, the second call is refused.

    With --follow the exit code shows how the new run ended, as for submit.

    Examples:
        murmur-streams retry my-run
        murmur-streams retry my-run --follow
        murmur-streams retry my-run --run-id my-run-2
    """
    run_source.print_own_warnings()
    async with open_fleet(session) as fleet:
        handle = await fleet.retry(run, new_run_id=run_id)
        new_id = handle.run_id
        session.print({"run_id": new_id, "retry_of": run, "submitted": True}, new_id)
        _print_warning(session, await handle.unserved(run_source.UNSERVED_SECONDS))
        if follow:
            raise typer.Exit(
                await Follower(session, new_id).follow_to_end(run_source.RunSource(fleet))
            )


def _print_warning(session: Session, warning: str | None) -> None:
    if warning is not None and session.as_json:
        print(json.dumps({"warning": warning}), file=sys.stderr, flush=True)
    elif warning is not None:
        print_message(f"murmur-streams: {warning}")


def read_input(given: str | None) -> JsonValue:
    """The input's JSON, from the command line or from stdin.

    Raises:
        InvalidPayloadError: it is not JSON; the text shows how to write a string.
    """
    text = sys.stdin.read() if given == "-" else given
    if text is None:
        return None
    try:
        # Windows tools put a byte order mark before what they pipe.
        return cast("JsonValue", json.loads(text.removeprefix("\ufeff")))
    except RecursionError:
        raise InvalidPayloadError("the input is nested more than 100 levels deep") from None
    except ValueError as error:
        hint = f"; a text is written as '{json.dumps(text)}'" if given != "-" else ""
        raise InvalidPayloadError(f"the input is not JSON: {error}{hint}") from None
