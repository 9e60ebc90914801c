"""dramatiq, with its results; its calls are synchronous."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator

from benchmarks.peers.engine import CONCURRENCY, Engine, count_job, imported, server_url

TIMEOUT_MS = 30_000

dramatiq = imported("dramatiq")
broker = imported("dramatiq.brokers.redis").RedisBroker(url=server_url())
_backend = imported("dramatiq.results.backends").RedisBackend(url=server_url())
broker.add_middleware(imported("dramatiq.results").Results(backend=_backend))
dramatiq.set_broker(broker)


def worker(_url: str) -> list[str]:
    """One worker process, with a thread for each job."""
    return ["dramatiq", __name__, "--processes", "1", "--threads", str(CONCURRENCY)]


@dramatiq.actor
def noop() -> None:
    """Does nothing but count."""
    count_job()


@dramatiq.actor(store_results=True)
def clock() -> float:
    """Returns the time at which it began, in Unix seconds."""
    return time.time()


@contextlib.asynccontextmanager
async def client(_url: str) -> AsyncGenerator[Engine]:
    """The broker in the caller's process."""

    async def submit() -> None:
        noop.send()
        await asyncio.sleep(0)

    async def ask() -> float:
        return float(clock.send().get_result(block=True, timeout=TIMEOUT_MS))

    yield Engine(submit, ask)
