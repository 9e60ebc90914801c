"""The calls of a client, each as steps that a shell executes; see ``steps``. No I/O."""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from murmur_streams.client import answers, requests
from murmur_streams.client.answers import RunEventPage, RunJournalPage, Ticket, read
from murmur_streams.client.patience import Patience, Retrying, answered
from murmur_streams.client.steps import Ask, Steps, Wait
from murmur_streams.core.exception_text import error_message, error_traceback, error_type_name
from murmur_streams.core.model.entries import JournalEntry
from murmur_streams.core.model.errors import (
    MurmurError,
    OutcomeUnknownError,
    RemoteAgentError,
    RunCancelledError,
    RunExistsError,
    RunFailedError,
    RunNotFoundError,
    RunNotTerminalError,
)
from murmur_streams.core.model.identifiers import new_run_id
from murmur_streams.core.model.pages import RunPage, check_listing
from murmur_streams.core.model.results import AgentResult, GroupResult, RunResult
from murmur_streams.core.model.run import Run
from murmur_streams.core.model.states import RunState, RunStatus
from murmur_streams.core.rules.cancellation import Cancellation
from murmur_streams.wire.answers import result_of
from murmur_streams.wire.run_json import run_of
from murmur_streams.wire.submit_options import ClientSubmitOptions

T = TypeVar("T")

logger = logging.getLogger("murmur_streams.client")

WAIT_SECONDS = 25.0
"""How long one request waits on the server; many proxies end a request after 30 seconds or more."""
LOOK_SECONDS = 0.1
"""The least time between two requests, for servers that wait less than they were asked to."""
MOST_ENTRIES = 500


@dataclass(frozen=True, slots=True)
class AcceptedRun:
    """A run that the server has accepted."""

    run_id: str
    warning: str | None
    """The server's warning, such as that no live worker serves the target."""


def submit(
    patience: Patience, target: str, given: object, options: ClientSubmitOptions
) -> Steps[AcceptedRun]:
    """Submit a run once, however often the request has to be sent.

    Without an id and a key of the caller, the client draws a key, so that the server recognizes
    a second request as the same submission.
    """
    run_id = options.get("run_id")
    if run_id is None and options.get("idempotency_key") is None:
        options = {**options, "idempotency_key": new_run_id()}
    retrying = Retrying(patience)
    try:
        answer = yield from answered(requests.submit(target, given, **options), retrying)
    except RunExistsError:
        if run_id is None or not retrying.is_unclear:
            raise
        raise OutcomeUnknownError(
            f"an answer was lost, and then run_id {run_id!r} was taken: by this submission or by "
            "one before it; with an idempotency_key instead, this could be known"
        ) from None
    warning = answer.headers.get("murmur-warning")
    if warning is not None:
        logger.warning("%s", ascii(warning)[1:-1])
    return AcceptedRun(read(answer, answers.run_id_of), warning)


def status(patience: Patience, run_id: str) -> Steps[RunStatus]:
    """State and progress."""
    return (yield from _read(patience, requests.status(run_id), answers.status_of))


def snapshot(patience: Patience, run_id: str) -> Steps[Run]:
    """Everything about a run that the server shows."""
    return (yield from _read(patience, requests.snapshot(run_id), run_of))


def events(
    patience: Patience, run_id: str, after: str | None, limit: int | None, wait: float
) -> Steps[RunEventPage]:
    """A page of events."""
    ask = requests.events(run_id, after, limit, wait)
    return (yield from _read(patience, ask, answers.events_of))


def journal(
    patience: Patience, run_id: str, after: str | None, limit: int
) -> Steps[RunJournalPage]:
    """A page of a journal."""
    ask = requests.journal(run_id, after, limit)
    return (yield from _read(patience, ask, partial(answers.journal_of, run_id)))


def last_entries(patience: Patience, run_id: str, count: int) -> Steps[list[JournalEntry]]:
    """The newest entries of a journal, oldest first: read to its end, for want of a route."""
    newest: deque[JournalEntry] = deque(maxlen=count)
    cursor: str | None = None
    while True:
        page = yield from journal(patience, run_id, cursor, MOST_ENTRIES)
        newest.extend(page.entries)
        cursor = page.cursor
        if cursor is None or not page.entries:
            return list(newest)


def list_runs(
    patience: Patience, state: RunState | None, target: str | None, limit: int, cursor: str | None
) -> Steps[RunPage]:
    """A page of runs, newest first."""
    check_listing(limit, cursor)
    ask = requests.list_runs(state, target, limit, cursor)
    return (yield from _read(patience, ask, answers.page_of))


def agents(patience: Patience) -> Steps[list[str]]:
    """The names of the agents."""
    return (yield from _read(patience, requests.agents(), answers.names_of))


def ticket(patience: Patience, run_id: str) -> Steps[Ticket]:
    """A ticket for the run's stream."""
    return (yield from _read(patience, requests.ticket(run_id), answers.ticket_of))


def delete(patience: Patience, run_id: str, *, force: bool) -> Steps[None]:
    """Delete a run. A 404 after a lost answer means that the first request deleted it."""
    retrying = Retrying(patience)
    try:
        yield from answered(requests.delete(run_id, force=force), retrying)
    except RunNotFoundError:
        if not retrying.is_unclear:
            raise


def result(patience: Patience, run_id: str, timeout: float | None) -> Steps[AgentResult[Any]]:
    """Wait for the end, then read the result of one agent."""
    found = yield from any_result(patience, run_id, timeout)
    if isinstance(found, GroupResult):
        raise MurmurError(
            f"run {run_id!r} left the result of a group, and a handle reads an agent's"
        )
    return found


def any_result(patience: Patience, run_id: str, timeout: float | None) -> Steps[RunResult]:
    """Wait for the end, then read the result."""
    until = None if timeout is None else patience.now() + timeout
    cursor: str | None = None
    while True:
        found = yield from _result_or_none(patience, run_id, until)
        if found is not None:
            return found
        if until is not None and patience.now() >= until:
            raise TimeoutError(f"run {run_id!r} has not ended within {timeout:g} seconds")
        cursor = yield from _some_time(patience, run_id, cursor, until)


def output(patience: Patience, run_id: str, timeout: float | None) -> Steps[Any]:
    """Wait for the end, then the output, or the error instead."""
    found = yield from result(patience, run_id, timeout)
    if found.error is None:
        return found.output
    if isinstance(found.error, RunCancelledError):
        raise found.error
    error = found.error
    raise RunFailedError(
        run_id, error_message(error), error_type_name(error), error_traceback(error)
    )


def cancel(
    patience: Patience, run_id: str, reason: str | None, wait: float | bool
) -> Steps[Cancellation]:
    """Ask that a run end cancelled; how far that has come."""
    until = _until(patience, wait)
    while True:
        left = math.inf if until is None else until - patience.now()
        asked = None if wait is False else math.ceil(max(0.0, min(left, WAIT_SECONDS)))
        began = patience.now()
        answer = yield from answered(requests.cancel(run_id, reason, asked), Retrying(patience))
        run = yield from snapshot(patience, run_id)
        found = read(answer, partial(answers.cancellation_of, run=run))
        is_late = until is not None and patience.now() >= until
        if wait is False or found.state.is_terminal or is_late:
            return found
        if patience.now() - began < LOOK_SECONDS:
            yield Wait(LOOK_SECONDS)


def _until(patience: Patience, wait: float | bool) -> float | None:
    if isinstance(wait, bool):
        return None
    requests.checked_seconds("wait", wait)
    return patience.now() + wait


def _read(
    patience: Patience, ask: Ask, reader: Callable[[Any], T], until: float | None = None
) -> Steps[T]:
    answer = yield from answered(ask, Retrying(patience, until))
    return read(answer, reader)


def _result_or_none(
    patience: Patience, run_id: str, until: float | None
) -> Steps[RunResult | None]:
    try:
        answer = yield from answered(requests.result(run_id), Retrying(patience, until))
    except RunNotTerminalError:
        return None
    found = read(answer, result_of)
    if isinstance(found, GroupResult) or not isinstance(found.error, RemoteAgentError):
        return found
    run = yield from snapshot(patience, run_id)
    if run.state is not RunState.CANCELLED:
        return found
    # A cancelled run has no result: the server made this answer from its state.
    return found.model_copy(update={"error": run.error_without_result})


def _some_time(
    patience: Patience, run_id: str, cursor: str | None, until: float | None
) -> Steps[str | None]:
    """Wait until the run may have ended; the cursor for the next wait."""
    began = patience.now()
    if cursor is None:
        run = yield from _read(patience, requests.snapshot(run_id), run_of, until)
        if run.state.is_terminal:
            return None
        cursor = run.cursor
    left = WAIT_SECONDS if until is None else max(0.0, min(WAIT_SECONDS, until - patience.now()))
    ask = requests.events(run_id, cursor, MOST_ENTRIES, left)
    page = yield from _read(patience, ask, answers.events_of, until)
    if not page.events and patience.now() - began < LOOK_SECONDS:
        yield Wait(min(LOOK_SECONDS, left))
    return page.cursor or cursor
