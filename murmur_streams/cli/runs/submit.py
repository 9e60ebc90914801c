"""``murmur-streams submit TARGET [INPUT]``."""

from __future__ import annotations

import json
import sys
from datetime import datetime
from typing import Annotated, cast

import typer
from pydantic import JsonValue

from murmur_streams.cli.runs.follow import Follower, follow_to_end, run_interruptibly
from murmur_streams.cli.shell.command import command
from murmur_streams.cli.shell.durations import moment_of, seconds_of
from murmur_streams.cli.shell.load_fleet import App
from murmur_streams.cli.shell.printing import print_json, print_message
from murmur_streams.cli.shell.run_source import SubmittedRun, open_run_source, print_own_warnings
from murmur_streams.cli.shell.session import Session
from murmur_streams.core.model.errors import InvalidPayloadError
from murmur_streams.core.rules.requests import MOST_PRIORITY
from murmur_streams.wire.submit_options import SubmitOptions

Target = Annotated[str, typer.Argument(metavar="TARGET", help="The agent's name.")]
Input = Annotated[
    str | None,
    typer.Argument(metavar="[INPUT]", help="The input as JSON; - reads it from stdin."),
]
Follow = Annotated[
    bool, typer.Option("--follow", "-f", help="Print its events until it ends, then its result.")
]
RunIdOption = Annotated[
    str | None, typer.Option("--run-id", metavar="ID", help="The run's id. Default: a random one.")
]
Delay = Annotated[
    float | None,
    typer.Option(
        "--delay", metavar="TIME", parser=seconds_of, help="Begin after so long, such as 90 or 5m."
    ),
]
At = Annotated[
    datetime | None,
    typer.Option(
        "--at",
        metavar="MOMENT",
        parser=moment_of,
        help="Begin then: 2030-01-31T09:00, in this machine's zone unless it names one.",
    ),
]
Priority = Annotated[
    int,
    typer.Option(
        "--priority",
        min=-MOST_PRIORITY,
        max=MOST_PRIORITY,
        help="A step is worth a minute of waiting, so that nothing starves.",
    ),
]
Deadline = Annotated[
    float | None,
    typer.Option(
        "--deadline",
        metavar="TIME",
        parser=seconds_of,
        help="Fail it when it has not ended so long after it may begin, retries included. "
        "Default: the agent's, which is only known with --app; else none.",
    ),
]
IdempotencyKey = Annotated[
    str | None,
    typer.Option(
        "--idempotency-key",
        metavar="KEY",
        help="The same key and input again is the same run, and not another one.",
    ),
]


EXAMPLES = (
    'murmur-streams submit researcher \'{"text": "why?"}\' --follow',
    "murmur-streams submit researcher - < question.json",
    "murmur-streams submit researcher '{}' --app app:fleet --run-id monday-1 --json",
    "murmur-streams submit report --at 2030-01-31T09:00 --deadline 2h",
    "murmur-streams submit invoice '{\"order\": 7}' --idempotency-key order-7",
)


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "submit", examples=EXAMPLES, over_http=True)(submit)


def submit(  # noqa: PLR0913, PLR0917  # one for each option
    session: Session,
    target: Target,
    given: Input = None,
    follow: Follow = False,
    run_id: RunIdOption = None,
    app: App = None,
    delay: Delay = None,
    at: At = None,
    priority: Priority = 0,
    deadline: Deadline = None,
    idempotency_key: IdempotencyKey = None,
) -> None:
    """Submit a run to any worker that serves TARGET, and print its id.

    With --follow the exit code shows how it ended: 0 completed, 1 failed, 3 cancelled. Ctrl-C
    leaves the run alone and prints how to follow it again.
    """
    value = read_input(given)
    options = SubmitOptions(
        run_id=run_id,
        delay=delay,
        at=at,
        priority=priority,
        deadline=deadline,
        idempotency_key=idempotency_key,
    )
    follower = Follower(session)
    print_own_warnings()

    async def body() -> int:
        async with open_run_source(session, app, may_be_new=True) as source:
            made = await source.submit(target, value, options)
            _print_submitted(session, made.run_id, target)
            warn(session, made)
            if not follow:
                return 0
            return await follow_to_end(session, source, follower, made.run_id)

    raise typer.Exit(run_interruptibly(follower, body) or 0)


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


def warn(session: Session, made: SubmittedRun) -> None:
    """Print the warning of a submission on stderr: a sentence, or JSON with --json."""
    if made.warning is not None and session.as_json:
        print(json.dumps({"warning": made.warning}), file=sys.stderr, flush=True)
    elif made.warning is not None:
        print_message(f"murmur-streams: {made.warning}")


def _print_submitted(session: Session, run_id: str, target: str) -> None:
    if session.as_json:
        print_json({"run_id": run_id, "target": target, "submitted": True})
    else:
        print(run_id, flush=True)
