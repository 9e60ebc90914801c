"""A subscriber: it follows one run by its events, and resumes after a cut."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field

from rich.progress import TaskID

from code_review.agents import Report
from code_review.files import Batch
from murmur_streams import RunEvent, RunEventType, RunHandle, RunState


@dataclass
class Watched:
    """One run, as its subscriber sees it."""

    batch: Batch
    handle: RunHandle[Report]
    bar: TaskID
    seen: list[RunEvent] = field(default_factory=list[RunEvent])
    state: RunState = RunState.PENDING
    attempt: int = 0
    worker: str | None = None
    done: int = 0
    findings: int = 0
    cut_after: int | None = None
    """The seq of the last event before its subscriber was cut."""
    subscription: asyncio.Task[None] | None = None
    resume: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def expected_events(self) -> float:
        """About how many events are still to come, by those so far."""
        return (len(self.batch.files) - self.done) * self.findings / max(1, self.done)

    async def watch(self) -> None:
        """Read the run's events to its end; after a cut, resume at the cursor of the last one."""
        while not self.state.is_terminal:
            self.subscription = asyncio.create_task(self._read_events())
            await asyncio.wait([self.subscription])
            if self.subscription.cancelled():
                await self.resume.wait()
            else:
                self.subscription.result()

    async def _read_events(self) -> None:
        after = self.seen[-1].id if self.seen else None
        async with contextlib.aclosing(self.handle.stream(after=after)) as events:
            async for event in events:
                self.seen.append(event)
                self._apply(event)

    def _apply(self, event: RunEvent) -> None:
        if event.type is RunEventType.AGENT_STARTED:
            # After a takeover the work begins again; the events of the first attempt stay.
            self.state, self.attempt = RunState.RUNNING, event.attempt or 1
            self.findings = self.done = 0
        elif event.type is RunEventType.CUSTOM:
            self.findings += 1
        elif event.type is RunEventType.AGENT_COMPLETED:
            self.state, self.done = RunState.COMPLETED, len(self.batch.files)
        elif event.type is RunEventType.AGENT_FAILED:
            self.state = RunState.FAILED
        elif event.type is RunEventType.RUN_CANCELLED:
            self.state = RunState.CANCELLED
