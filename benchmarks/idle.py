"""The cost of subscriptions while nothing happens."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any

from benchmarks.engine import event_of
from murmur_streams import RedisRunStore, RunState, new_run_id

SETTLING_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Idle:
    """The cost of idle subscriptions in one process."""

    subscriptions: int
    seconds: float
    commands_per_second: float
    connections: int
    cpu_percent: float
    """Of this process, of one core."""


async def idle_cost(store: RedisRunStore, admin: Any, subscriptions: int, seconds: float) -> Idle:
    """Follow runs that get no writes, each by one subscriber, and watch for a while."""
    run_ids = [new_run_id() for _ in range(subscriptions)]
    await asyncio.gather(*(store.create(run_id, "bench") for run_id in run_ids))
    await asyncio.gather(*(store.append(run_id, event_of(run_id, 0)) for run_id in run_ids))
    arrived = asyncio.Semaphore(0)
    readers = [asyncio.create_task(_read(store, run_id, arrived)) for run_id in run_ids]
    for _ in run_ids:
        await arrived.acquire()
    await asyncio.sleep(SETTLING_SECONDS)
    began, cpu, (commands, _) = time.perf_counter(), time.process_time(), await others(admin)
    await asyncio.sleep(seconds)
    watched, busy = time.perf_counter() - began, time.process_time() - cpu
    sent, connections = await others(admin)
    await asyncio.gather(*(store.finish(run_id, RunState.COMPLETED) for run_id in run_ids))
    await asyncio.gather(*readers)
    await asyncio.gather(*(store.delete(run_id) for run_id in run_ids))
    return Idle(
        subscriptions,
        watched,
        max(0, sent - commands) / watched,
        connections,
        100 * busy / watched,
    )


async def _read(store: RedisRunStore, run_id: str, arrived: asyncio.Semaphore) -> None:
    async for _ in store.stream(run_id):
        arrived.release()


async def others(admin: Any) -> tuple[int, int]:
    """The commands and connections of all clients but this one."""
    me = str(await admin.client_id())
    rows = [row for row in await admin.client_list() if row["id"] != me]
    return sum(int(row["tot-cmds"]) for row in rows), len(rows)
