"""The agents that the tests' worker processes execute. An agent's input says what it does."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import cast

from pydantic import BaseModel

from murmur_streams import Fleet, RunContext
from murmur_streams.core.model.errors import LeaseLostError

GATE_LOOK_SECONDS = 0.01
BURNT_TURNS = 10_000
"""Between two looks of one that burns."""

fleet = Fleet()


class Job(BaseModel):
    """The work to do."""

    steps: int = 0
    pause_seconds: float = 0.0
    gate: str = ""
    """A file: go on when it exists."""
    journal: str = ""
    """A file: write a line for each thing that happens to the agent."""


class Report(BaseModel):
    """The work that was done."""

    total: int
    pid: int


def is_open(job: Job) -> bool:
    """Whether the job's gate is open."""
    return Path(job.gate).exists()


def note(job: Job, attempt: int, what: str) -> None:
    """Append a line to the job's file."""
    if job.journal:
        with Path(job.journal).open("a", encoding="utf-8") as file:
            file.write(f"{attempt} {what}\n")


@fleet.agent(max_attempts=0)
async def counts(job: Job, run: RunContext) -> Report:
    """Emits its steps, with pauses."""
    for step in range(job.steps):
        await run.emit("step", step)
        run.progress(total=job.steps, completed=step + 1)
        await asyncio.sleep(job.pause_seconds)
    return Report(total=sum(range(job.steps)), pid=os.getpid())


@fleet.agent(max_attempts=0)
def counts_blocking(job: Job, run: RunContext) -> Report:
    """The same in a thread."""
    for step in range(job.steps):
        run.emit("step", step)
        time.sleep(job.pause_seconds)
    return Report(total=sum(range(job.steps)), pid=os.getpid())


@fleet.agent
def burns(job: Job) -> Report:
    """Keeps a core busy with Python code until its gate opens."""
    turns = 0
    while turns % BURNT_TURNS or not is_open(job):
        turns += 1
    return Report(total=turns, pid=os.getpid())


@fleet.agent
async def waits(job: Job, run: RunContext) -> Report:
    """Begins, and ends when its gate opens."""
    await run.emit("began")
    note(job, run.attempt, "began")
    try:
        while not is_open(job):  # noqa: ASYNC110  # the gate is a file, not an Event
            await asyncio.sleep(GATE_LOOK_SECONDS)
    except asyncio.CancelledError:
        note(job, run.attempt, "cancelled")
        raise
    await run.emit("went on")
    return Report(total=run.attempt, pid=os.getpid())


@fleet.agent
def waits_blocking(job: Job, run: RunContext) -> Report:
    """The same in a thread; writes to its file when it may no longer write to the run."""
    run.emit("began")
    note(job, run.attempt, "began")
    while not is_open(job):
        time.sleep(GATE_LOOK_SECONDS)
    try:
        run.emit("went on")
    except LeaseLostError:
        note(job, run.attempt, "fenced")
        raise
    return Report(total=run.attempt, pid=os.getpid())


@fleet.agent
async def will_not_go(job: Job, run: RunContext) -> Report:
    """Goes on writing until it was both cancelled and fenced."""
    seen: set[str] = set()
    while not is_open(job) and seen != {"cancelled", "fenced"}:
        try:
            await run.emit("tick")
            await asyncio.sleep(GATE_LOOK_SECONDS)
        except LeaseLostError:
            seen.add("fenced")
        except asyncio.CancelledError:
            seen.add("cancelled")
    for line in sorted(seen):
        note(job, run.attempt, line)
    return Report(total=run.attempt, pid=os.getpid())


@fleet.agent
def dies_once(job: Job, run: RunContext) -> Report:
    """Takes its process with it, the first time."""
    run.emit("began")
    if run.attempt == 1:
        os._exit(9)
    return Report(total=run.attempt, pid=os.getpid())


@fleet.agent(max_attempts=0)
async def blocks_the_loop(job: Job, run: RunContext) -> Report:
    """Keeps its worker's event loop from everything, the first time."""
    if run.attempt == 1:
        note(job, run.attempt, "blocked")
        time.sleep(job.pause_seconds)  # noqa: ASYNC251  # that is the fault
    await run.emit("went on")
    return Report(total=sum(range(job.steps)), pid=os.getpid())


@fleet.agent
async def keeps_its_position(job: Job, run: RunContext) -> Report:
    """Keeps a checkpoint, the first time, and waits for its gate."""
    if run.last_checkpoint is None:
        await run.checkpoint({"step": 1})
    while not is_open(job):  # noqa: ASYNC110  # the gate is a file, not an Event
        await asyncio.sleep(GATE_LOOK_SECONDS)
    checkpoint = cast("dict[str, int]", run.last_checkpoint)
    return Report(total=10 * run.attempt + checkpoint["step"], pid=os.getpid())


@fleet.agent(cancel_grace_seconds=0.2)
async def swallows_everything(job: Job, run: RunContext) -> Report:
    """Never ends, even after a cancel."""
    await run.emit("began")
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            note(job, run.attempt, "cancelled")


@fleet.agent(cancel_grace_seconds=0.2)
def sleeps_on(job: Job, run: RunContext) -> Report:
    """Never ends either, in its thread."""
    run.emit("began")
    while True:
        time.sleep(3600)
