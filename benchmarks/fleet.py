"""One worker process: runs a second, how soon a run begins, how soon a cancel arrives, idleness."""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncGenerator
from typing import Any

from benchmarks.fleet_app import noop
from benchmarks.idle import others
from benchmarks.measure import Figure, rate
from murmur_streams import Fleet, RunHandle
from murmur_streams.core.errors import RunCancelledError

PREFIX = "bench-fleet"
CONCURRENCY = 100
SUBMITTERS = 100


@contextlib.asynccontextmanager
async def worker_process(url: str) -> AsyncGenerator[subprocess.Popen[str]]:
    """A worker in a process of its own, as an operator starts it, ready to work."""
    command = [sys.executable, "-m", "murmur_streams", "worker", "benchmarks.fleet_app:fleet"]
    command += ["--url", url, "--prefix", PREFIX, "--concurrency", str(CONCURRENCY), "--json"]
    process = await asyncio.to_thread(
        subprocess.Popen[str], command, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert '"worker"' in await asyncio.to_thread(process.stdout.readline)
        yield process
    finally:
        process.terminate()
        await asyncio.to_thread(process.communicate)


async def submit_noops(fleet: Fleet, count: int) -> list[RunHandle[None]]:
    """Submit runs from many tasks at the same time."""
    handles: list[RunHandle[None]] = []

    async def submitter() -> None:
        for _ in range(count // SUBMITTERS):
            handles.append(await fleet.submit(noop))  # noqa: PERF401  # many tasks share it

    await asyncio.gather(*(submitter() for _ in range(SUBMITTERS)))
    return handles


async def run_noops(fleet: Fleet, count: int) -> None:
    """Submit runs and wait until the last has ended."""
    left = {handle.run_id for handle in await submit_noops(fleet, count)}
    store = await fleet.store()
    while left:
        page = await asyncio.gather(*(store.snapshot(run_id) for run_id in list(left)[:500]))
        left -= {run.run_id for run in page if run.state.is_terminal}


async def start_ms(fleet: Fleet, count: int) -> list[float]:
    """From before the submit to the first line of the agent, one run at a time."""
    delays: list[float] = []
    for _ in range(count):
        began = time.time()
        handle: RunHandle[Any] = await fleet.submit("clock")
        delays.append((await handle.output() - began) * 1000)
    return delays


async def cancel_ms(fleet: Fleet, count: int) -> list[float]:
    """From before cancel() to the CancelledError in the agent, one run at a time."""
    delays: list[float] = []
    for _ in range(count):
        handle: RunHandle[Any] = await fleet.submit("sleeper")
        began = 0.0
        async for event in handle.stream():
            if event.name == "began":
                began = time.time()
                await handle.cancel()
            elif event.name == "cancelled":
                delays.append((float(str(event.data)) - began) * 1000)
        with contextlib.suppress(RunCancelledError):
            await handle.output()
    assert len(delays) == count
    return delays


def fleet_figures(fleet: Fleet, runs: int, deliveries: int) -> list[Figure]:
    """What one worker process does; latencies are the medians of a round."""

    async def noops() -> float:
        return await rate(runs, lambda: run_noops(fleet, runs))

    async def start() -> float:
        return statistics.median(await start_ms(fleet, deliveries))

    async def cancel() -> float:
        return statistics.median(await cancel_ms(fleet, deliveries))

    floor = ("floor: XADD to XREAD BLOCK",)
    return [
        Figure("no-op runs, one worker process", "/s", noops),
        Figure("submit to start", "ms", start, floor),
        Figure("cancel() to CancelledError", "ms", cancel, floor),
    ]


async def idle_worker(admin: Any, seconds: float) -> tuple[float, int]:
    """Commands a second, and connections, of a worker that has nothing to do."""
    commands, _ = await others(admin)
    began = time.perf_counter()
    await asyncio.sleep(seconds)
    sent, connections = await others(admin)
    return max(0, sent - commands) / (time.perf_counter() - began), connections
