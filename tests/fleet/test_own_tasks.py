"""An agent that misuses tasks, its own or the worker's, ends its own run and no other."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any

import pytest

from murmur_streams import Fleet, RunContext
from murmur_streams.core.model.events import RunEventType
from murmur_streams.core.model.states import RunState
from tests.fleet.stage import wait_until
from tests.fleet.working import outcome, working


def cancel_own_task() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()


async def cancels_and_raises(run: RunContext) -> None:
    run.emit("not awaited")
    cancel_own_task()
    raise ValueError("after its own cancellation")


async def cancels_and_is_cancelled() -> None:
    cancel_own_task()
    await asyncio.sleep(3600)


async def cancels_twice_and_raises() -> None:
    for _ in range(2):
        try:
            cancel_own_task()
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            continue
    raise ValueError("after its own cancellations")


async def leaves_a_timer_behind() -> None:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().call_soon(task.cancel)
    raise ValueError("before the timer")


@pytest.mark.parametrize(
    ("agent", "name"),
    [
        (cancels_and_raises, "ValueError"),
        (cancels_twice_and_raises, "ValueError"),
        (leaves_a_timer_behind, "ValueError"),
        (cancels_and_is_cancelled, "CancelledError"),
    ],
)
async def test_an_agent_that_cancels_its_own_task_fails_its_run_once(
    fleet: Fleet, agent: Callable[..., Any], name: str
) -> None:
    """It may do so in several ways, also by a timer that fires later."""
    state, failure = await outcome(fleet, fleet.agent(agent))
    assert (state, failure.type_name) == (RunState.FAILED, name)


async def test_an_agent_that_cancels_its_own_task_may_fail(fleet: Fleet) -> None:
    """An agent that cancels its own task and raises has failed, and an event records that."""
    fleet.agent(cancels_twice_and_raises)
    async with working(fleet):
        handle = await fleet.submit(cancels_twice_and_raises)
        events = [event async for event in handle.stream()]
    assert events[-1].type is RunEventType.AGENT_FAILED
    assert events[-1].error == "ValueError: after its own cancellations"


async def test_an_agent_that_cancels_its_own_task_may_complete(
    fleet: Fleet,
) -> None:
    """An agent that cancels its own task and returns has completed its run."""

    @fleet.agent
    async def returns(run: RunContext) -> str:
        run.emit("not awaited")
        cancel_own_task()
        return "done"

    async with working(fleet):
        handle = await fleet.submit(returns)
        assert await handle.output(timeout=30) == "done"
        assert (await handle.snapshot()).attempt == 1


def exits() -> None:
    sys.exit(3)


def interrupts() -> None:
    raise KeyboardInterrupt


async def in_task(action: Callable[[], None]) -> None:
    await asyncio.create_task(later(action))


async def in_group(action: Callable[[], None]) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(asyncio.sleep(3600))
        group.create_task(later(action))


async def in_gather(action: Callable[[], None]) -> None:
    await asyncio.gather(asyncio.sleep(3600), later(action))


async def in_a_cancelled_task(action: Callable[[], None]) -> None:
    async def acts_when_cancelled() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            action()

    task = asyncio.create_task(acts_when_cancelled())
    await asyncio.sleep(0)
    task.cancel()
    await task


async def in_a_task_of_a_task(action: Callable[[], None]) -> None:
    await asyncio.create_task(in_task(action))


async def later(action: Callable[[], None]) -> None:
    await asyncio.sleep(0)
    action()


@pytest.mark.parametrize(
    ("schedule", "shown"),
    [
        (in_task, None),
        (in_group, "ExceptionGroup"),
        (in_gather, None),
        (in_a_cancelled_task, None),
        (in_a_task_of_a_task, None),
    ],
)
@pytest.mark.parametrize(
    ("action", "name"), [(exits, "SystemExit"), (interrupts, "KeyboardInterrupt")]
)
async def test_an_exit_in_a_task_fails_its_run_alone(
    fleet: Fleet,
    schedule: Callable[..., Any],
    shown: str | None,
    action: Callable[[], None],
    name: str,
) -> None:
    """A SystemExit in a task of an agent fails its run and nothing else."""
    began, opened = asyncio.Event(), asyncio.Event()

    @fleet.agent
    async def waits() -> str:
        began.set()
        await opened.wait()
        return "through"

    @fleet.agent
    async def acts() -> None:
        await schedule(action)

    async with working(fleet):
        beside = await fleet.submit(waits)
        await began.wait()
        state, failure = await outcome(fleet, acts)
        opened.set()
        assert await beside.output(timeout=30) == "through"
        assert (await beside.snapshot()).attempt == 1
    assert state is RunState.FAILED
    assert failure.type_name == (shown or name)


async def test_an_exit_in_an_unawaited_task_is_logged(
    fleet: Fleet, caplog: pytest.LogCaptureFixture
) -> None:
    """A SystemExit in a task that is never awaited is logged with the id of its run."""

    @fleet.agent
    async def leaves_it_behind() -> str:
        task = asyncio.create_task(later(exits))
        await asyncio.wait([task])
        return "done"

    async with working(fleet):
        handle = await fleet.submit(leaves_it_behind)
        assert await handle.output(timeout=30) == "done"
    assert f"run {handle.run_id}: a task of its agent raised SystemExit(3)" in caplog.text


async def test_a_task_cancelled_before_it_begins_is_unchanged(fleet: Fleet) -> None:
    """A guarded task that is cancelled before its first step behaves as without the guard."""

    @fleet.agent
    async def cancels() -> tuple[bool, str]:
        task = asyncio.create_task(later(exits), name="mine")
        task.cancel()
        await asyncio.wait([task])
        return task.cancelled(), f"{task.get_name()} {task!r}"

    async with working(fleet):
        cancelled, shown = await (await fleet.submit(cancels)).output(timeout=30)
    assert cancelled
    assert shown.startswith("mine <Task cancelled")
    assert "coro=<later()" in shown


async def test_a_handler_that_swallows_its_cancellation_is_handed_back(fleet: Fleet) -> None:
    """At a stop, its return value is not taken for the result."""
    began = asyncio.Event()

    @fleet.agent
    async def swallows(run: RunContext) -> str:
        if run.attempt == 2:
            return "whole"
        try:
            began.set()
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            return "partial"
        return "never"

    async with working(fleet):
        handle = await fleet.submit(swallows)
        await began.wait()
    assert (await handle.status()).state is RunState.PENDING
    async with working(fleet):
        assert await handle.output(timeout=30) == "whole"
    assert (await handle.snapshot()).attempt == 2


async def test_a_cancelled_handler_may_raise_and_is_handed_back(
    fleet: Fleet,
) -> None:
    """The run of a handler that raises another error on its cancellation is handed back."""
    began = asyncio.Event()

    @fleet.agent
    async def raises() -> None:
        try:
            began.set()
            await asyncio.sleep(3600)
        finally:
            raise ValueError("while it was cancelled")

    async with working(fleet):
        handle = await fleet.submit(raises)
        await began.wait()
    assert (await handle.status()).state is RunState.PENDING


async def test_a_handler_that_never_ends_is_left_behind(
    fleet: Fleet,
) -> None:
    """A handler that does not end after its cancellation is left behind."""
    began, opened, gone = asyncio.Event(), asyncio.Event(), asyncio.Event()

    @fleet.agent
    async def stays() -> str:
        began.set()
        while not opened.is_set():
            try:
                await opened.wait()
            except asyncio.CancelledError:
                continue
        gone.set()
        return "late"

    async with working(fleet):
        handle = await fleet.submit(stays)
        await began.wait()
    assert (await handle.status()).state is RunState.PENDING
    opened.set()
    await gone.wait()
    assert (await handle.status()).state is RunState.PENDING


async def test_a_lost_run_is_not_ended_by_what_its_handler_returns(fleet: Fleet) -> None:
    """A result that comes after the loss is dropped."""
    began, returned = asyncio.Event(), asyncio.Event()

    @fleet.agent
    async def swallows() -> str:
        try:
            began.set()
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            returned.set()
        return "partial"

    async with working(fleet, lease_seconds=1) as worker:
        handle = await fleet.submit(swallows)
        await began.wait()
        await (await fleet.store()).delete(handle.run_id, force=True)
        await returned.wait()

        async def is_idle() -> bool:
            return not worker.held

        await wait_until(is_idle, "the execution ends")
        assert await (await fleet.submit("fine", 1)).output(timeout=30) == 2
