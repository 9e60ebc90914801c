"""The agents of the simulated fleets: each ends in a way of its own."""

from __future__ import annotations

import asyncio
import contextlib
import random

from murmur_streams import Fleet, RunContext
from murmur_streams.fleet.policy import Backoff, RetryLater

SOON = Backoff(first_seconds=0.3, factor=1.5)


_ALL = Fleet("memory:")
"""Agents are made once: pydantic takes longer for that than a simulation takes."""


def simulated_fleet() -> Fleet:
    """A fleet of a process, with all agents."""
    fleet = Fleet("memory:")
    fleet._agents.update(_ALL._agents)
    return fleet


async def pause() -> None:
    """Work for a moment; a simulation seeds ``random``."""
    await asyncio.sleep(random.choice((0, 0.05, 0.4)) * random.random())


@_ALL.agent
async def steps(count: int, run: RunContext) -> int:
    done = run.last_checkpoint
    for number in range(done if isinstance(done, int) else 0, count):
        written = run.emit("step", f"{run.attempt}.{number}")
        if number % 2:
            await written
        await pause()
        run.progress(total=count, completed=number + 1)
        run.checkpoint(number + 1)
    return count


@_ALL.agent(retries=2, backoff=SOON)
async def flaky(count: int, run: RunContext) -> int:
    await run.emit("try", f"{run.attempt}")
    await pause()
    if run.attempt <= count:
        raise ValueError(f"attempt {run.attempt}")
    return run.attempt


@_ALL.agent(cancel_grace_seconds=1.0)
async def long(count: int, run: RunContext) -> int:
    try:
        await asyncio.sleep(1.5 * count)
    except asyncio.CancelledError:
        await run.emit("cleaned up", f"{run.attempt}")
        raise
    await run.emit("slept", f"{run.attempt}")
    return count


@_ALL.agent(cancel_grace_seconds=0.2)
async def stubborn(count: int, run: RunContext) -> int:
    for number in range(count):
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0.5)
        await run.emit("goes on", f"{run.attempt}.{number}")
    return count


@_ALL.agent(timeout=0.6, retries=1, backoff=SOON)
async def slow(count: int, run: RunContext) -> int:
    await run.emit("begins", f"{run.attempt}")
    await asyncio.sleep(count * 0.4)
    return count


@_ALL.agent
async def later(count: int, run: RunContext) -> int:
    await run.emit("looks", f"{run.attempt}")
    if run.attempt <= count:
        raise RetryLater(0.2)
    return run.attempt


@_ALL.agent
def blocking(count: int, run: RunContext) -> int:
    for number in range(count):
        run.emit("blocking", f"{run.attempt}.{number}")
    return count


AGENTS = ("steps", "steps", "flaky", "long", "stubborn", "slow", "later", "blocking")
