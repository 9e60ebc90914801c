"""The figures of the engine, each with the floors that it is compared with."""

from __future__ import annotations

import statistics
from typing import Any

from benchmarks import engine, floors
from benchmarks.measure import Figure, rate
from benchmarks.raw import Raw
from murmur_streams import RedisRunStore
from murmur_streams.stores.redis.store import server_of

TASKS = 100
TOGETHER = 100
MINIMAL, OWN = "minimal script", "our script"
IN_TURN, PIPELINED = "in turn", f"by {TOGETHER}"


def floor_figures(
    store: RedisRunStore, client: Any, pool: Any, raw: Raw, size: int
) -> list[Figure]:
    """Both scripts through redis-py and raw, in turn and pipelined; and 100 tasks on a pool."""
    found: list[Figure] = []
    for way, send in (("redis-py", floors.through(client)), ("raw", raw.send)):
        for how, together in ((IN_TURN, 1), (PIPELINED, TOGETHER)):

            async def minimal(send: floors.Send = send, together: int = together) -> float:
                return await floors.minimal(client, send, size, together)

            async def own(send: floors.Send = send, together: int = together) -> float:
                return await floors.own(store, send, size, together)

            found.append(Figure(f"floor: {MINIMAL}, {way}, {how}", "/s", minimal, events=size))
            found.append(Figure(f"floor: {OWN}, {way}, {how}", "/s", own, events=size))

    async def crowd() -> float:
        return await floors.minimal(pool, floors.through(pool), size, 1, TASKS)

    name = f"floor: {MINIMAL}, redis-py, {TASKS} tasks"
    return [*found, Figure(name, "/s", crowd, events=size)]


def append_figures(store: RedisRunStore, size: int) -> list[Figure]:
    """Append through the store."""
    in_turn = tuple(f"floor: {what}, raw, {IN_TURN}" for what in (MINIMAL, OWN))
    pipelined = tuple(f"floor: {what}, raw, {PIPELINED}" for what in (MINIMAL, OWN))

    async def alone() -> float:
        return await engine.append(store, size)

    async def one_run() -> float:
        return await engine.append(store, size, tasks=TASKS)

    async def many_runs() -> float:
        return await engine.append(store, size, tasks=TASKS, runs=TASKS)

    return [
        Figure("append, in turn", "/s", alone, in_turn, size),
        Figure(f"append, {TASKS} tasks on one run", "/s", one_run, pipelined, size),
        Figure(f"append, {TASKS} tasks on {TASKS} runs", "/s", many_runs, pipelined, size),
    ]


def delivery_figures(store: RedisRunStore, client: Any, reader: Any, count: int) -> list[Figure]:
    """From a write to its arrival in this process, the median of a round."""

    async def floor() -> float:
        return statistics.median(await floors.delivery_ms(client, reader, count))

    async def delivery() -> float:
        return statistics.median(await engine.delivery_ms(store, count))

    name = "floor: XADD to XREAD BLOCK"
    return [Figure(name, "ms", floor), Figure("append to subscriber", "ms", delivery, (name,))]


def replay_figures(store: RedisRunStore, client: Any, run_id: str, events: int) -> list[Figure]:
    """Read a whole ended run."""
    journal = server_of(store).keys.journal(run_id)

    async def floor() -> float:
        return await rate(events, lambda: floors.read_journal(client, journal))

    async def replay() -> float:
        return await rate(events, lambda: engine.replay(store, run_id))

    name = "floor: XRANGE by 256, redis-py"
    return [
        Figure(name, "/s", floor),
        Figure(f"replay of {events:,} events", "/s", replay, (name,)),
    ]
