"""The work that the floors do, done through the store."""

from __future__ import annotations

import asyncio
import time

from benchmarks.measure import rate
from murmur_streams import RedisRunStore, RunEvent, RunEventType, RunState, new_run_id


def event_of(run_id: str, data: float) -> RunEvent:
    """A small event."""
    return RunEvent(type=RunEventType.LOG, run_id=run_id, data=data)


async def append(store: RedisRunStore, count: int, *, tasks: int = 1, runs: int = 1) -> float:
    """Appends a second, one after the other in each of ``tasks`` tasks, to ``runs`` runs."""
    run_ids = [new_run_id() for _ in range(runs)]
    for run_id in run_ids:
        await store.create(run_id, "bench")

    async def one(run_id: str) -> None:
        for number in range(count // tasks):
            await store.append(run_id, event_of(run_id, number))

    found = await rate(
        count, lambda: asyncio.gather(*(one(run_ids[task % runs]) for task in range(tasks)))
    )
    for run_id in run_ids:
        assert (await store.snapshot(run_id)).version == 1 + count // runs
        await store.delete(run_id, force=True)
    return found


async def delivery_ms(store: RedisRunStore, count: int) -> list[float]:
    """From an append to its arrival at a live subscriber, in milliseconds."""
    run_id, delays = new_run_id(), list[float]()
    await store.create(run_id, "bench")

    async def read() -> None:
        async for event in store.stream(run_id):
            delays.append((time.perf_counter() - float(str(event.data))) * 1000)

    task = asyncio.create_task(read())
    for _ in range(count):
        await asyncio.sleep(0.005)
        await store.append(run_id, event_of(run_id, time.perf_counter()))
    await store.finish(run_id, RunState.COMPLETED)
    await task
    assert len(delays) == count
    await store.delete(run_id)
    return delays


async def replay(store: RedisRunStore, run_id: str) -> int:
    """Read an ended run from its start; returns the number of its events."""
    return sum([1 async for _ in store.stream(run_id)])


async def ended_run(store: RedisRunStore, events: int) -> str:
    """Make an ended run of ``events`` events."""
    run_id, page = new_run_id(), 500
    await store.create(run_id, "bench")
    for first in range(0, events, page):
        here = range(first, min(first + page, events))
        await store.append(run_id, *(event_of(run_id, each) for each in here))
    await store.finish(run_id, RunState.COMPLETED)
    return run_id
