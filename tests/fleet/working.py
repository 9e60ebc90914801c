"""A worker in the test's own process, for what an agent's code does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from murmur_streams import Fleet
from murmur_streams.fleet.worker import Worker


@asynccontextmanager
async def working(fleet: Fleet, **options: Any) -> AsyncGenerator[Worker]:
    """Execute the fleet's runs; at the end the worker hands back what it still holds."""
    worker = Worker(fleet, **options)
    task = asyncio.create_task(worker.run())
    try:
        yield worker
    finally:
        worker.stop()
        worker.stop()
        await task
