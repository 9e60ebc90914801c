"""The agents of a chaos run's workers: ``murmur-streams worker tests.chaos.agents:fleet``."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from murmur_streams import Backoff, Fleet, RunContext

fleet = Fleet()
_SOON = Backoff(first_seconds=0.05, most_seconds=0.5)


@dataclass(frozen=True, slots=True)
class Job:
    """What an execution does."""

    events: int
    pause_seconds: float
    failures: int
    """How many executions fail after their events."""


@fleet.agent(retries=100, max_attempts=0, backoff=_SOON)
async def count(job: Job, run: RunContext) -> int:
    """Write numbered events, with a checkpoint and progress."""
    for number in range(job.events):
        await run.emit("number", number)
        run.progress(total=job.events, completed=number + 1)
        await asyncio.sleep(job.pause_seconds)
    await run.checkpoint(run.attempt)
    if run.attempt <= job.failures:
        raise ConnectionError("a failure that was asked for")
    return job.events


@fleet.agent(retries=100, max_attempts=0, backoff=_SOON)
def count_in_thread(job: Job, run: RunContext) -> int:
    """The same in a thread, without waiting for each write."""
    for number in range(job.events):
        run.emit("number", number)
        time.sleep(job.pause_seconds)
    if run.attempt <= job.failures:
        raise ConnectionError("a failure that was asked for")
    return job.events
