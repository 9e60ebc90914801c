"""A worker in the test's own process, for what an agent's code does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

from murmur_streams import Fleet
from murmur_streams.core.model.errors import RemoteAgentError
from murmur_streams.core.model.states import RunState
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


async def outcome(fleet: Fleet, agent: Callable[..., Any]) -> tuple[RunState, RemoteAgentError]:
    """Execute a run of the agent, and another one after it; how the first ended."""
    async with working(fleet):
        handle = await fleet.submit(agent)
        result = await handle.result(timeout=30)
        assert await (await fleet.submit("fine", 1)).output(timeout=30) == 2
    assert isinstance(result.error, RemoteAgentError)
    run = await handle.snapshot()
    assert run.attempt == 1
    report = await (await fleet.store()).audit(handle.run_id)
    assert report.ok, report
    return run.state, result.error
