"""A server that takes no write for a while: no run fails for that, it is done again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from murmur_streams import Fleet, RunContext
from murmur_streams.core.model.errors import StoreError, StoreFullError, StoreReadOnlyError
from murmur_streams.core.model.states import RunState
from murmur_streams.fleet.worker import Worker
from murmur_streams.fleet.worker.loops import heartbeat_seconds
from murmur_streams.stores.redis.queue import Queue
from murmur_streams.stores.redis.store import RedisRunStore
from tests.fleet.stage import wait_until
from tests.fleet.working import working

REFUSALS = [StoreFullError("out of memory"), StoreReadOnlyError("a replica")]
by_error = pytest.mark.parametrize("error", REFUSALS, ids=lambda error: type(error).__name__)


def refuse_once(monkeypatch: pytest.MonkeyPatch, method: str, error: StoreError) -> None:
    """Let the store refuse the first call of one of its methods."""
    write: Callable[..., Any] = getattr(RedisRunStore, method)
    refused: list[str] = []

    async def refuses(self: RedisRunStore, run_id: str, *given: Any, **named: Any) -> Any:
        if not refused:
            refused.append(run_id)
            raise error
        return await write(self, run_id, *given, **named)

    monkeypatch.setattr(RedisRunStore, method, refuses)


@by_error
@pytest.mark.parametrize("fails", [False, True], ids=["completing", "failing"])
async def test_an_end_that_the_server_does_not_take_is_written_later(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, error: StoreError, *, fails: bool
) -> None:
    """The run ends in its first execution."""

    @fleet.agent
    async def ends(run: RunContext) -> int:
        if fails:
            raise ValueError("no")
        return run.attempt

    refuse_once(monkeypatch, "finish", error)
    async with working(fleet) as worker:
        handle = await fleet.submit(ends)
        await handle.result(timeout=30)
    state = RunState.FAILED if fails else RunState.COMPLETED
    run = await handle.snapshot()
    assert (run.state, run.attempt) == (state, 1)
    assert worker.counts == {"claimed": 1, state: 1}


async def test_an_end_outlasts_its_lease_while_the_server_takes_none(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker keeps trying as long as it holds the claim."""
    opened, tried = asyncio.Event(), asyncio.Event()
    finish: Callable[..., Any] = RedisRunStore.finish

    async def refuses(self: RedisRunStore, *given: Any, **named: Any) -> Any:
        if opened.is_set():
            return await finish(self, *given, **named)
        tried.set()
        raise StoreFullError("out of memory")

    monkeypatch.setattr(RedisRunStore, "finish", refuses)
    async with working(fleet, lease_seconds=1):
        handle = await fleet.submit("fine", 1)
        await tried.wait()
        # Without its heartbeats it would have been handed on by now.
        await asyncio.sleep(2.5)
        opened.set()
        assert await handle.output(timeout=30) == 2
    assert (await handle.snapshot()).attempt == 1


async def test_an_end_whose_claim_is_over_is_tried_no_more(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A deleted run frees its slot."""
    tried = asyncio.Event()

    async def refuses(*given: Any, **named: Any) -> Any:
        tried.set()
        raise StoreFullError("out of memory")

    async with working(fleet, lease_seconds=1) as worker:
        with monkeypatch.context() as patch:
            patch.setattr(RedisRunStore, "finish", refuses)
            handle = await fleet.submit("fine", 1)
            await tried.wait()
            await (await fleet.store()).delete(handle.run_id, force=True)

            async def is_given_up() -> bool:
                return worker.held == []

            await wait_until(is_given_up, "the worker hears that its claim is over")


@pytest.mark.parametrize("signals", [1, 2])
async def test_a_worker_that_stops_leaves_an_end_that_no_server_takes(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, signals: int
) -> None:
    """After its drain, or a second signal, it ends without the write."""
    tried = asyncio.Event()

    async def refuses(*given: Any, **named: Any) -> Any:
        tried.set()
        raise StoreFullError("out of memory")

    monkeypatch.setattr(RedisRunStore, "finish", refuses)
    worker = Worker(fleet, drain_seconds=0.1 if signals == 1 else 3600)
    task = asyncio.create_task(worker.run())
    handle = await fleet.submit("fine", 1)
    await tried.wait()
    for _ in range(signals):
        worker.stop()
    await asyncio.wait_for(task, 30)
    assert (worker.counts["left"], worker.held) == (1, [])
    assert (await handle.status()).state is RunState.RUNNING


async def is_done_again(fleet: Fleet, agent: Callable[..., Any]) -> None:
    """Execute a run of the agent: the first attempt is lost, and the second completes it."""
    async with working(fleet, lease_seconds=1) as worker:
        handle = await fleet.submit(agent)
        assert await handle.output(timeout=30) == 2
        assert worker.counts["left"] == 1
    run = await handle.snapshot()
    assert (run.state, run.attempt, run.failures) == (RunState.COMPLETED, 2, 0)


@by_error
@pytest.mark.parametrize("awaited", [False, True])
async def test_an_event_that_the_server_does_not_take_is_no_failure(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, error: StoreError, *, awaited: bool
) -> None:
    """The run is executed again instead of failing."""

    @fleet.agent
    async def emits(run: RunContext) -> int:
        written = run.emit("an event")
        if awaited:
            await written
        return run.attempt

    refuse_once(monkeypatch, "append_encoded", error)
    await is_done_again(fleet, emits)


@pytest.mark.parametrize(
    ("lease_seconds", "live_ttl_ms", "seconds"), [(15, 0, 5), (15, 3_000, 1), (3, 60_000, 1)]
)
def test_heartbeats_come_before_lease_and_run_are_over(
    lease_seconds: float, live_ttl_ms: int, seconds: float
) -> None:
    """The interval is a third of the shorter of both times."""
    assert heartbeat_seconds(lease_seconds, live_ttl_ms) == seconds


@pytest.mark.parametrize("call", ["claim", "control", "tend", "heartbeat"])
async def test_a_bug_ends_the_worker(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """An error that no retry can solve is raised by ``run`` and not retried for ever."""

    async def breaks(*_: Any, **__: Any) -> None:
        raise TypeError(call)

    @fleet.agent
    async def waits() -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(Queue, call, breaks)
    await fleet.submit(waits)
    worker = Worker(fleet, lease_seconds=1, drain_seconds=0)
    with pytest.raises(TypeError, match=call):
        await worker.run()
