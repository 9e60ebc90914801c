"""Errors that decide about a retry are found inside groups and causes too."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from murmur_streams import Backoff, Fleet, NonRetryableError, RetryLater, RunContext
from murmur_streams.core.exception_text import error_message
from murmur_streams.core.model.errors import RunFailedError
from murmur_streams.core.model.states import RunState
from murmur_streams.fleet.policy import Dead, Policy, Retry, decide_failure
from tests.fleet.working import outcome, working

DEAD = Dead("not_retryable")
FAILURE = Retry(1.0, "failed")


def caused(error: BaseException, cause: BaseException) -> BaseException:
    """The error that ``raise error from cause`` raises."""
    error.__cause__ = cause
    return error


def in_context(error: BaseException, context: BaseException) -> BaseException:
    """An error that is raised while another exception is handled."""
    error.__context__ = context
    return error


def group(*members: BaseException) -> BaseException:
    return BaseExceptionGroup("several", members)


def in_a_circle() -> BaseException:
    one, other = ValueError(), OSError()
    one.__cause__, other.__cause__ = other, caused(TypeError(), one)
    return one


DECISIONS: list[tuple[Callable[[], BaseException], Retry | Dead]] = [
    (lambda: group(ValueError(), NonRetryableError()), DEAD),
    (lambda: group(ValueError(), group(TypeError(), LookupError())), DEAD),
    (lambda: caused(ValueError(), NonRetryableError()), DEAD),
    (lambda: caused(ValueError(), caused(TypeError(), group(NonRetryableError()))), DEAD),
    (lambda: in_context(ValueError(), NonRetryableError()), FAILURE),
    (lambda: group(ValueError(), RetryLater(5)), Retry(5, "retry_later")),
    (lambda: group(RetryLater(5), RetryLater(9), RetryLater(7)), Retry(9, "retry_later")),
    (lambda: group(RetryLater(5), group(NonRetryableError())), DEAD),
    (lambda: caused(ValueError(), RetryLater(5)), Retry(5, "retry_later")),
    (lambda: caused(RetryLater(5), NonRetryableError()), Retry(5, "retry_later")),
    (lambda: caused(NonRetryableError(), RetryLater(5)), DEAD),
    (lambda: group(caused(RetryLater(5), NonRetryableError())), Retry(5, "retry_later")),
    (lambda: group(ValueError(), TypeError()), FAILURE),
    (lambda: in_a_circle(), FAILURE),  # noqa: PLW0108  # made anew for each test
]


@pytest.mark.parametrize(("make", "decision"), DECISIONS, ids=range(len(DECISIONS)))
def test_the_outermost_error_that_asks_is_heard(
    make: Callable[[], BaseException], decision: Retry | Dead
) -> None:
    """On each way inwards the first counts; never wins, then the longest wait."""
    policy = Policy(retries=3, backoff=Backoff(jitter=0), never_retry=(LookupError,))
    decided = decide_failure(
        make(), policy, earlier_failures=0, excused=0, left_seconds=None, draw=lambda: 0
    )
    assert decided == decision


async def test_a_task_group_that_must_not_be_retried(fleet: Fleet) -> None:
    """A NonRetryableError in a task of a TaskGroup fails the run at its first attempt."""

    async def refuses() -> None:
        raise NonRetryableError("never again")

    @fleet.agent(retries=3, backoff=Backoff(first_seconds=0))
    async def gathers() -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(refuses())
            tasks.create_task(asyncio.sleep(3600))

    state, error = await outcome(fleet, gathers)
    assert state is RunState.FAILED
    assert error.message == (
        "unhandled errors in a TaskGroup (1 sub-exception): NonRetryableError: never again"
    )


async def test_a_task_group_that_asks_for_later(fleet: Fleet) -> None:
    """A RetryLater in a task of a TaskGroup does not count as a failure."""

    async def is_busy() -> None:
        raise RetryLater(0, "busy")

    @fleet.agent
    async def gathers(run: RunContext) -> int:
        async with asyncio.TaskGroup() as tasks:
            if run.attempt == 1:
                tasks.create_task(is_busy())
        return run.attempt

    async with working(fleet):
        handle = await fleet.submit(gathers)
        assert await handle.output(timeout=30) == 2
    run = await handle.snapshot()
    assert (run.failures, run.excused) == (0, 1)


async def test_what_a_handler_raises_after_its_time_decides_nothing(fleet: Fleet) -> None:
    """A timeout is retried, whatever the handler makes of its cancellation."""

    @fleet.agent(retries=1, backoff=Backoff(first_seconds=0), timeout=0.05)
    async def slow(run: RunContext) -> int:
        if run.attempt == 1:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                raise NonRetryableError("cancelled") from None
        return run.attempt

    async with working(fleet):
        assert await (await fleet.submit(slow)).output(timeout=30) == 2


async def test_the_error_of_a_group_names_its_members() -> None:
    """The text that callers get of a group says what its leaves are."""
    fleet = Fleet()

    @fleet.agent
    async def raises() -> None:
        raise ExceptionGroup(
            "both", [ValueError("bad input"), ExceptionGroup("inner", [KeyError("x"), OSError()])]
        )

    done = await fleet.run_inline(raises)
    text = "both (2 sub-exceptions): ValueError: bad input; KeyError: 'x'; OSError"
    assert done.events[-1].error == f"ExceptionGroup: {text}"
    with pytest.raises(RunFailedError) as caught:
        _ = done.output
    assert caught.value.error == text


def test_a_large_group_is_shown_in_a_bounded_text() -> None:
    """Twenty leaves are named, each to a thousand characters, and the others are counted."""
    text = error_message(ExceptionGroup("many", [ValueError(number) for number in range(25)]))
    assert text.endswith("; ValueError: 19; and 5 more")
    long = error_message(ExceptionGroup("long", [ValueError("x" * 9_000), KeyError("last")]))
    assert long == f"long (2 sub-exceptions): ValueError: {'x' * 1_000}…; KeyError: 'last'"
