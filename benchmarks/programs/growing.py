"""Works that show what a run costs: its memory, and the server's time while many are alive.

They use the queue of our stores, which murmur-runtime does not have.
"""

from __future__ import annotations

import uuid
from contextlib import AsyncExitStack
from importlib import import_module
from typing import Any

from benchmarks.harness.results import Reading
from benchmarks.harness.servers import driver
from benchmarks.programs.bench import TARGET, Bench, in_tasks

LEASE_SECONDS = 3600.0
WORKER = "bench-worker"


async def memory(bench: Bench, count: int) -> list[Reading]:
    """The bytes of all keys of a live and of a finished run of six entries, without payload."""
    store, library = bench.store, bench.library
    states, kind = library.RunState, library.RunEventType.AGENT_STARTED

    # Ours writes the last event and the state in one entry; murmur-runtime has no such call.
    finish = getattr(store, "finish", store.set_state)

    async def push(run_id: str, events: int) -> None:
        for _ in range(events):
            await store.push_event(run_id, library.RunEvent(type=kind, run_id=run_id))

    async def fill(run_id: str) -> None:
        await push(run_id, 4)

    async def end(run_id: str) -> None:
        await push(run_id, 3)
        await finish(run_id, states.COMPLETED)

    live, finished = await bench.begin_many(count), await bench.begin_many(count)
    await in_tasks(fill, live)
    await in_tasks(end, finished)
    async with driver(bench.address) as admin:
        sizes = await _sizes(admin, live + finished)
    return [
        Reading("memory_live", sum(sizes[run_id] for run_id in live) / count),
        Reading("memory_finished", sum(sizes[run_id] for run_id in finished) / count),
    ]


async def growth(bench: Bench, live: list[int], count: int, rounds: int) -> list[Reading]:
    """The server's time to create, submit and claim a run beside so many live runs.

    Each number of runs has a key prefix of its own; the rounds alternate between the prefixes.
    """
    library, found = bench.library, list[Reading]()
    async with AsyncExitStack() as stack:
        stores: dict[int, Any] = {}
        for number in live:
            store = library.RedisRunStore(bench.address, key_prefix=f"live-{number}")
            stores[number] = await stack.enter_async_context(store)
            await stores[number].queue(LEASE_SECONDS).prepare([TARGET])

            async def submit(run_id: str, store: Any = store) -> None:
                await store.submit(run_id, TARGET)

            await in_tasks(submit, _ids(number))
        for number in range(-1, rounds):
            for at in live:
                readings = await _grown(bench, stores[at], at, count)
                # The first round is a warm-up.
                found.extend(readings if number >= 0 else ())
    return found


async def _grown(bench: Bench, store: Any, live: int, count: int) -> list[Reading]:
    created, submitted = _ids(count), _ids(count)
    queue, claims = store.queue(LEASE_SECONDS), list[Any]()
    rule = import_module("murmur_streams.core.model.work").TargetRule(TARGET)

    async def create() -> None:
        for run_id in created:
            await store.create(run_id, TARGET)

    async def append() -> None:
        for run_id in created:
            await store.push_event(run_id, bench.events(run_id, 1)[0])

    async def submit() -> None:
        for run_id in submitted:
            await store.submit(run_id, TARGET)

    async def claim() -> None:
        for _ in range(count):
            claims.extend((await queue.claim(WORKER, [rule], 1)).claims)

    async def delete(run_id: str) -> None:
        await store.delete(run_id, force=True)

    works = {"create": create, "append": append, "submit": submit, "claim": claim}
    found = [
        await bench.meter.rate(f"growth_{name}", count, work, at=live)
        for name, work in works.items()
    ]
    assert len(claims) == count
    # As many runs are alive in the next round.
    gone = [*created, *(claim.run_id for claim in claims)]
    await in_tasks(delete, gone)
    return found


def _ids(count: int) -> list[str]:
    return [str(uuid.uuid4()) for _ in range(count)]


async def _sizes(admin: Any, run_ids: list[str]) -> dict[str, int]:
    sizes = dict.fromkeys(run_ids, 0)
    async for key in admin.scan_iter(count=1000):
        run_id = key.decode().rpartition(":")[2]
        if run_id in sizes:
            sizes[run_id] += int(await admin.memory_usage(key, samples=0) or 0)
    return sizes


WORKS = (memory, growth)
