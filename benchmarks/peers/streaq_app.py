"""streaq."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncGenerator

from benchmarks.peers.engine import CONCURRENCY, Engine, count_job, imported, server_url

streaq_worker = imported("streaq").Worker(redis_url=server_url(), concurrency=CONCURRENCY)


def worker(_url: str) -> list[str]:
    """One worker process."""
    return ["streaq", "run", f"{__name__}:streaq_worker"]


@streaq_worker.task()
async def noop() -> None:
    """Does nothing but count."""
    count_job()


@streaq_worker.task()
async def clock() -> float:
    """Returns the time at which it began, in Unix seconds."""
    return time.time()


@contextlib.asynccontextmanager
async def client(_url: str) -> AsyncGenerator[Engine]:
    """The same worker object submits jobs in the caller's process."""
    async with streaq_worker:

        async def submit() -> None:
            await noop.enqueue()

        async def ask() -> float:
            task = await clock.enqueue()
            return float((await task.result()).result)

        yield Engine(submit, ask)
