"""Decides whether a failed execution is retried: pure rules, without a clock or a store."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypedDict, cast

from murmur_streams.core.exception_text import cause_of, members_of
from murmur_streams.core.model.errors import InvalidInputError, MurmurError, NonRetryableError
from murmur_streams.core.model.limits import MAX_COUNT, check_seconds, is_number
from murmur_streams.core.rules.executions import DEADLINE_EXCEEDED

RETRIES_EXHAUSTED = "retries_exhausted"
NOT_RETRYABLE = "not_retryable"
FAILED = "failed"
RETRY_LATER = "retry_later"
LEAST_RETRY_LATER_SECONDS = 0.1
"""The shortest wait of a RetryLater."""
MANY_EXCUSED = 10
"""After so many excused executions, the shortest wait is ``LEAST_AFTER_MANY_SECONDS``."""
LEAST_AFTER_MANY_SECONDS = 1.0
SPARE_ATTEMPTS = 10
"""How many executions beyond its retries may end without a result, with dead or lost workers."""
MOST_RETRIES = 1_000_000


class RetryLater(MurmurError):  # noqa: N818  # a request and not an error
    """Raised by an agent: execute the run again later. The attempt does not count as a failure.

    The run waits for 0.1 s at least, and for 1 s once ten of its executions were not counted.

    Args:
        delay_seconds: how long to wait, at least 0.
        reason: a line for people, stored with the run.
    """

    def __init__(self, delay_seconds: float, reason: str | None = None) -> None:
        check_seconds("RetryLater's delay_seconds", delay_seconds, least=0)
        super().__init__(
            f"again in {delay_seconds:g} s" + (f": {reason}" if reason is not None else "")
        )
        self.delay_seconds = float(delay_seconds)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long to wait before a retry: longer after each failure, and by chance a little different.

    Args:
        first_seconds: the wait after the first failure.
        factor: by how much each wait is longer than the one before, from 1 on.
        most_seconds: the longest wait.
        jitter: 0 to 1, the random part of each wait: 0.5 waits for between half of it and all.

    Raises:
        InvalidInputError: a number is out of bounds.
    """

    first_seconds: float = 1.0
    factor: float = 2.0
    most_seconds: float = 300.0
    jitter: float = 0.5

    def __post_init__(self) -> None:
        check_seconds("Backoff's first_seconds", self.first_seconds, least=0)
        check_seconds("Backoff's most_seconds", self.most_seconds, least=0)
        if not (is_number(self.factor) and 1 <= self.factor <= MAX_COUNT):
            raise InvalidInputError(
                f"Backoff's factor is {self.factor!r}, but must be from 1 to {MAX_COUNT:,}"
            )
        if not (is_number(self.jitter) and 0 <= self.jitter <= 1):
            raise InvalidInputError(f"Backoff's jitter is {self.jitter!r}, but must be from 0 to 1")

    def delay_seconds(self, failures: int, draw: Callable[[], float]) -> float:
        """How long to wait.

        Args:
            failures: how many executions have failed, this one included.
            draw: returns a random number from 0 to 1.
        """
        try:
            whole = self.first_seconds * self.factor ** max(0, failures - 1)
        except OverflowError:
            whole = math.inf if self.first_seconds else 0.0
        return min(self.most_seconds, whole) * (1 - self.jitter * draw())


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How an agent's runs are executed: the options of ``@fleet.agent``, see there.

    Raises:
        InvalidInputError: an option is out of bounds; the text names it.
    """

    retries: int = 0
    timeout: float | None = None
    deadline: float | None = None
    backoff: Backoff | None = None
    never_retry: tuple[type[BaseException], ...] = ()
    max_attempts: int | None = None
    silent_after_seconds: float | None = None
    cancel_grace_seconds: float = 10.0

    def __post_init__(self) -> None:
        check_count("retries", self.retries, least=0)
        if self.max_attempts is not None:
            check_count("max_attempts", self.max_attempts, least=0)
        for name in ("timeout", "deadline", "silent_after_seconds"):
            if (seconds := getattr(self, name)) is not None:
                check_seconds(name, seconds, least=0.001)
        check_seconds("cancel_grace_seconds", self.cancel_grace_seconds, least=0)
        if self.backoff is not None and not isinstance(cast("object", self.backoff), Backoff):
            raise InvalidInputError(f"backoff is {self.backoff!r}, but must be a Backoff(…)")
        for kind in _as_tuple(self.never_retry):
            if not (isinstance(kind, type) and issubclass(kind, BaseException)):
                raise InvalidInputError(
                    f"never_retry holds {kind!r}, but must hold exception classes"
                )

    @property
    def most_attempts(self) -> int:
        """How many executions may begin; 0 for no limit."""
        return self.retries + SPARE_ATTEMPTS if self.max_attempts is None else self.max_attempts


class AgentOptions(TypedDict, total=False):
    """The keywords of ``@fleet.agent`` beside the name: the fields of a Policy."""

    retries: int
    timeout: float | None
    deadline: float | None
    backoff: Backoff | None
    never_retry: tuple[type[BaseException], ...]
    max_attempts: int | None
    silent_after_seconds: float | None
    cancel_grace_seconds: float


@dataclass(frozen=True, slots=True)
class Retry:
    """The run waits, and is executed again."""

    delay_seconds: float
    reason: str


@dataclass(frozen=True, slots=True)
class Dead:
    """The run fails, and goes to the dead letters."""

    reason: str


def decide_failure(
    error: BaseException,
    policy: Policy,
    *,
    earlier_failures: int,
    excused: int,
    left_seconds: float | None,
    draw: Callable[[], float],
) -> Retry | Dead:
    """Decide whether a run whose execution failed is retried.

    Args:
        error: the error that ended the execution.
        policy: the agent's policy.
        earlier_failures: how many executions had failed before this one.
        excused: how many earlier executions do not count as attempts.
        left_seconds: how long until the run's deadline; None for no deadline.
        draw: returns a random number from 0 to 1.

    Raises:
        BaseException: everything that the backoff raises, whose class may be the user's own.
    """
    later_seconds = _asked_seconds(error, (NonRetryableError, *_as_tuple(policy.never_retry)))
    if later_seconds == math.inf:
        return Dead(NOT_RETRYABLE)
    if later_seconds is not None:
        # Nothing else limits the number: an agent that asks for 0 s would keep a slot and the
        # server busy.
        least = LEAST_RETRY_LATER_SECONDS if excused < MANY_EXCUSED else LEAST_AFTER_MANY_SECONDS
        decision = Retry(max(least, later_seconds), RETRY_LATER)
    elif earlier_failures >= policy.retries:
        return Dead(RETRIES_EXHAUSTED)
    else:
        wait = (policy.backoff or Backoff()).delay_seconds(earlier_failures + 1, draw)
        decision = Retry(check_seconds("the backoff's wait", wait, least=0), FAILED)
    if left_seconds is not None and decision.delay_seconds >= left_seconds:
        return Dead(DEADLINE_EXCEEDED)
    return decision


def _asked_seconds(error: BaseException, never_retry: tuple[type, ...]) -> float | None:
    """The delay that an exception asks for: None when it asks for none, inf for no retry.

    The request may be inside another error: a member of a group, or the error that it was raised
    ``from``. From outside to inside, the first error that asks for something counts; of several
    members the longest delay.
    """
    asked: list[float] = []
    waiting, seen = [error], set[int]()
    while waiting:
        each = waiting.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        seconds = _own_seconds(each, never_retry)
        if seconds is not None:
            asked.append(seconds)
            continue
        waiting.extend(members_of(each))
        cause = cause_of(each)
        if cause is not None:
            waiting.append(cause)
    return max(asked, default=None)


def _own_seconds(error: BaseException, never_retry: tuple[type, ...]) -> float | None:
    if issubclass(type(error), RetryLater):
        try:
            seconds = cast("RetryLater", error).delay_seconds
            return check_seconds("RetryLater's delay_seconds", seconds, least=0)
        except BaseException:  # noqa: BLE001  # without a readable delay it is an ordinary failure
            return None
    return math.inf if any(_is_of(error, kind) for kind in never_retry) else None


def _is_of(error: BaseException, kind: type) -> bool:
    # By its type, because an exception's __class__ may be a property that raises.
    try:
        return issubclass(type(error), kind)
    except BaseException:  # noqa: BLE001  # a class may have a __subclasscheck__ of its own
        return False


def check_count(name: str, count: object, *, least: int) -> None:
    """Check an integer, from ``least`` to a million."""
    if type(count) is not int or not least <= count <= MOST_RETRIES:
        raise InvalidInputError(
            f"{name} is {count!r}, but must be an integer from {least} to {MOST_RETRIES:,}"
        )


def _as_tuple(kinds: object) -> tuple[Any, ...]:
    """The exception classes of ``never_retry``, which may be any collection, or one class."""
    many = isinstance(kinds, (tuple, list, set, frozenset))
    return tuple(cast("tuple[Any, ...]", kinds)) if many else (kinds,)
