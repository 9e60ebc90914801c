"""The subscribers of the demo: one a run, each with its cursor and what it has seen."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import dataclass, field

from murmur_streams.cli.demo.agents import fleet
from murmur_streams.cli.demo.corpus import Batch
from murmur_streams.core.model.events import RunEvent, RunEventType
from murmur_streams.core.model.states import RunState

_ENDS = {
    RunEventType.AGENT_COMPLETED: RunState.COMPLETED,
    RunEventType.AGENT_FAILED: RunState.FAILED,
    RunEventType.RUN_CANCELLED: RunState.CANCELLED,
}


@dataclass
class Cut:
    """A subscription that was closed in mid-stream, and where it went on."""

    after_seq: int
    cursor: str
    resume: asyncio.Event = field(default_factory=asyncio.Event)
    resumed_seq: int | None = None
    """seq of the first event after the cut."""


@dataclass
class Watched:
    """One run as its subscriber sees it."""

    batch: Batch
    run_id: str
    state: RunState = RunState.PENDING
    attempt: int = 0
    worker: str | None = None
    done_files: int = 0
    findings: int = 0
    seen: list[tuple[int, str]] = field(default_factory=list[tuple[int, str]])
    """(seq, cursor) of every event, in the order in which they came."""
    cut: Cut | None = None
    _subscription: asyncio.Task[None] | None = None

    @property
    def name(self) -> str:
        return self.batch.name

    @property
    def is_running(self) -> bool:
        return self.state is RunState.RUNNING

    @property
    def expected_events(self) -> float:
        """About how many events are still to come, by those that came."""
        left = len(self.batch.files) - self.done_files
        return left * self.findings / max(1, self.done_files)

    async def subscribe(self) -> None:
        """Follow the run to its end; a cut ends the subscription, and another one goes on."""
        while not self.state.is_terminal:
            self._subscription = asyncio.create_task(self._follow())
            await asyncio.wait([self._subscription])
            if not self._subscription.cancelled():
                self._subscription.result()
            if self.cut is not None:
                await self.cut.resume.wait()

    def break_off(self) -> Cut:
        """Cut the subscription where it is now, most likely while it waits for the next event."""
        if self._subscription is None or not self.seen:
            raise RuntimeError("only a subscription that has seen an event can be cut")
        self._subscription.cancel()
        self.cut = Cut(*self.seen[-1])
        return self.cut

    async def _follow(self) -> None:
        after = self.seen[-1][1] if self.seen else None
        async with aclosing(fleet.handle(self.run_id).stream(after=after)) as stream:
            async for event in stream:
                self._take(event)

    def _take(self, event: RunEvent) -> None:
        self.seen.append((event.seq or 0, event.id or ""))
        if self.cut is not None and self.cut.resumed_seq is None:
            self.cut.resumed_seq = event.seq
        if event.type is RunEventType.AGENT_STARTED:
            # A take-over begins again; what the first attempt told stays in the journal.
            self.state, self.attempt = RunState.RUNNING, event.attempt or 1
            self.findings = self.done_files = 0
        elif event.type is RunEventType.CUSTOM:
            self.findings += 1
        elif event.type in _ENDS:
            self.state = _ENDS[event.type]
            if self.state is RunState.COMPLETED:
                self.done_files = len(self.batch.files)
