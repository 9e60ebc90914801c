"""The fleet of the tests: what a user's app.py would be."""

import asyncio
import contextlib
import os
import time
from pathlib import Path

from pydantic import BaseModel

from murmur_streams import Fleet, RunContext


class Question(BaseModel):
    text: str


fleet = Fleet()


@fleet.agent
async def echo(question: Question, run: RunContext) -> dict[str, str]:
    """Say what was asked."""
    await run.output(question.text)
    await run.progress(total=1, completed=1)
    return {"answer": question.text}


@fleet.agent
async def boom(question: Question) -> None:
    """Fail."""
    raise RuntimeError(question.text)


@fleet.agent
def gated(run: RunContext) -> str:
    """Begin, and wait until the test opens the gate."""
    run.emit("begun")
    while not Path(os.environ["TEST_GATE"]).exists():
        time.sleep(0.01)
    return "through"


@fleet.agent
async def waits(run: RunContext) -> None:
    """Begin, and wait until it is cancelled."""
    await run.emit("begun")
    await asyncio.Event().wait()


@fleet.agent(cancel_grace_seconds=0.1)
async def stubborn(run: RunContext) -> None:
    """Begin and never end, even after a cancel."""
    await run.emit("begun")
    while True:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0.01)


empty = Fleet()
not_a_fleet = "fleet"
