"""pydocket."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncGenerator

from benchmarks.peers.engine import CONCURRENCY, Engine, count_job, imported

NAME = "bench"


def worker(url: str) -> list[str]:
    """One worker process."""
    options = ["--url", url, "--docket", NAME, "--concurrency", str(CONCURRENCY)]
    return [
        "docket",
        "worker",
        "--tasks",
        f"{__name__}:tasks",
        "--logging-level",
        "ERROR",
        *options,
    ]


async def noop() -> None:
    """Does nothing but count."""
    count_job()


async def clock() -> float:
    """Returns the time at which it began, in Unix seconds."""
    return time.time()


tasks = [noop, clock]


@contextlib.asynccontextmanager
async def client(url: str) -> AsyncGenerator[Engine]:
    """A docket in the caller's process."""
    async with imported("docket").Docket(name=NAME, url=url) as docket:
        for task in tasks:
            docket.register(task)

        async def ask() -> float:
            execution = await docket.add(clock)()
            return float(await execution.get_result())

        async def submit() -> None:
            await docket.add(noop)()

        yield Engine(submit, ask)
