"""Works with many subscribers in one process, each on a run of its own."""

from __future__ import annotations

import asyncio
import gc
import time

import psutil

from benchmarks.harness.program import ready
from benchmarks.harness.results import Reading
from benchmarks.programs.bench import TARGET, Bench, in_tasks
from benchmarks.programs.reading import latencies

SETTLING_SECONDS = 1.0
LOOK_SECONDS = 0.5
MOST_SETTLING = 120
FEW_COMMANDS = 10
BATCH_SECONDS = 0.01
KIB = 1024


async def idle_runs(bench: Bench, run_ids: list[str]) -> list[Reading]:
    """Runs to follow, each with an event."""
    await in_tasks(bench.begin, run_ids)
    await _push_first(bench, run_ids)
    return []


async def idle(bench: Bench, run_ids: list[str], seconds: float) -> list[Reading]:
    """The cost of subscriptions while nothing happens.

    Another process has made the runs, so that this one has no memory to use again.
    """
    # What the first subscription brings is not the cost of one more.
    first = await _subscribe(bench, run_ids[:1], [])
    process = psutil.Process()
    gc.collect()
    before = process.memory_info().rss
    readers = await _subscribe(bench, run_ids[1:], [])
    await _settled(bench)
    gc.collect()
    taken = process.memory_info().rss - before
    began = bench.meter.mark()
    await asyncio.sleep(seconds)
    found = bench.meter.since(began, "idle", 1)
    watched = 1 / found.value
    await _cancel(readers + first)
    return [
        Reading("idle_commands", (found.commands or 0) / watched),
        Reading("idle_cpu", (found.client_us or 0) / 1e4 / watched),
        Reading("idle_kib", taken / KIB / len(run_ids)),
    ]


async def follow_many(
    bench: Bench, figure: str, run_ids: list[str], expected: int, at: float | None
) -> list[Reading]:
    """Subscribers while another process pushes ``expected`` events, spread over their runs."""
    delays: list[float] = []
    await in_tasks(bench.begin, run_ids)
    await _push_first(bench, run_ids)
    readers = await _subscribe(bench, run_ids, delays)
    await _settled(bench)
    ready()
    began = bench.meter.mark()
    while len(delays) < expected:
        before = len(delays)
        await asyncio.sleep(SETTLING_SECONDS)
        if len(delays) == before > 0:
            break
    cost = bench.meter.since(began, f"{figure}_cost", expected, at=at)
    await _cancel(readers)
    lost = Reading(f"{figure}_lost", expected - len(delays), at)
    return [*latencies(figure, delays, at), lost, cost]


async def feed_many(
    bench: Bench, run_ids: list[str], events: int, per_second: float
) -> list[Reading]:
    """Push events at a fixed rate, each to the next run."""
    kind, began, tasks = bench.library.RunEventType.AGENT_STARTED, time.monotonic(), set[object]()
    for first in range(0, events, batch := max(1, round(per_second * BATCH_SECONDS))):
        await asyncio.sleep(max(0, began + first / per_second - time.monotonic()))
        for number in range(first, min(first + batch, events)):
            run_id = run_ids[number % len(run_ids)]
            event = bench.event(kind, run_id, repr(time.monotonic()))
            task = asyncio.create_task(bench.store.push_event(run_id, event))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
    while tasks:  # noqa: ASYNC110  # every task ends by itself
        await asyncio.sleep(BATCH_SECONDS)
    return [Reading("fed", events / (time.monotonic() - began))]


async def _subscribe(
    bench: Bench, run_ids: list[str], delays: list[float]
) -> list[asyncio.Task[None]]:
    """Follow each run; return when each has yielded its first event."""
    arrived = asyncio.Semaphore(0)

    async def read(run_id: str) -> None:
        is_first = True
        async for event in bench.store.stream(run_id):
            if is_first:
                arrived.release()
                is_first = False
            else:
                delays.append((time.monotonic() - float(str(event.task_id))) * 1000)

    readers = [asyncio.create_task(read(run_id)) for run_id in run_ids]
    for _ in run_ids:
        await arrived.acquire()
    return readers


async def _settled(bench: Bench) -> None:
    """Wait until the subscriptions have read all that there is: on a busy machine, for a while."""
    for _ in range(MOST_SETTLING):
        began = bench.meter.mark()
        await asyncio.sleep(LOOK_SECONDS)
        if bench.meter.mark().commands - began.commands < FEW_COMMANDS:
            return


async def _push_first(bench: Bench, run_ids: list[str]) -> None:
    async def push(run_id: str) -> None:
        kind = bench.library.RunEventType.AGENT_STARTED
        await bench.store.push_event(run_id, bench.event(kind, run_id, TARGET))

    await in_tasks(push, run_ids)


async def _cancel(readers: list[asyncio.Task[None]]) -> None:
    for reader in readers:
        reader.cancel()
    await asyncio.gather(*readers, return_exceptions=True)


WORKS = (idle_runs, idle, follow_many, feed_many)
