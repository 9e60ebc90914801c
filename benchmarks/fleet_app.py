"""The agents that a benchmark's worker process executes."""

from __future__ import annotations

import asyncio
import time

from murmur_streams import Fleet, RunContext

fleet = Fleet()


@fleet.agent
async def noop() -> None:
    """Does nothing."""


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
