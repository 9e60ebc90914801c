"""Fleet("memory:"): submission, execution and everything around it in one process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from murmur_streams import Backoff, Fleet, RunContext
from murmur_streams.core.model.errors import RunCancelledError, RunFailedError
from murmur_streams.core.model.events import RunEventType
from murmur_streams.core.model.states import RunState
from tests.fleet.working import working

AT_ONCE = Backoff(first_seconds=0)
WITHIN_SECONDS = 30


@pytest.fixture
async def fleet() -> AsyncIterator[Fleet]:
    """A fleet whose runs are in this process's memory."""
    async with Fleet("memory:") as fleet:

        @fleet.agent
        async def count(names: list[str], run: RunContext) -> int:
            for name in names:
                await run.emit("name", name)
            return len(names)

        @fleet.agent(retries=2, backoff=AT_ONCE)
        async def fails_twice(run: RunContext) -> int:
            if run.attempt < 3:
                raise ValueError(f"attempt {run.attempt}")
            return run.attempt

        @fleet.agent
        def breaks() -> None:
            raise ValueError("broken")

        @fleet.agent
        async def waits() -> None:
            await asyncio.Event().wait()

        yield fleet


async def test_a_run_is_submitted_streamed_and_read(fleet: Fleet) -> None:
    """A worker in the same process executes the run; a stream follows it and ends with it."""
    handle = await fleet.submit("count", ["a", "b"], metadata={"by": "test"})
    assert (await handle.status()).state is RunState.PENDING
    async with working(fleet):
        events = [event async for event in handle.stream()]
        assert await handle.output(timeout=WITHIN_SECONDS) == 2
    assert [event.data for event in events if event.type is RunEventType.CUSTOM] == ["a", "b"]
    assert events[-1].type is RunEventType.AGENT_COMPLETED
    run = await handle.snapshot()
    assert (run.state, run.metadata) == (RunState.COMPLETED, {"by": "test"})
    report = await (await fleet.store()).audit(handle.run_id)
    assert report.ok, report.problems


async def test_a_failed_run_is_tried_again(fleet: Fleet) -> None:
    """An agent with retries is executed again after a failure."""
    async with working(fleet):
        handle = await fleet.submit("fails_twice")
        assert await handle.output(timeout=WITHIN_SECONDS) == 3
    assert (await handle.snapshot()).failures == 2


async def test_a_pending_and_a_running_run_are_cancelled(fleet: Fleet) -> None:
    """A cancel ends a pending run at once, and stops the handler of a running one."""
    pending = await fleet.submit("waits", delay=3600)
    assert (await pending.cancel()).how == "pending"
    async with working(fleet):
        running = await fleet.submit("waits")
        async for event in running.stream():
            if event.type is RunEventType.AGENT_STARTED:
                break
        cancelled = await running.cancel(reason="enough", wait=WITHIN_SECONDS)
    assert (cancelled.state, cancelled.how) == (RunState.CANCELLED, "handler")
    with pytest.raises(RunCancelledError, match="enough"):
        await running.output()


async def test_a_delayed_run_starts_when_it_is_due(fleet: Fleet) -> None:
    """A worker starts a delayed run after its delay, and other runs before it."""
    async with working(fleet):
        delayed = await fleet.submit("count", [], delay=0.2)
        other = await fleet.submit("count", [])
        await other.output(timeout=WITHIN_SECONDS)
        await delayed.output(timeout=WITHIN_SECONDS)
    run, first = await delayed.snapshot(), await other.snapshot()
    assert run.started_ms is not None
    assert first.started_ms is not None
    assert run.started_ms - run.created_ms >= 200
    assert first.started_ms < run.started_ms


async def test_a_finally_failed_run_is_a_dead_letter(fleet: Fleet) -> None:
    """A run without retries left is a dead letter; it can be requeued and purged."""
    async with working(fleet):
        handle = await fleet.submit("breaks")
        with pytest.raises(RunFailedError, match="broken"):
            await handle.output(timeout=WITHIN_SECONDS)
        assert [letter.run_id for letter in (await fleet.dead.list()).letters] == [handle.run_id]
        again = await fleet.dead.requeue(handle.run_id)
        assert (await again.result(timeout=WITHIN_SECONDS)).error is not None
    assert await fleet.dead.purge(all=True) == 1


async def test_workers_are_listed_and_agents_paused(fleet: Fleet) -> None:
    """The worker in this process is listed, and starts no run of a paused agent."""
    await fleet.pause("count")
    assert await fleet.paused() == {"count"}
    async with working(fleet) as worker:
        paused = await fleet.submit("count", [])
        await (await fleet.submit("fails_twice")).output(timeout=WITHIN_SECONDS)
        assert [each.id for each in await fleet.workers()] == [worker.name]
        assert (await paused.status()).state is RunState.PENDING
        await fleet.resume("count")
        assert await paused.output(timeout=WITHIN_SECONDS) == 0
