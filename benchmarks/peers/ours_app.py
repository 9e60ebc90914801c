"""This library."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator
from typing import Any

from benchmarks.peers.engine import CONCURRENCY, Engine, count_job
from murmur_streams import Fleet, RunContext, RunHandle
from murmur_streams.core.model.errors import RunCancelledError

PREFIX = "bench"
fleet = Fleet()


def worker(url: str) -> list[str]:
    """A worker process as an operator starts it."""
    options = ["--url", url, "--prefix", PREFIX, "--concurrency", str(CONCURRENCY)]
    return ["murmur_streams", "worker", f"{__name__}:fleet", *options]


@fleet.agent
async def noop() -> None:
    """Does nothing but count."""
    count_job()


@fleet.agent
async def clock() -> float:
    """Returns the time at which it began, in Unix seconds."""
    return time.time()


@fleet.agent
async def sleeper(run: RunContext) -> None:
    """Waits to be cancelled, and reports when it was."""
    try:
        # The cancel may arrive while this call waits for its reply.
        await run.emit("began")
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        await run.emit("cancelled", time.time())
        raise


@contextlib.asynccontextmanager
async def client(url: str) -> AsyncGenerator[Engine]:
    """A fleet in the caller's process."""
    async with Fleet(url, key_prefix=PREFIX) as caller:

        async def ask() -> float:
            handle: RunHandle[Any] = await caller.submit("clock")
            return float(await handle.output())

        async def cancel() -> float:
            handle: RunHandle[Any] = await caller.submit("sleeper")
            began = delay = 0.0
            async for event in handle.stream():
                if event.name == "began":
                    began = time.time()
                    await handle.cancel()
                elif event.name == "cancelled":
                    delay = (float(str(event.data)) - began) * 1000
            with contextlib.suppress(RunCancelledError):
                await handle.output()
            return delay

        yield Engine(lambda: caller.submit("noop"), ask, cancel)
