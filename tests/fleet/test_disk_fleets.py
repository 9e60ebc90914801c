"""A fleet whose runs are in a file or folder of this machine: it works as on Redis.

Tests with killed processes, or with several, are in ``test_disk_processes.py``.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from murmur_streams import Backoff, Fleet, RunContext, RunHandle
from murmur_streams.core.model.errors import (
    DeadLetterNotFoundError,
    IdempotencyConflictError,
    RunCancelledError,
    RunFailedError,
    StoreConfigurationError,
)
from murmur_streams.core.model.states import RunState
from murmur_streams.stores.redis.store import redis_only
from tests.fleet.stage import wait_until
from tests.fleet.working import working

LONG_LEASE_SECONDS = 60.0
"""Heartbeats every twenty seconds: what comes sooner did not wait for one."""


@pytest.fixture(params=["sqlite", "rocksdb", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return "memory:" if request.param == "memory" else f"{request.param}://{tmp_path}/runs"


@pytest.fixture
async def fleet(url: str) -> AsyncIterator[Fleet]:
    async with Fleet(url) as fleet:

        @fleet.agent
        async def fine(number: int) -> int:
            return number + 1

        yield fleet


async def entries(fleet: Fleet, run_id: str) -> list[dict[str, str]]:
    store = await fleet.store()
    report = await store.audit(run_id)
    assert report.ok, report
    return [dict(entry.fields) async for entry in store.journal(run_id)]


async def test_a_worker_executes_what_was_submitted(fleet: Fleet) -> None:
    """The output, the counters and the journal are as on Redis."""
    async with working(fleet):
        handle = await fleet.submit("fine", 1)
        assert await handle.output(timeout=10) == 2
    run = await handle.snapshot()
    assert (run.state, run.attempt, run.failures) == (RunState.COMPLETED, 1, 0)
    states = [each["state"] for each in await entries(fleet, handle.run_id) if "state" in each]
    assert states == ["running", "completed"]


async def test_a_run_that_waited_is_executed_by_a_worker_that_comes(fleet: Fleet) -> None:
    """A submission without any worker is not lost."""
    handle = await fleet.submit("fine", 1)
    assert (await handle.status()).state is RunState.PENDING
    async with working(fleet):
        assert await handle.output(timeout=10) == 2


async def test_many_runs_are_each_executed_once(fleet: Fleet) -> None:
    """Two workers share sixty runs."""
    async with working(fleet, concurrency=5), working(fleet, concurrency=5):
        handles = [await fleet.submit("fine", number) for number in range(60)]
        outputs = [await handle.output(timeout=30) for handle in handles]
    assert outputs == list(range(1, 61))
    assert {(await handle.snapshot()).attempt for handle in handles} == {1}


async def test_a_run_is_streamed_while_it_runs(fleet: Fleet) -> None:
    """A subscriber gets an event before the handler goes on."""
    gate = asyncio.Event()

    @fleet.agent
    async def talks(run: RunContext) -> None:
        await run.emit("before", {"n": 1})
        await gate.wait()
        await run.output("after")

    async with working(fleet):
        handle = await fleet.submit(talks)
        seen: list[str] = []
        async for event in handle.stream():
            seen.append(event.name or str(event.type))
            if seen[-1] == "before":
                assert (await handle.status()).state is RunState.RUNNING
                gate.set()
    assert seen == ["agent_started", "before", "agent_output", "agent_completed"]


async def test_a_failure_is_tried_again_after_its_wait(fleet: Fleet) -> None:
    """The second execution completes the run, after the backoff."""

    @fleet.agent(retries=1, backoff=Backoff(first_seconds=0.2, jitter=0))
    async def flaky(run: RunContext) -> int:
        if run.attempt == 1:
            raise ValueError("not yet")
        return run.attempt

    async with working(fleet):
        handle = await fleet.submit(flaky)
        assert await handle.output(timeout=10) == 2
    run = await handle.snapshot()
    assert (run.attempt, run.failures, run.errors) == (2, 1, "1 ValueError: not yet")
    store = await fleet.store()
    at = [e.ms async for e in store.journal(run.run_id) if e.type == "run.state"]
    assert at[2] - at[1] >= 200, "the wait was kept"


async def test_a_cancel_reaches_the_handler_at_once(fleet: Fleet) -> None:
    """The handler does not wait for the next heartbeat."""
    began, stopped = asyncio.Event(), asyncio.Event()

    @fleet.agent
    async def waits() -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    async with working(fleet, lease_seconds=LONG_LEASE_SECONDS):
        handle = await fleet.submit(waits)
        await began.wait()
        asked = time.monotonic()
        cancelled = await handle.cancel(reason="enough", wait=10)
        assert time.monotonic() - asked < 5
        assert stopped.is_set()
    assert (cancelled.state, cancelled.delivered is not None) == (RunState.CANCELLED, True)
    with pytest.raises(RunCancelledError):
        await handle.output()


async def test_a_run_that_waits_and_is_cancelled_never_starts(fleet: Fleet) -> None:
    """A worker that comes later executes only other runs."""
    handle = await fleet.submit("fine", 1)
    assert (await handle.cancel()).state is RunState.CANCELLED
    async with working(fleet):
        assert await (await fleet.submit("fine", 2)).output(timeout=10) == 3
    assert (await handle.snapshot()).attempt == 0


async def test_a_delayed_run_starts_when_it_is_due(fleet: Fleet) -> None:
    """It starts soon after its time, and not before."""
    async with working(fleet):
        handle = await fleet.submit("fine", 1, delay=timedelta(milliseconds=300))
        assert await handle.output(timeout=10) == 2
    run = await handle.snapshot()
    assert run.due_ms is not None
    assert run.started_ms is not None
    assert 0 <= run.started_ms - run.due_ms < 3_000


async def test_a_finally_failed_run_can_be_requeued(fleet: Fleet) -> None:
    """A run that has failed finally is a dead letter, and can be requeued."""
    works = False

    @fleet.agent
    async def breaks(number: int) -> int:
        if not works:
            raise ValueError("broken")
        return number

    async with working(fleet):
        handle = await fleet.submit(breaks, 7, metadata={"a": 1}, tenant="t", priority=3)
        with pytest.raises(RunFailedError, match="broken"):
            await handle.output(timeout=10)
        letter = await fleet.dead.get(handle.run_id)
        assert (letter.target, letter.reason, letter.attempts) == ("breaks", "retries_exhausted", 1)
        assert (letter.failures, letter.error) == (1, "ValueError: broken")
        assert (letter.input, letter.tenant, letter.priority) == (7, "t", 3)
        works = True
        again = await fleet.dead.requeue(handle.run_id)
        assert await again.output(timeout=10) == 7
    run = await again.snapshot()
    assert run.metadata == {"a": 1, "requeued_from": handle.run_id}
    assert (run.tenant, run.priority) == ("t", 3)
    with pytest.raises(DeadLetterNotFoundError):
        await fleet.dead.requeue(handle.run_id)
    assert (await fleet.dead.list()).letters == ()


async def test_a_paused_agents_runs_wait(fleet: Fleet) -> None:
    """They begin right after the resume."""

    @fleet.agent
    async def other(number: int) -> int:
        return -number

    await fleet.pause(other)
    assert await fleet.paused() == {"other"}
    async with working(fleet):
        paused = await fleet.submit(other, 7)
        assert await (await fleet.submit("fine", 1)).output(timeout=10) == 2
        assert (await paused.snapshot()).attempt == 0
        await fleet.resume(other)
        asked = time.monotonic()
        assert await paused.output(timeout=10) == -7
        assert time.monotonic() - asked < 3, "the resume woke the worker"
    assert await fleet.paused() == set()


async def test_a_checkpoint_is_there_for_the_next_attempt(fleet: Fleet) -> None:
    """The retry finds the value of the first execution."""

    @fleet.agent(retries=1, backoff=Backoff(first_seconds=0.01))
    async def steps(run: RunContext) -> object:
        if run.attempt == 1:
            await run.checkpoint({"done": 3})
            raise ValueError("half way")
        return run.last_checkpoint

    async with working(fleet):
        handle = await fleet.submit(steps)
        assert await handle.output(timeout=10) == {"done": 3}
    store = await fleet.store()
    assert await store.last_checkpoint(handle.run_id) == {"done": 3}


async def test_the_same_key_is_the_same_run(fleet: Fleet) -> None:
    """An idempotency key returns the existing run, and refuses another input."""
    first = await fleet.submit("fine", 1, idempotency_key="order-1")
    again = await fleet.submit("fine", 1, idempotency_key="order-1")
    assert first.run_id == again.run_id
    with pytest.raises(IdempotencyConflictError):
        await fleet.submit("fine", 2, idempotency_key="order-1")


async def test_a_run_past_its_deadline_dies(fleet: Fleet) -> None:
    """A running and a waiting run both fail, with a dead letter."""

    @fleet.agent
    async def endless() -> None:
        await asyncio.Event().wait()

    async with working(fleet, lease_seconds=1):
        running = await fleet.submit(endless, deadline=0.3)
        with pytest.raises(RunFailedError):
            await running.output(timeout=10)
    waiting = await fleet.submit("fine", 1, deadline=0.01)
    await asyncio.sleep(0.05)
    tended = await (await fleet.store()).queue(60).tend("w", ["fine"], 0.001)
    assert tended.ended == [waiting.run_id]
    for handle in (running, waiting):
        assert (await fleet.dead.get(handle.run_id)).reason == "deadline_exceeded"


async def test_workers_are_listed_while_they_live(fleet: Fleet) -> None:
    """A stopped worker leaves the list."""
    async with working(fleet, worker_id="w-1", concurrency=3):
        await wait_until(lambda: _is_listed(fleet), "the worker is listed")
        (info,) = await fleet.workers()
        assert (info.targets, info.concurrency, info.state) == (["fine"], 3, "working")
    assert await fleet.workers() == []


async def _is_listed(fleet: Fleet) -> bool:
    return bool(await fleet.workers())


async def test_a_stopping_worker_hands_its_runs_back(fleet: Fleet) -> None:
    """The run is pending again, and the execution is excused."""
    began = asyncio.Event()

    @fleet.agent
    async def waits() -> None:
        began.set()
        await asyncio.Event().wait()

    async with working(fleet):
        handle = await fleet.submit(waits)
        await began.wait()
    run = await handle.snapshot()
    assert (run.state, run.attempt, run.excused) == (RunState.PENDING, 1, 1)


def test_programs_without_a_loop_submit_and_wait(url: str) -> None:
    """fleet.sync works beside a worker on an event loop."""
    fleet = Fleet(url)

    @fleet.agent
    async def double(number: int) -> int:
        return 2 * number

    async def work() -> int:
        async with working(fleet):
            run: RunHandle[int] = fleet.handle(handle.run_id, double)
            return await run.output(timeout=10)

    handle = fleet.sync.submit(double, 4)
    assert handle.status().state is RunState.PENDING
    # On the loop of the blocking calls, where the store is open.
    assert fleet.sync.run(work) == 8
    assert handle.output(timeout=5) == 8
    fleet.sync.run(fleet.close)


async def test_what_looks_at_redis_keys_says_that_there_are_none(fleet: Fleet, url: str) -> None:
    """The error names the kind of the store."""
    store = await fleet.store()
    kinds = {"sqlite": "SQLite", "rocksdb": "RocksDB", "memory": "InMemory"}
    kind = kinds[url.partition(":")[0]]
    with pytest.raises(StoreConfigurationError, match=f"looks at Redis keys; this store is {kind}"):
        redis_only(store)


def test_options_are_those_of_the_store_that_the_url_names(url: str) -> None:
    """An option of another kind of store raises TypeError with the right ones."""
    is_file = url != "memory:"
    options: dict[str, Any] = {"sync": True} if is_file else {}
    Fleet(url, ttl_seconds=1, max_events=2_000, **options)
    last = "sync" if is_file else "clock"
    for name in ("key_prefix", "partitions", "path"):
        with pytest.raises(TypeError, match=f"no option '{name}'; it has: ttl_seconds, .*{last}"):
            Fleet(url, **{name: None})
    with pytest.raises(TypeError, match="no option 'sync'"):
        Fleet("redis://127.0.0.1:1", sync=True)


async def test_the_variables_of_the_environment_count(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """URL and times to live are read; those for Redis alone are ignored."""
    monkeypatch.setenv("MURMUR_URL", url)
    monkeypatch.setenv("MURMUR_TTL_SECONDS", "7")
    monkeypatch.setenv("MURMUR_LIVE_TTL_SECONDS", "70")
    monkeypatch.setenv("MURMUR_KEY_PREFIX", "of-redis")
    monkeypatch.setenv("MURMUR_PARTITIONS", "4")
    async with Fleet() as fleet:
        store = await fleet.store()
        assert store.live_ttl_ms == 70_000
        assert store.where.endswith("memory:" if url == "memory:" else "/runs")
