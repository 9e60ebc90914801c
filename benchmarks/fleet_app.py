"""The agents that a benchmark's worker process executes."""

from __future__ import annotations

import asyncio
import time

from murmur_streams import Fleet, RunContext

fleet = Fleet()


@fleet.agent
async def noop() -> None:
    """Nothing at all."""


@fleet.agent
async def clock() -> float:
    """The moment at which it began, in Unix seconds."""
    return time.time()


@fleet.agent
async def sleeper(run: RunContext) -> None:
    """Waits to be cancelled and tells when it was."""
    try:
        # A cancel may come before the answer to this.
        await run.emit("began")
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        await run.emit("cancelled", time.time())
        raise
