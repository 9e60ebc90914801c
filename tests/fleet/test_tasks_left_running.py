"""Tasks that an agent starts go on after its run, and the worker says which."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from murmur_streams import Fleet, RunContext
from murmur_streams.core.model.errors import LeaseLostError
from murmur_streams.core.model.states import RunState
from tests.fleet.working import working

SAID = "its execution has ended, and tasks that its agent started go on"


@pytest.fixture
def left() -> Iterator[list[asyncio.Task[None]]]:
    """Tasks of agents; each test ends its own."""
    tasks: list[asyncio.Task[None]] = []
    yield tasks
    assert all(task.done() for task in tasks)


async def for_ever() -> None:
    await asyncio.sleep(3600)


async def end(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


@pytest.mark.parametrize("end_of_run", [RunState.COMPLETED, RunState.FAILED, RunState.CANCELLED])
async def test_a_task_that_outlives_its_run_is_logged(
    fleet: Fleet,
    caplog: pytest.LogCaptureFixture,
    left: list[asyncio.Task[None]],
    end_of_run: RunState,
) -> None:
    """The worker names the task, lets it go on, and refuses what it writes."""
    ended, refused, began = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def writes_late(run: RunContext) -> None:
        await ended.wait()
        try:
            await run.emit("late")
        except LeaseLostError:
            refused.set()
        await for_ever()

    @fleet.agent
    async def leaves(run: RunContext) -> None:
        left.append(asyncio.create_task(writes_late(run), name="poller"))
        began.set()
        if end_of_run is RunState.FAILED:
            raise ValueError("no luck")
        if end_of_run is RunState.CANCELLED:
            await for_ever()

    async with working(fleet):
        handle = await fleet.submit(leaves)
        await began.wait()
        if end_of_run is RunState.CANCELLED:
            await handle.cancel(wait=30)
        await handle.result(timeout=30)
        assert (await handle.status()).state is end_of_run
        ended.set()
        await refused.wait()
        assert not left[0].done()
    assert f"run {handle.run_id}: {SAID}: poller (" in caplog.text
    assert "writes_late);" in caplog.text
    await end(left)


async def test_tasks_that_end_with_their_run_are_not_logged(
    fleet: Fleet, caplog: pytest.LogCaptureFixture
) -> None:
    """The warning leaves out tasks of a TaskGroup, cancelled ones, and writes without await."""

    @fleet.agent
    async def ends_them(run: RunContext) -> None:
        for number in range(20):
            run.emit("number", number)
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.sleep(0))
        asyncio.create_task(for_ever()).cancel()

    async with working(fleet):
        await (await fleet.submit(ends_them)).output(timeout=30)
    assert SAID not in caplog.text


async def test_a_shared_client_survives_and_is_logged_once(
    fleet: Fleet, caplog: pytest.LogCaptureFixture, left: list[asyncio.Task[None]]
) -> None:
    """A task that one run starts for all serves the next run; only the first one logs a warning."""

    @fleet.agent
    async def shares() -> bool:
        if not left:
            left.append(asyncio.create_task(for_ever(), name="pool"))
        return not left[0].done()

    @fleet.agent
    async def asks(run_id: str) -> str:
        return str((await fleet.handle(run_id).status()).state)

    async with working(fleet):
        first = await fleet.submit(shares)
        assert await first.output(timeout=30)
        second = await fleet.submit(shares)
        assert await second.output(timeout=30)
        assert await (await fleet.submit(asks, first.run_id)).output(timeout=30) == "completed"
    assert caplog.text.count(SAID) == 1
    assert f"run {first.run_id}: {SAID}: pool (for_ever);" in caplog.text
    await end(left)
