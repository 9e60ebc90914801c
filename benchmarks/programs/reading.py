"""Works that read: delivery in this process and from another one, and the replay of a run."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time
from typing import Any

from benchmarks.harness.program import ready
from benchmarks.harness.results import Reading, quantile
from benchmarks.programs.bench import PATIENCE_SECONDS, Bench
from benchmarks.programs.writing import fill

PAUSE_SECONDS = 0.01
"""Between two events of the delivery: 100 a second."""
LOOK_SECONDS = 0.002
FIRST_EVENTS = 2
"""The first event that the reader gets, and the first one of the feed. Each may open a connection,
so neither is counted; the floor's first entry is not counted either."""
REPLAY_SECONDS = 60.0


async def deliver(bench: Bench, count: int) -> list[Reading]:
    """From before push_event to the arrival at a live subscriber of this process."""
    run_id, delays = await bench.begin(), list[float]()
    reader = asyncio.create_task(_read(bench, run_id, delays))
    await _followed(bench, run_id, delays)
    await feed(bench, run_id, count)
    await asyncio.wait({reader}, timeout=PATIENCE_SECONDS)
    await _stop(reader)
    return latencies("delivery", delays[FIRST_EVENTS:])


async def follow(bench: Bench, run_id: str) -> list[Reading]:
    """The same, while another process pushes the events."""
    delays: list[float] = []
    await bench.begin(run_id)
    reader = asyncio.create_task(_read(bench, run_id, delays))
    await _followed(bench, run_id, delays)
    ready()
    await reader
    return latencies("delivery_other", delays[FIRST_EVENTS:])


async def feed(bench: Bench, run_id: str, count: int) -> list[Reading]:
    """Push events at a fixed rate, each with the time before its push; then end the run.

    The first one is not counted, so it is one more than ``count``.
    """
    kind, began = bench.library.RunEventType.AGENT_STARTED, time.monotonic()
    for number in range(count + 1):
        await asyncio.sleep(max(0, began + number * PAUSE_SECONDS - time.monotonic()))
        await bench.store.push_event(run_id, bench.event(kind, run_id, _now()))
    await bench.end(run_id, _now)
    return []


async def replay(bench: Bench, run_id: str, count: int) -> list[Reading]:
    """Read an ended run from its start; in memory it is made first."""
    if bench.kind == "memory":
        await fill(bench, run_id, count)
    assert (await bench.store.get_status(run_id)).run_id == run_id
    gc.collect()
    came, began = 0, bench.meter.mark()
    async with asyncio.timeout(REPLAY_SECONDS):
        async for _ in bench.store.stream(run_id):
            came += 1
    found = bench.meter.since(began, "replay", came)
    return [found, Reading("replayed", came)]


def latencies(figure: str, delays: list[float], at: float | None = None) -> list[Reading]:
    """The median, the p99 and the number of delays."""
    ordered = sorted(delays)
    return [
        Reading(f"{figure}_p50", quantile(ordered, 0.5), at, samples=delays),
        Reading(f"{figure}_p99", quantile(ordered, 0.99), at),
        Reading(f"{figure}_count", len(delays), at),
    ]


async def _read(bench: Bench, run_id: str, delays: list[float]) -> None:
    async for event in bench.store.stream(run_id):
        sent_at = float(str(event.task_id))
        delays.append((time.monotonic() - sent_at) * 1000)


async def _followed(bench: Bench, run_id: str, delays: list[float]) -> None:
    kind: Any = bench.library.RunEventType.AGENT_STARTED
    await bench.store.push_event(run_id, bench.event(kind, run_id, _now()))
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not delays:  # noqa: ASYNC110  # until the reader follows
            await asyncio.sleep(LOOK_SECONDS)


def _now() -> str:
    return repr(time.monotonic())


async def _stop(reader: asyncio.Task[None]) -> None:
    if reader.done():
        reader.result()
        return
    reader.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await reader


WORKS = (deliver, follow, feed, replay)
