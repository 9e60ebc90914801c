"""A worker in the test's own event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, cast

from murmur_streams.fleet import Fleet
from murmur_streams.fleet.worker import Worker


@asynccontextmanager
async def working(fleet: Fleet, **options: Any) -> AsyncGenerator[Worker]:
    """Execute a fleet's runs while the block lasts; then close the fleet's connections.

    Args:
        fleet: whose agents.
        options: the keywords of ``Worker``, such as ``concurrency``.
    """
    if not isinstance(cast("object", fleet), Fleet):
        raise TypeError(
            f"murmur_worker takes a Fleet, not {fleet!r}: `async with murmur_worker(fleet):`"
        )
    worker = Worker(fleet, **options)
    task = asyncio.create_task(worker.run(), name="murmur_worker")
    try:
        yield worker
    finally:
        # Twice: a test that is over waits for no run.
        worker.stop()
        worker.stop()
        try:
            await task
        finally:
            await fleet.close()
