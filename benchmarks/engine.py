"""The same work through the store and the fleet."""

from __future__ import annotations

import asyncio
import time

from murmur_streams import RedisRunStore, RunEvent, RunEventType, RunState, new_run_id


def _event(run_id: str, data: float) -> RunEvent:
    return RunEvent(type=RunEventType.LOG, run_id=run_id, data=data)


async def append_in_turn(store: RedisRunStore, count: int) -> None:
    """Append one event after the other to one run."""
    run_id = new_run_id()
    await store.create(run_id, "bench")
    for number in range(count):
        await store.append(run_id, _event(run_id, number))
    await store.delete(run_id, force=True)


async def append_at_once(store: RedisRunStore, tasks: int, each: int, *, runs: int) -> None:
    """Append from many tasks to ``runs`` runs."""
    run_ids = [new_run_id() for _ in range(runs)]
    for run_id in run_ids:
        await store.create(run_id, "bench")

    async def one(run_id: str) -> None:
        for number in range(each):
            await store.append(run_id, _event(run_id, number))

    await asyncio.gather(*(one(run_ids[task % runs]) for task in range(tasks)))
    for run_id in run_ids:
        await store.delete(run_id, force=True)


async def delivery_ms(store: RedisRunStore, count: int) -> list[float]:
    """Append to the arrival at a live subscriber, in milliseconds."""
    run_id, delays = new_run_id(), list[float]()
    await store.create(run_id, "bench")

    async def read() -> None:
        async for event in store.stream(run_id):
            delays.append((time.perf_counter() - float(str(event.data))) * 1000)

    task = asyncio.create_task(read())
    for _ in range(count):
        await asyncio.sleep(0.005)
        await store.append(run_id, _event(run_id, time.perf_counter()))
    await store.finish(run_id, RunState.COMPLETED)
    await task
    return delays


async def replay(store: RedisRunStore, run_id: str) -> int:
    """Read an ended run from its start; how many events that were."""
    return sum([1 async for _ in store.stream(run_id)])


async def ended_run(store: RedisRunStore, events: int) -> str:
    """Make an ended run of ``events`` events."""
    run_id, page = new_run_id(), 500
    await store.create(run_id, "bench")
    for first in range(0, events, page):
        await store.append(run_id, *(_event(run_id, first + each) for each in range(page)))
    await store.finish(run_id, RunState.COMPLETED)
    return run_id
