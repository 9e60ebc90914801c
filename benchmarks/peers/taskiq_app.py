"""taskiq over Redis Streams, with results; its worker uses uvloop."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncGenerator

from benchmarks.peers.engine import CONCURRENCY, Engine, count_job, imported, server_url

CHECK_SECONDS = 0.001
RESULT_SECONDS = 60

taskiq_redis = imported("taskiq_redis")
results = taskiq_redis.RedisAsyncResultBackend(server_url(), result_ex_time=RESULT_SECONDS)
broker = taskiq_redis.RedisStreamBroker(server_url()).with_result_backend(results)


def worker(_url: str) -> list[str]:
    """One worker process."""
    options = ["--workers", "1", "--max-async-tasks", str(CONCURRENCY), "--log-level", "WARNING"]
    return ["taskiq", "worker", f"{__name__}:broker", *options]


@broker.task
async def noop() -> None:
    """Does nothing but count."""
    count_job()


@broker.task
async def clock() -> float:
    """Returns the time at which it began, in Unix seconds."""
    return time.time()


@contextlib.asynccontextmanager
async def client(_url: str) -> AsyncGenerator[Engine]:
    """The broker in the caller's process."""
    await broker.startup()
    try:

        async def ask() -> float:
            task = await clock.kiq()
            result = await task.wait_result(check_interval=CHECK_SECONDS)
            return float(result.return_value)

        yield Engine(noop.kiq, ask)
    finally:
        await broker.shutdown()
