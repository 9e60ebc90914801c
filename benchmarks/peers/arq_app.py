"""arq."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncGenerator
from typing import Any

from benchmarks.peers.engine import CONCURRENCY, Engine, count_job, imported, server_url

POLL_SECONDS = 0.001
_settings = imported("arq.connections").RedisSettings.from_dsn(server_url())


def worker(_url: str) -> list[str]:
    """One worker process."""
    return ["arq", f"{__name__}.WorkerSettings"]


async def noop(_context: Any) -> None:
    """Does nothing but count."""
    count_job()


async def clock(_context: Any) -> float:
    """Returns the time at which it began, in Unix seconds."""
    return time.time()


class WorkerSettings:
    """arq's way to describe a worker."""

    functions = (noop, clock)
    redis_settings = _settings
    max_jobs = CONCURRENCY


@contextlib.asynccontextmanager
async def client(_url: str) -> AsyncGenerator[Engine]:
    """A pool in the caller's process."""
    pool = await imported("arq").create_pool(_settings)
    try:

        async def ask() -> float:
            job = await pool.enqueue_job("clock")
            return float(await job.result(poll_delay=POLL_SECONDS))

        yield Engine(lambda: pool.enqueue_job("noop"), ask)
    finally:
        await pool.aclose()
