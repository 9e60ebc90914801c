"""``murmur-streams submit TARGET [INPUT]``."""

from __future__ import annotations

import json
import os
import sys
from typing import Annotated, cast

import typer
from pydantic import JsonValue

from murmur_streams.cli.command import CANCELLED, FAILED, command
from murmur_streams.cli.follow import Follower, run_interruptibly
from murmur_streams.cli.loading import load_fleet
from murmur_streams.cli.outcome import outcome_json, print_outcome
from murmur_streams.cli.printing import print_json
from murmur_streams.cli.session import RETRY_SECONDS, Session
from murmur_streams.core.errors import InvalidPayloadError
from murmur_streams.core.identifiers import new_run_id
from murmur_streams.core.states import RunState
from murmur_streams.fleet import Fleet
from murmur_streams.stores.redis.store import RedisRunStore

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
App = Annotated[
    str | None,
    typer.Option(
        "--app", metavar="MODULE:FLEET", help="Check target and input against this fleet first."
    ),
]

EXIT_CODES = {RunState.COMPLETED: 0, RunState.FAILED: FAILED, RunState.CANCELLED: CANCELLED}


def register(app: typer.Typer) -> None:
    """Add the command."""

    @command(
        app,
        "submit",
        examples=(
            'murmur-streams submit researcher \'{"text": "why?"}\' --follow',
            "murmur-streams submit researcher - < question.json",
            "murmur-streams submit researcher '{}' --app app:fleet --run-id monday-1 --json",
        ),
    )
    def submit(
        session: Session,
        target: Target,
        given: Input = None,
        follow: Follow = False,
        run_id: RunIdOption = None,
        app: App = None,
    ) -> None:
        """Submit a run to whatever worker serves TARGET, and print its id.

        With --follow the exit code tells how it ended: 0 completed, 1 failed, 3 cancelled. Ctrl-C
        leaves the run alone and prints how to follow it again.
        """
        value = read_input(given)
        chosen = run_id or new_run_id()
        follower = Follower(session)

        async def body() -> int:
            async with _fleet(session, app) as fleet:
                await fleet.submit(target, value, run_id=chosen)
                _print_submitted(session, chosen, target)
                if not follow:
                    return 0
                return await _follow(session, await fleet.store(), follower, chosen)

        raise typer.Exit(run_interruptibly(follower, body) or 0)


def read_input(given: str | None) -> JsonValue:
    """The input's JSON, from the command line or from stdin.

    Raises:
        InvalidPayloadError: it is no JSON; the text shows how a bare word would be written.
    """
    text = sys.stdin.read() if given == "-" else given
    if text is None:
        return None
    try:
        return cast("JsonValue", json.loads(text))
    except RecursionError:
        raise InvalidPayloadError("the input is nested more than 100 levels deep") from None
    except ValueError as error:
        hint = f"; a text is written as '{json.dumps(text)}'" if given != "-" else ""
        raise InvalidPayloadError(f"the input is no JSON: {error}{hint}") from None


def _fleet(session: Session, app: str | None) -> Fleet:
    """The user's fleet, which knows its agents and their inputs, or one that takes any name."""
    if app is None:
        return Fleet(session.url, key_prefix=session.prefix, retry_seconds=RETRY_SECONDS)
    os.environ.update(session.to_environment())
    return load_fleet(app)


def _print_submitted(session: Session, run_id: str, target: str) -> None:
    if session.as_json:
        print_json({"run_id": run_id, "target": target, "submitted": True})
    else:
        print(run_id, flush=True)


async def _follow(session: Session, store: RedisRunStore, follower: Follower, run_id: str) -> int:
    await follower.follow(store, run_id)
    run = await store.snapshot(run_id)
    result = await store.get_result(run_id)
    if session.as_json:
        print_json(outcome_json(run, result))
    else:
        print_outcome(run, result)
    return EXIT_CODES.get(run.state, FAILED)
