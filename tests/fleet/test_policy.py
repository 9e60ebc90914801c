"""The rules of what follows a failure, without a store."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from murmur_streams import Backoff, Fleet, NonRetryableError, RetryLater
from murmur_streams.core.model.errors import InvalidInputError
from murmur_streams.fleet.policy import Dead, Policy, Retry, decide_failure

NEVER_JITTERED = Backoff(first_seconds=1, factor=2, most_seconds=60, jitter=0)
POLICY = Policy(retries=3, backoff=NEVER_JITTERED, never_retry=(KeyError,))

seconds = st.floats(min_value=0, max_value=1e8, allow_nan=False)
backoffs = st.builds(
    Backoff,
    first_seconds=seconds,
    factor=st.floats(min_value=1, max_value=1e15),
    most_seconds=seconds,
    jitter=st.floats(min_value=0, max_value=1),
)
draws = st.floats(min_value=0, max_value=1)


def decided(error: BaseException, failures: int = 0, **options: Any) -> Retry | Dead:
    """The decision under POLICY."""
    given: dict[str, Any] = {"excused": 0, "left_seconds": None, "draw": lambda: 0.5}
    return decide_failure(error, POLICY, earlier_failures=failures, **(given | options))


@pytest.mark.parametrize(("failures", "delay"), [(0, 1.0), (1, 2.0), (2, 4.0)])
def test_each_wait_is_longer_than_the_one_before(failures: int, delay: float) -> None:
    """The factor of the backoff multiplies each wait."""
    assert decided(ValueError(), failures) == Retry(delay, "failed")


def test_the_run_is_dead_when_its_retries_are_exhausted() -> None:
    """The failure after the last retry is final."""
    assert decided(ValueError(), failures=3) == Dead("retries_exhausted")


def test_without_retries_the_first_failure_is_the_last() -> None:
    """By default nothing is retried."""
    decision = decide_failure(
        ValueError(), Policy(), earlier_failures=0, excused=0, left_seconds=None, draw=lambda: 0
    )
    assert decision == Dead("retries_exhausted")


@pytest.mark.parametrize("error", [NonRetryableError("no"), KeyError("k")])
def test_some_errors_are_never_retried(error: BaseException) -> None:
    """NonRetryableError and the errors of never_retry are final."""
    assert decided(error) == Dead("not_retryable")


def test_later_is_no_failure_however_many_there_were() -> None:
    """RetryLater waits as long as it asks for."""
    assert decided(RetryLater(7, "busy"), failures=99) == Retry(7.0, "retry_later")


@pytest.mark.parametrize("error", [ValueError(), RetryLater(1)])
def test_nothing_is_tried_again_after_the_deadline(error: BaseException) -> None:
    """If the wait would reach the deadline, the run fails now."""
    assert decided(error, left_seconds=1) == Dead("deadline_exceeded")
    assert isinstance(decided(error, left_seconds=1.001), Retry)


@pytest.mark.parametrize(
    ("asked", "excused", "delay"),
    [(0, 0, 0.1), (0, 9, 0.1), (0.5, 9, 0.5), (0, 10, 1.0), (0.5, 99, 1.0), (7, 99, 7.0)],
)
def test_later_is_never_at_once_and_less_soon_when_it_is_often(
    asked: float, excused: int, delay: float
) -> None:
    """RetryLater waits at least 0.1 s, and 1 s after ten excused executions."""
    assert decided(RetryLater(asked), excused=excused) == Retry(delay, "retry_later")


@given(backoffs, st.integers(min_value=1, max_value=1_000_000), draws)
def test_a_wait_is_within_its_bounds(backoff: Backoff, failures: int, drawn: float) -> None:
    """This holds for any backoff and any number of failures."""
    delay = backoff.delay_seconds(failures, lambda: drawn)
    whole = Backoff(backoff.first_seconds, backoff.factor, backoff.most_seconds, 0)
    most = whole.delay_seconds(failures, lambda: drawn)
    assert math.isfinite(delay)
    assert most * (1 - backoff.jitter) <= delay <= most <= backoff.most_seconds


@given(backoffs, st.integers(min_value=1, max_value=1_000), draws)
def test_no_wait_is_shorter_than_the_one_before(
    backoff: Backoff, failures: int, drawn: float
) -> None:
    """This holds for the same random draw."""
    waits = [backoff.delay_seconds(count, lambda: drawn) for count in (failures, failures + 1)]
    assert waits == sorted(waits)


@given(
    st.integers(min_value=0, max_value=50),
    st.integers(min_value=0, max_value=50),
    st.none() | st.floats(min_value=0, max_value=1e6),
    draws,
)
def test_a_failing_run_dies_after_exactly_its_retries(
    retries: int, failures: int, left_seconds: float | None, drawn: float
) -> None:
    """A failing run dies after exactly its retries, unless its deadline is over before."""
    decision = decide_failure(
        ValueError(),
        Policy(retries=retries),
        earlier_failures=failures,
        excused=0,
        left_seconds=left_seconds,
        draw=lambda: drawn,
    )
    if failures >= retries:
        assert decision == Dead("retries_exhausted")
    elif isinstance(decision, Dead):
        assert decision.reason == "deadline_exceeded"
        assert left_seconds is not None
    else:
        assert left_seconds is None or decision.delay_seconds < left_seconds


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"retries": -1}, "retries is -1"),
        ({"retries": 1.5}, "retries is 1.5"),
        ({"retries": True}, "retries is True"),
        ({"timeout": 0}, "timeout is 0"),
        ({"timeout": math.nan}, "timeout is nan"),
        ({"timeout": "5"}, "timeout is '5'"),
        ({"timeout": 1e9}, r"from 0.001 to 315,360,000 \(ten years\)"),
        ({"deadline": -2}, "deadline is -2"),
        ({"deadline": math.inf}, "deadline is inf"),
        ({"backoff": 5}, r"must be a Backoff"),
        ({"never_retry": (ValueError, "KeyError")}, "never_retry holds 'KeyError'"),
        ({"never_retry": int}, "must hold exception classes"),
        ({"max_attempts": -1}, "max_attempts is -1"),
        ({"silent_after_seconds": 0}, "silent_after_seconds is 0"),
        ({"cancel_grace_seconds": -1}, "cancel_grace_seconds is -1"),
    ],
)
def test_an_option_out_of_bounds_is_refused_by_its_name(options: dict[str, Any], name: str) -> None:
    """Each option of an agent is checked."""
    with pytest.raises(InvalidInputError, match=name):
        Fleet().agent(**options)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"first_seconds": -1}, "first_seconds is -1"),
        ({"factor": 0.5}, "factor is 0.5"),
        ({"most_seconds": math.inf}, "most_seconds is inf"),
        ({"jitter": 1.5}, "jitter is 1.5"),
    ],
)
def test_a_backoff_out_of_bounds_is_refused(options: dict[str, Any], name: str) -> None:
    """Each option of a backoff is checked."""
    with pytest.raises(InvalidInputError, match=name):
        Backoff(**options)


@pytest.mark.parametrize("delay", [-1, math.nan, math.inf, "soon"])
def test_later_must_be_a_length_of_time(delay: Any) -> None:
    """Negative, infinite and other values are refused."""
    with pytest.raises(InvalidInputError, match="delay_seconds"):
        RetryLater(delay)


def test_an_agent_has_what_it_was_registered_with() -> None:
    """max_attempts is retries + 10 unless given, and 0 means no limit."""
    fleet = Fleet()

    @fleet.agent(retries=2, timeout=5, deadline=60, never_retry=(KeyError,))
    def one() -> None: ...

    @fleet.agent(max_attempts=0)
    def two() -> None: ...

    policy = fleet.agents["one"].policy
    assert (policy.retries, policy.timeout, policy.deadline) == (2, 5, 60)
    assert (policy.never_retry, policy.most_attempts) == ((KeyError,), 12)
    assert fleet.agents["two"].policy == Policy(max_attempts=0)
