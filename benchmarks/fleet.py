"""One worker process: runs a second, how soon a run begins, how soon a cancel arrives, idleness."""

from __future__ import annotations

import asyncio
import contextlib
import os
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncGenerator
from typing import Any

from benchmarks.idle import others
from benchmarks.measure import Figure, rate
from murmur_streams import Fleet, RunHandle, RunState
from murmur_streams.core.model.errors import RunCancelledError

PREFIX = "bench-fleet"
CONCURRENCY = 100
SUBMITTERS = 100
SETTLING_SECONDS = 3.0
LOOK_SECONDS = 0.005


@contextlib.asynccontextmanager
async def worker_process(
    url: str, ttl_seconds: int = 3600
) -> AsyncGenerator[subprocess.Popen[str]]:
    """A worker in a process of its own, as an operator starts it, ready to work."""
    environment = os.environ | {
        "MURMUR_TTL_SECONDS": str(ttl_seconds),
        "MURMUR_LOG_LEVEL": "warning",
    }
    command = [sys.executable, "-m", "murmur_streams", "worker", "benchmarks.fleet_app:fleet"]
    command += ["--url", url, "--prefix", PREFIX, "--concurrency", str(CONCURRENCY), "--json"]
    process = await asyncio.to_thread(
        subprocess.Popen[str], command, env=environment, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert '"worker"' in await asyncio.to_thread(process.stdout.readline)
        yield process
    finally:
        process.terminate()
        await asyncio.to_thread(process.communicate)


async def run_noops(fleet: Fleet, count: int) -> None:
    """Submit runs from many tasks at the same time, and wait until none waits or runs."""

    async def submitter() -> None:
        for _ in range(count // SUBMITTERS):
            await fleet.submit("noop")

    await asyncio.gather(*(submitter() for _ in range(SUBMITTERS)))
    store = await fleet.store()
    for state in (RunState.PENDING, RunState.RUNNING):
        # The workers are other processes, so an asyncio.Event cannot replace this poll.
        while (await store.list_runs(state=state, limit=1)).runs:  # noqa: ASYNC110
            await asyncio.sleep(LOOK_SECONDS)


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
    """The figures of one worker process; latencies are the medians of a round."""

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
    """Commands per second, and connections, of a worker without work."""
    await asyncio.sleep(SETTLING_SECONDS)
    sent, began = 0, time.perf_counter()
    # CLIENT LIST counts commands inside scripts as well, so MONITOR is used.
    async with admin.monitor() as monitor:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while True:
                    command = await monitor.next_command()
                    is_keepers = str(command["command"]).startswith("INFO")
                    sent += command["client_type"] != "lua" and not is_keepers
    watched = time.perf_counter() - began
    _, connections = await others(admin)
    return sent / watched, connections
