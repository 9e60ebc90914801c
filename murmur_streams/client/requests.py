"""The requests of a client, made of checked arguments, and how long each is tried again. No I/O."""

from __future__ import annotations

import contextlib
import math
import random
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Unpack, cast
from urllib.parse import quote

from murmur_streams.client.answers import Answer, LostError, ReceivedProblem, error_of
from murmur_streams.core.json_values import decode_json, encode_json
from murmur_streams.core.model import errors
from murmur_streams.core.model.limits import check_run_id, check_seconds, check_target
from murmur_streams.core.model.run import ClientListOptions, check_listing
from murmur_streams.core.rules.requests import TRACE_NAMES
from murmur_streams.wire.problems import DAMAGED, IN_FLIGHT, UNKNOWN
from murmur_streams.wire.requests import LONGEST_HEADER_KEY, ClientSubmitOptions, submit_body

_KEY = re.compile(rf"[\x21-\x7e]{{1,{LONGEST_HEADER_KEY}}}")
EVENT_STREAM = "text/event-stream"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One request, without the server's address and the credentials."""

    method: str = "GET"
    path: str
    """Below the base URL, percent-encoded."""
    query: tuple[tuple[str, str], ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    body: bytes | None = None
    """JSON text."""
    wait_seconds: float = 0.0
    """How long the server may wait before it answers, because the request asks for that."""
    run_id: str = ""
    """The run that it is about, for the error."""
    target: str = ""
    key: str = ""
    """The idempotency key, for the error."""

    @property
    def is_read(self) -> bool:
        """Whether it changes nothing."""
        return self.method == "GET"


def submit(target: str, given: object, **options: Unpack[ClientSubmitOptions]) -> Ask:
    """POST /submit. The options are those of ``Fleet.submit``; and ``wait``, in seconds.

    Raises:
        InvalidInputError: an argument breaks a rule that needs no server.
    """
    body = submit_body(target, given, options)
    key, wait = options.get("idempotency_key"), options.get("wait")
    headers = _trace(options.get("trace") or {})
    if key is not None:
        headers["Idempotency-Key"] = _key(key)
    if wait is not None:
        headers["Prefer"] = _prefer(check_seconds("wait", wait, least=0))
    return Ask(
        method="POST",
        path="/submit",
        headers=headers,
        body=encode_json(body, "the submission").encode(),
        wait_seconds=wait or 0.0,
        run_id=options.get("run_id") or "",
        target=target,
        key=key or "",
    )


def of_run(run_id: str, rest: str, **parts: Any) -> Ask:
    """A request to /runs/{run_id} and the rest of the path; GET, without ``parts``."""
    return Ask(path=f"/runs/{quote(check_run_id(run_id), safe='')}{rest}", run_id=run_id, **parts)


def events(run_id: str, after: str | None, limit: int | None, wait: float) -> Ask:
    """GET /runs/{run_id}/events."""
    seconds = check_seconds("wait", wait, least=0)
    query = _query(after=after, limit=limit, wait=f"{seconds:g}" if seconds else None)
    return of_run(run_id, "/events", query=query, wait_seconds=seconds)


def journal(run_id: str, after: str | None, limit: int) -> Ask:
    """GET /runs/{run_id}/journal."""
    return of_run(run_id, "/journal", query=_query(after=after, limit=limit))


def cancel(run_id: str, reason: str | None, wait: float | None) -> Ask:
    """POST /runs/{run_id}/cancel."""
    if reason is not None and not isinstance(cast("object", reason), str):
        raise errors.InvalidInputError(f"reason is {reason!r}, but must be text")
    return of_run(
        run_id,
        "/cancel",
        method="POST",
        body=None if reason is None else encode_json({"reason": reason}, "the reason").encode(),
        headers={} if wait is None else {"Prefer": _prefer(wait)},
        wait_seconds=wait or 0.0,
    )


def delete(run_id: str, *, force: bool) -> Ask:
    """DELETE /runs/{run_id}."""
    return of_run(run_id, "", method="DELETE", query=(("force", "true"),) if force else ())


def list_runs(**options: Unpack[ClientListOptions]) -> Ask:
    """GET /runs."""
    # The token has the tenant: one that a caller passes is a second value, a TypeError.
    wanted, limit, cursor = check_listing(**options, tenant=None)
    query = _query(state=wanted.state, target=wanted.target, limit=limit, cursor=cursor)
    return Ask(path="/runs", query=query)


def stream(run_id: str, after: str | None) -> Ask:
    """GET /runs/{run_id}/stream."""
    return of_run(run_id, "/stream", query=(("control", "1"),), headers=_resumed(after))


def stream_many(run_ids: Iterable[str], after: str | None) -> Ask:
    """GET /stream."""
    runs = [("run", check_run_id(run_id)) for run_id in run_ids]
    if not runs:
        raise errors.InvalidInputError("stream_many needs the id of at least one run")
    return Ask(path="/stream", query=(*runs, ("control", "1")), headers=_resumed(after))


def feed(after: str | None, targets: Iterable[str], types: Iterable[str]) -> Ask:
    """GET /events/stream."""
    query = [("target", check_target(target)) for target in targets]
    query += [("type", str(each)) for each in types]
    return Ask(path="/events/stream", query=(*query, ("control", "1")), headers=_resumed(after))


def _query(**values: object) -> tuple[tuple[str, str], ...]:
    return tuple((name, str(value)) for name, value in values.items() if value is not None)


def _resumed(after: str | None) -> dict[str, str]:
    found = {"Accept": EVENT_STREAM, "Cache-Control": "no-store"}
    return found if after is None else {**found, "Last-Event-ID": _header("the cursor", after)}


def _prefer(seconds: float) -> str:
    # The header can only hold whole seconds.
    return f"wait={math.ceil(seconds)}"


def _trace(given: Mapping[str, str]) -> dict[str, str]:
    # A caller passes on these headers from outside: a bad one must not fail the submission.
    found = {name: given.get(name, "") for name in TRACE_NAMES}
    return {name: text for name, text in found.items() if text and _travels(text)}


def _key(key: str) -> str:
    """The key as the header's draft wants it: a quoted string of structured fields."""
    if not isinstance(cast("object", key), str) or not _KEY.fullmatch(key):
        raise errors.InvalidInputError(
            f"idempotency_key must be 1 to {LONGEST_HEADER_KEY} visible ASCII characters "
            "to travel by HTTP"
        )
    return '"' + re.sub(r'(["\\])', r"\\\1", key) + '"'


def _header(what: str, text: str) -> str:
    # httpx would change such text, or refuse it with an error that does not name the argument.
    if not _travels(text):
        raise errors.InvalidInputError(
            f"{what} is {ascii(text)[:60]}, but must be visible ASCII characters to travel by HTTP"
        )
    return text


def _travels(text: str) -> bool:
    return text.isascii() and text.isprintable() and text == text.strip()


FIRST_WAIT_SECONDS = 0.1
LONGEST_WAIT_SECONDS = 5.0
BUSY = frozenset({429, 502, 503, 504})
"""Statuses after which another try may succeed."""
_UNCLEAR = frozenset({502, 504})
"""Statuses of a proxy that has lost the answer: the server may have done what was asked."""
_SERVER_FAILURE = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """The times and sizes of one client. Times are seconds."""

    timeout_seconds: float = 30.0
    retry_seconds: float = 30.0
    silence_seconds: float = 45.0
    max_response_bytes: int = 64 * 1024 * 1024
    now: Callable[[], float] = time.monotonic
    # Only spreads the waits: it need not be hard to guess.
    draw: Callable[[], float] = random.random

    def __post_init__(self) -> None:
        for name in ("timeout_seconds", "silence_seconds"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise errors.InvalidInputError(
                    f"{name} is {getattr(self, name)}, but must be positive"
                )
        if not self.retry_seconds >= 0:
            raise errors.InvalidInputError(
                f"retry_seconds is {self.retry_seconds}, but must not be negative"
            )
        if self.max_response_bytes < 1:
            raise errors.InvalidInputError("max_response_bytes must be positive")


class Retrying:
    """The tries of one call, or of one stream since it was last answered.

    Args:
        patience: the client's.
        until: by ``patience.now``; no try begins after it. None: only ``retry_seconds`` count.
    """

    def __init__(self, patience: Patience, until: float | None = None) -> None:
        self.is_unclear = False
        """Whether a try without an answer may have been done."""
        self._patience = patience
        ends = patience.now() + patience.retry_seconds
        self._until = ends if until is None else min(until, ends)
        self._tries = 0

    def wait_after(self, error: BaseException, least: float | None = None) -> float:
        """Seconds until the next try. Raises the error when there is not enough time for one.

        Args:
            error: the outcome of the last try.
            least: the wait that the server asked for.
        """
        draw = self._patience.draw()
        wait = min(LONGEST_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2**self._tries) * (0.5 + draw / 2)
        self._tries = min(self._tries + 1, 10)
        if least is not None:
            # At least that, and a random part more: clients must not all return at once.
            wait = least * (1 + draw / 4)
        if self._patience.now() + wait > self._until:
            raise error
        return wait

    def wait_after_loss(self, ask: Ask, lost: LostError) -> float:
        """Seconds until the next try of a request without an answer.

        Raises:
            OutcomeUnknownError: too little time is left, and this try or an earlier one may have
                been done.
            StoreUnavailableError: too little time is left.
        """
        self.is_unclear |= lost.may_have_arrived and not ask.is_read
        if self.is_unclear:
            text = f"{lost}; the request was applied once, or not at all"
            return self.wait_after(errors.OutcomeUnknownError(text))
        return self.wait_after(errors.StoreUnavailableError(str(lost)))

    def wait_after_answer(self, ask: Ask, answer: Answer, *, also_failures: bool = False) -> float:
        """Seconds until the next try when it may change the answer. Else raises its exception.

        Args:
            ask: the request.
            answer: its answer, other than success.
            also_failures: whether every failure of the server is worth another try. For streams it
                is, because opening one changes nothing.
        """
        problem = problem_of(ask, answer)
        error = error_of(problem)
        may_change = answer.status in BUSY or problem.slug == IN_FLIGHT.slug
        if also_failures and answer.status >= _SERVER_FAILURE:
            may_change = problem.slug != DAMAGED.slug
        if not may_change:
            raise error
        unclear = answer.status in _UNCLEAR or problem.slug == UNKNOWN.slug
        self.is_unclear |= unclear and not ask.is_read
        return self.wait_after(error, retry_after(answer))


def problem_of(ask: Ask, answer: Answer) -> ReceivedProblem:
    """The problem in an answer, whatever its body holds."""
    document: object = None
    with contextlib.suppress(ValueError, RecursionError):
        document = decode_json(answer.body)
    members = document if isinstance(document, dict) else {}
    request_id = answer.headers.get("x-request-id")
    return ReceivedProblem(answer.status, members, request_id, ask.run_id, ask.target, ask.key)


def retry_after(answer: Answer) -> float | None:
    """The seconds in Retry-After, a number or a date; None without the header."""
    text = answer.headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    with contextlib.suppress(ValueError, TypeError):
        moment = parsedate_to_datetime(text)
        at = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return max(0.0, (at - datetime.now(UTC)).total_seconds())
    return None
