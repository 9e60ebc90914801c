"""How long a call is tried again, and how long it waits between two tries."""

from __future__ import annotations

import contextlib
import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from murmur_streams.client.answers import Answer, LostError
from murmur_streams.client.errors import ReceivedProblem, error_of
from murmur_streams.client.requests import Ask
from murmur_streams.core.json_values import decode_json
from murmur_streams.core.model.errors import (
    InvalidInputError,
    OutcomeUnknownError,
    StoreUnavailableError,
)
from murmur_streams.wire.problems import DAMAGED, IN_FLIGHT, UNKNOWN

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
                raise InvalidInputError(f"{name} is {getattr(self, name)}, but must be positive")
        if not self.retry_seconds >= 0:
            raise InvalidInputError(
                f"retry_seconds is {self.retry_seconds}, but must not be negative"
            )
        if self.max_response_bytes < 1:
            raise InvalidInputError("max_response_bytes must be positive")


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
            return self.wait_after(OutcomeUnknownError(text))
        return self.wait_after(StoreUnavailableError(str(lost)))

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
    return ReceivedProblem(
        answer.status,
        document if isinstance(document, dict) else {},
        answer.headers.get("x-request-id"),
        ask.run_id,
        ask.target,
        ask.key,
    )


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
