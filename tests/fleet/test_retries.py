"""A failed execution: tried again, later, or never; and what is left of a run that died."""

from __future__ import annotations

import asyncio
import time
from datetime import datetime
from typing import Any

import pytest

from murmur_streams import Backoff, Fleet, NonRetryableError, RetryLater, RunContext, RunHandle
from murmur_streams.core.exception_text import MAX_TRACEBACK_BYTES
from murmur_streams.core.model.errors import (
    DeadLetterNotFoundError,
    InvalidInputError,
    RemoteAgentError,
    RunExistsError,
    RunFailedError,
    RunNotFoundError,
    RunNotTerminalError,
)
from murmur_streams.core.model.run import Run
from murmur_streams.core.model.states import RunState
from murmur_streams.core.rules.requests import DeadLetter
from tests.fleet.queueing import take
from tests.fleet.stage import wait_until
from tests.fleet.working import working
from tests.servers import Space

AT_ONCE = Backoff(first_seconds=0)


async def ended(handle: RunHandle[Any]) -> Run:
    """Wait for the end; the run, which must be sound."""
    await handle.result(timeout=30)
    report = await (await handle._stores.get()).audit(handle.run_id)
    assert report.ok, report
    return await handle.snapshot()


async def reasons(fleet: Fleet, handle: RunHandle[Any]) -> list[str]:
    """Why the run went back into its queue, each time."""
    journal = (await fleet.store()).journal(handle.run_id)
    return [entry.fields["reason"] async for entry in journal if "reason" in entry.fields]


async def letter_of(fleet: Fleet, handle: RunHandle[Any]) -> DeadLetter:
    """The run's only dead letter."""
    page = await fleet.dead.list()
    (letter,) = (letter for letter in page.letters if letter.run_id == handle.run_id)
    assert letter == await fleet.dead.get(handle.run_id)
    return letter


async def test_a_failed_run_is_tried_again_until_it_completes(fleet: Fleet) -> None:
    """The third execution succeeds; the run has both errors."""

    @fleet.agent(retries=2, backoff=AT_ONCE)
    async def third_time(run: RunContext) -> int:
        if run.attempt < 3:
            raise ValueError(f"not at {run.attempt}")
        return run.attempt

    async with working(fleet):
        handle = await fleet.submit(third_time)
        assert await handle.output(timeout=30) == 3
    run = await ended(handle)
    assert (run.state, run.attempt, run.failures) == (RunState.COMPLETED, 3, 2)
    assert run.errors == "1 ValueError: not at 1\n2 ValueError: not at 2"
    assert await reasons(fleet, handle) == ["failed", "failed"]
    assert (await fleet.dead.list()).letters == ()


@pytest.mark.parametrize("in_thread", [False, True], ids=["async", "def"])
async def test_a_run_that_fails_too_often_dies_with_the_reason(
    fleet: Fleet, *, in_thread: bool
) -> None:
    """Its dead letter has input, metadata and the last error."""

    @fleet.agent(name="async", retries=1, backoff=AT_ONCE)
    async def fails(number: int, run: RunContext) -> None:
        raise ValueError(f"never {number}")

    @fleet.agent(name="def", retries=1, backoff=AT_ONCE)
    def fails_in_thread(number: int, run: RunContext) -> None:
        raise ValueError(f"never {number}")

    async with working(fleet):
        handle = await fleet.submit(fails_in_thread if in_thread else fails, 7, metadata={"a": 1})
        with pytest.raises(RunFailedError, match="never 7") as caught:
            await handle.output(timeout=30)
    assert caught.value.error_type == "ValueError"
    shown = caught.value.traceback or ""
    assert shown.startswith("Traceback")
    assert shown.endswith("ValueError: never 7\n")
    assert "in fails" in shown
    assert "test_retries.py" in shown.splitlines()[1], "it begins in the agent's own code"
    run = await ended(handle)
    assert (run.state, run.attempt, run.failures) == (RunState.FAILED, 2, 2)
    letter = await letter_of(fleet, handle)
    assert (letter.reason, letter.attempts, letter.failures) == ("retries_exhausted", 2, 2)
    assert (letter.input, letter.metadata, letter.error) == (7, {"a": 1}, "ValueError: never 7")
    assert letter.errors[0] == "1 ValueError: never 7"


async def test_a_long_traceback_is_cut_to_its_end(fleet: Fleet) -> None:
    """The last part has the error itself."""

    @fleet.agent
    async def digs(depth: int) -> None:
        dig(depth)

    def dig(depth: int) -> None:
        if not depth:
            raise ValueError("ä" * 5_000)
        other(depth)

    def other(depth: int) -> None:
        dig(depth - 1)

    async with working(fleet):
        result = await (await fleet.submit(digs, 100)).result(timeout=30)
    assert isinstance(result.error, RemoteAgentError)
    shown = result.error.traceback or ""
    assert MAX_TRACEBACK_BYTES - 2 <= len(shown.encode()) <= MAX_TRACEBACK_BYTES
    assert shown.endswith("ä\n")


@pytest.mark.parametrize("error", [NonRetryableError("no"), KeyError("k")], ids=["ours", "listed"])
async def test_some_errors_end_the_run_at_once(fleet: Fleet, error: Exception) -> None:
    """The dead letter says not_retryable."""

    @fleet.agent(retries=5, never_retry=(KeyError,))
    async def fails() -> None:
        raise error

    async with working(fleet):
        handle = await fleet.submit(fails)
        run = await ended(handle)
    assert (run.state, run.attempt) == (RunState.FAILED, 1)
    assert (await letter_of(fleet, handle)).reason == "not_retryable"


async def test_an_input_that_does_not_fit_is_not_tried_again(fleet: Fleet, space: Space) -> None:
    """A wrong input would never succeed."""

    @fleet.agent(retries=5)
    async def takes(number: int) -> int:
        return number

    async with Fleet(space.url, key_prefix=space.prefix) as elsewhere, working(fleet):
        handle = await elsewhere.submit("takes", "many")
        run = await ended(handle)
        result = await handle.result()
    assert (run.attempt, (await letter_of(fleet, handle)).reason) == (1, "not_retryable")
    assert isinstance(result.error, RemoteAgentError)
    assert result.error.type_name == "InvalidPayloadError"


async def test_later_is_no_failure(fleet: Fleet) -> None:
    """Three RetryLater are excused executions."""

    @fleet.agent(max_attempts=1)
    async def busy(run: RunContext) -> int:
        if run.attempt < 4:
            raise RetryLater(0, "not yet")
        return run.attempt

    async with working(fleet):
        handle = await fleet.submit(busy)
        assert await handle.output(timeout=30) == 4
    run = await ended(handle)
    assert (run.failures, run.excused) == (0, 3)
    assert await reasons(fleet, handle) == ["retry_later"] * 3


@pytest.mark.parametrize(
    ("error", "least_ms", "most_ms"),
    [(ValueError("no"), 1_800_000, 3_600_000), (RetryLater(7_200), 7_200_000, 7_200_000)],
    ids=["failed", "later"],
)
async def test_between_two_tries_the_run_waits(
    fleet: Fleet, error: Exception, least_ms: int, most_ms: int
) -> None:
    """It is pending, and due after the wait."""

    @fleet.agent(retries=1, backoff=Backoff(first_seconds=3600, most_seconds=3600))
    async def fails() -> None:
        raise error

    async with working(fleet):
        handle = await fleet.submit(fails)

        async def waits() -> bool:
            run = await handle.snapshot()
            return (run.state, run.attempt) == (RunState.PENDING, 1)

        await wait_until(waits, "the run waits for its next try")
        run = await handle.snapshot()
        assert least_ms <= (run.due_ms or 0) - run.last_ms <= most_ms
        assert await (await fleet.submit("fine", 1)).output(timeout=30) == 2
        assert (await handle.snapshot()).attempt == 1


@pytest.mark.parametrize("in_thread", [False, True], ids=["async", "def"])
async def test_an_attempt_that_takes_too_long_has_failed(fleet: Fleet, *, in_thread: bool) -> None:
    """A timeout is retried like any other failure."""

    # Any attempt may take too long where the machine does.
    @fleet.agent(name="async", retries=99, timeout=0.05, backoff=AT_ONCE)
    async def lingers(run: RunContext) -> int:
        if run.attempt == 1:
            await asyncio.sleep(3600)
        return run.attempt

    @fleet.agent(name="def", retries=99, timeout=0.05, backoff=AT_ONCE)
    def lingers_in_thread(run: RunContext) -> int:
        while run.attempt == 1 and not run.cancelled:
            time.sleep(0.01)
        return run.attempt

    async with working(fleet):
        handle = await fleet.submit(lingers_in_thread if in_thread else lingers)
        await handle.output(timeout=30)
    run = await ended(handle)
    assert run.attempt >= 2
    first, *_ = (run.errors or "").split("\n")
    assert first == "1 TimeoutError: this attempt took longer than 0.05 s"


async def test_the_error_of_a_timeout_shows_where_the_handler_was(fleet: Fleet) -> None:
    """Its traceback has the line that was waiting."""

    @fleet.agent(timeout=0.05)
    async def lingers() -> None:
        await the_slow_part()

    async def the_slow_part() -> None:
        await asyncio.sleep(3600)

    async with working(fleet):
        handle = await fleet.submit(lingers)
        result = await handle.result(timeout=30)
    assert isinstance(result.error, RemoteAgentError)
    assert result.error.type_name == "TimeoutError"
    assert "in the_slow_part" in (result.error.traceback or "")
    assert (await letter_of(fleet, handle)).reason == "retries_exhausted"


async def test_a_run_that_does_not_end_before_its_deadline_dies(fleet: Fleet) -> None:
    """The handler sees the deadline, and is cancelled at it."""
    deadlines: list[datetime | None] = []

    @fleet.agent(retries=99, backoff=AT_ONCE, deadline=3)
    async def lingers(run: RunContext) -> None:
        deadlines.append(run.deadline)
        await asyncio.sleep(3600)

    async with working(fleet):
        # The worker is there: the deadline is not spent on its start.
        assert await (await fleet.submit("fine", 1)).output(timeout=30) == 2
        handle = await fleet.submit(lingers)
        run = await ended(handle)
    assert (run.state, run.attempt) == (RunState.FAILED, 1)
    assert run.deadline_ms is not None
    (shown,) = deadlines
    assert shown is not None
    assert round(shown.timestamp() * 1000) == run.deadline_ms
    assert (await letter_of(fleet, handle)).reason == "deadline_exceeded"


@pytest.mark.fault("F33")
async def test_a_deadline_does_not_go_by_the_workers_clock(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker's clock that is ten minutes ahead does not matter."""

    @fleet.agent(retries=1, backoff=AT_ONCE)
    async def second_time(run: RunContext) -> int:
        if run.attempt == 1:
            raise ValueError("not yet")
        return run.attempt

    handle = await fleet.submit(second_time, deadline=60)
    now, now_ns = time.time, time.time_ns
    monkeypatch.setattr(time, "time", lambda: now() + 600)
    monkeypatch.setattr(time, "time_ns", lambda: now_ns() + 600 * 10**9)
    async with working(fleet):
        assert await handle.output(timeout=30) == 2


async def test_nothing_is_tried_again_after_its_deadline(fleet: Fleet) -> None:
    """The run fails when the next try would come too late."""

    @fleet.agent(retries=5, backoff=Backoff(first_seconds=3600, most_seconds=3600))
    async def fails() -> None:
        raise ValueError("no")

    async with working(fleet):
        handle = await fleet.submit(fails, deadline=60)
        run = await ended(handle)
    assert (run.state, run.attempt) == (RunState.FAILED, 1)
    assert (await letter_of(fleet, handle)).reason == "deadline_exceeded"


async def test_a_run_that_is_not_started_by_its_deadline_dies(fleet: Fleet) -> None:
    """It fails even while its agent is paused."""
    async with working(fleet, lease_seconds=1):
        await fleet.pause("fine")
        handle = await fleet.submit("fine", 1, deadline=0.05)
        run = await ended(handle)
    assert (run.state, run.attempt) == (RunState.FAILED, 0)
    assert (await letter_of(fleet, handle)).reason == "deadline_exceeded"


@pytest.mark.fault("F30")
async def test_a_run_whose_workers_die_on_it_dies_in_the_end(fleet: Fleet, space: Space) -> None:
    """After max_attempts executions it is not claimed again."""

    @fleet.agent(max_attempts=2)
    async def deadly() -> None: ...

    handle = await fleet.submit(deadly)
    queue = (await fleet.store()).queue(lease_seconds=1)
    for attempt in (1, 2):
        (claim,) = await take(queue, "ghost", 1, "deadly")
        assert claim.attempt == attempt
        space.admin.zadd(space.keys.leases(0), {handle.run_id: 1})
        assert (await queue.tend("tender", ["deadly"], 0.001)).requeued == [handle.run_id]
    async with working(fleet):
        run = await ended(handle)
    assert (run.state, run.attempt) == (RunState.FAILED, 2)
    assert (await letter_of(fleet, handle)).reason == "attempts_exhausted"


async def test_a_dead_run_can_be_requeued_once(fleet: Fleet) -> None:
    """A new run with the same input completes, and the letter is gone."""
    mended = asyncio.Event()

    @fleet.agent
    async def fails(number: int) -> int:
        if not mended.is_set():
            raise ValueError("not mended")
        return number

    async with working(fleet):
        dead = await fleet.submit(fails, 7, metadata={"a": 1})
        assert (await ended(dead)).state is RunState.FAILED
        mended.set()
        again = await fleet.dead.requeue(dead.run_id)
        assert await again.output(timeout=30) == 7
        assert (await again.snapshot()).metadata == {"a": 1, "requeued_from": dead.run_id}
        for ask in (fleet.dead.requeue, fleet.dead.get):
            with pytest.raises(DeadLetterNotFoundError, match=r"no dead letter of run .* requeued"):
                await ask(dead.run_id)


async def test_dead_letters_can_be_purged(fleet: Fleet) -> None:
    """A purge of one target leaves the letters of others."""

    @fleet.agent
    async def fails() -> None:
        raise ValueError("no")

    async with working(fleet):
        for _ in range(3):
            await ended(await fleet.submit(fails))
    assert len((await fleet.dead.list("fails")).letters) == 3
    assert await fleet.dead.purge(target="fine") == 0
    assert await fleet.dead.purge(target="fails") == 3
    assert (await fleet.dead.list()).letters == ()


async def test_an_ended_run_can_be_submitted_again(fleet: Fleet) -> None:
    """retry needs an ended run, and copies its input, metadata, priority and tenant."""
    cancelled = await fleet.submit("fine", 7, metadata={"a": 1}, priority=3, tenant="acme")
    with pytest.raises(RunNotTerminalError, match="is pending; wait until it has ended, or cancel"):
        await fleet.retry(cancelled.run_id)
    await cancelled.cancel()
    again = await fleet.retry(cancelled.run_id)
    async with working(fleet):
        assert await again.output(timeout=30) == 8
    run = await again.snapshot()
    assert (run.metadata, run.priority) == ({"a": 1, "retry_of": cancelled.run_id}, 3)
    assert run.tenant == "acme"
    with pytest.raises(InvalidInputError, match="completed"):
        await fleet.retry(again.run_id)
    with pytest.raises(RunNotFoundError):
        await fleet.retry("unknown")


async def test_a_retried_run_has_its_trace_and_deadline(fleet: Fleet) -> None:
    """A run that is submitted again has the same trace, and its deadline starts again."""
    trace = {"traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}
    old = await fleet.submit("fine", 7, delay=60, deadline=3600, trace=trace)
    await old.cancel()
    run = await (await fleet.retry(old.run_id)).snapshot()
    assert (run.trace, run.due_ms) == (trace, None)
    assert (run.deadline_ms or 0) - run.created_ms == 3_600_000


async def test_a_repeat_of_a_retry_under_its_id_submits_no_second_run(fleet: Fleet) -> None:
    """The second call raises RunExistsError."""
    old = await fleet.submit("fine", 7)
    await old.cancel()
    again = await fleet.retry(old.run_id, new_run_id="again")
    assert again.run_id == "again"
    with pytest.raises(RunExistsError):
        await fleet.retry(old.run_id, new_run_id="again")
    with pytest.raises(RunExistsError):
        await asyncio.to_thread(fleet.sync.retry, old.run_id, new_run_id="again")
    await asyncio.to_thread(fleet.sync.close)
    runs = (await (await fleet.store()).list_runs(state=RunState.PENDING)).runs
    assert [run.run_id for run in runs] == ["again"]
