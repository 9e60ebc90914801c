"""A worker whose slots all wait for runs of its own agents logs it, and what to do."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest

from murmur_streams import Fleet
from murmur_streams.core.model.states import RunState
from murmur_streams.fleet.current import Awaited
from murmur_streams.fleet.worker.executions import Blocked
from tests.fleet.stage import wait_until
from tests.fleet.working import working

BLOCKED = "is blocked: each of its 2 slots waits for a run of fine, which it serves"


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers look, and register, more often than outside of tests."""
    monkeypatch.setattr("murmur_streams.fleet.worker.worker.REGISTER_SECONDS", 0.1)


def add_by_output(fleet: Fleet) -> None:
    both = asyncio.Barrier(2)

    @fleet.agent
    async def parent() -> int:
        await both.wait()
        return await (await fleet.submit("fine", 1)).output()


def add_in_tasks(fleet: Fleet) -> None:
    both = asyncio.Barrier(2)

    @fleet.agent
    async def parent() -> int:
        await both.wait()
        handles = [await fleet.submit("fine", number) for number in range(2)]
        results = await asyncio.gather(*(handle.result() for handle in handles))
        return len(results)


def add_by_stream(fleet: Fleet) -> None:
    both = asyncio.Barrier(2)

    @fleet.agent
    async def parent() -> int:
        await both.wait()
        handle = await fleet.submit("fine", 1)
        return len([event async for event in handle.stream()])


def add_blocking(fleet: Fleet) -> None:
    both = threading.Barrier(2)

    @fleet.agent
    def parent() -> int:
        both.wait()
        return fleet.sync.submit("fine", 1).output()


async def states(fleet: Fleet) -> set[str]:
    return {info.state for info in await fleet.workers()}


@pytest.mark.parametrize("add", [add_by_output, add_in_tasks, add_by_stream, add_blocking])
async def test_a_worker_of_waiting_parents_says_so(
    fleet: Fleet, caplog: pytest.LogCaptureFixture, add: Callable[[Fleet], None]
) -> None:
    """Two parents in two slots await their children: the list and the log show it."""
    add(fleet)
    async with working(fleet, concurrency=2):
        handles = [await fleet.submit("parent") for _ in range(2)]

        async def is_blocked() -> bool:
            return await states(fleet) == {"blocked"}

        await wait_until(is_blocked, "the worker is listed as blocked")
        assert caplog.text.count(BLOCKED) == 1
        assert "a higher --concurrency" in caplog.text
        async with working(fleet, concurrency=2, targets=["fine"]):
            for handle in handles:
                assert await handle.output(timeout=30) == 2

        async def works() -> bool:
            return await states(fleet) == {"working"}

        await wait_until(works, "the worker is listed as working")
    assert "is not blocked any more" in caplog.text
    await asyncio.to_thread(fleet.sync.close)


class Clock:
    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def waits_for(run_id: str, *, target: str = "child", state: RunState = RunState.PENDING) -> Awaited:
    return Awaited(run_id, target, state)


FREE: dict[str, list[list[Awaited]]] = {
    "a free slot": [[waits_for("a")]],
    "one that works": [[waits_for("a")], []],
    "one whose child runs elsewhere": [[waits_for("a")], [waits_for("b", state=RunState.RUNNING)]],
    "one that others serve": [[waits_for("a")], [waits_for("b", target="other")]],
    "one of two runs elsewhere": [
        [waits_for("a"), waits_for("b", state=RunState.RUNNING)],
        [waits_for("c")],
    ],
}


@pytest.mark.parametrize("executions", FREE.values(), ids=FREE)
def test_a_worker_that_may_go_on_is_not_blocked(executions: list[list[Awaited]]) -> None:
    """One slot that is free, works, or waits for what goes on elsewhere is enough."""
    blocked = Blocked("w", 2, ["child"])
    assert [blocked.look(executions, ["h"]) for _ in range(3)] == [False] * 3


def test_a_child_that_waits_itself_blocks_too() -> None:
    """A parent, its child in the next slot, and a grandchild that has none."""
    executions = [[waits_for("child", state=RunState.RUNNING)], [waits_for("grandchild")]]
    blocked = Blocked("w", 2, ["child"])
    assert [blocked.look(executions, ["parent", "child"]) for _ in range(2)] == [False, True]


def test_waits_that_change_are_not_a_block() -> None:
    """Only the same waits at two looks in a row count: a child may wait for a moment."""
    blocked = Blocked("w", 1, ["child"])
    assert [blocked.look([[waits_for(f"r-{number}")]], []) for number in range(5)] == [False] * 5


def test_a_blocked_worker_warns_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    """The warning comes again after a minute, and after it was over."""
    clock, executions = Clock(), [[waits_for("a")]]
    blocked = Blocked("w", 1, ["child"], clock)
    for clock.seconds in (0.0, 5.0, 10.0, 64.0):
        blocked.look(executions, [])
    assert caplog.text.count("is blocked") == 1
    clock.seconds = 65.0
    blocked.look(executions, [])
    assert caplog.text.count("is blocked") == 2
    assert not blocked.look([[]], [])
    assert [blocked.look(executions, []) for _ in range(2)] == [False, True]
    assert caplog.text.count("is blocked") == 3
