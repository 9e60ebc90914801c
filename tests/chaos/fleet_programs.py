"""The programs of a chaos run that use a fleet: they submit, cancel and read runs of workers."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncGenerator, Collection, Iterator
from dataclasses import dataclass, field
from typing import cast

from murmur_streams import Fleet
from murmur_streams.client import AsyncClient
from murmur_streams.core.model.entries import EntryType
from murmur_streams.core.model.errors import CursorError, MurmurError
from murmur_streams.core.model.events import RunEvent
from murmur_streams.core.model.feed import FeedEntry
from murmur_streams.core.model.run import Run
from murmur_streams.core.model.states import RunState
from murmur_streams.stores.protocol import RunStore
from murmur_streams.testing.checker import Violation
from murmur_streams.testing.history import History, StoredRun
from murmur_streams.testing.recorder import Recorder
from tests.chaos.agents import Job

AGENTS = ("count", "count_in_thread")
MOST_LIVE = 12
SUBMIT_PAUSE = (0.05, 0.2)
QUIET_SECONDS = 90.0
"""How long the runs get to end when the faults are over."""


@dataclass(slots=True)
class Submitted:
    """A run that was submitted."""

    run_id: str
    job: Job
    is_cancelled: bool = False
    """Whether a cancel was acknowledged before the run had ended."""
    left: float | None = None
    """When the program had read the run to its end, by ``time.monotonic``."""


@dataclass(slots=True)
class FleetProgram:
    """Submits runs under keys, cancels some, reads some, and repeats what was not answered.

    Args:
        fleet: without agents of its own; or the client of a pod.
        history: where readers are recorded; workers write to these runs, too.
        seed: of its choices, and the beginning of its keys.
        pause: between two submissions, the shortest and the longest, in seconds.
    """

    fleet: Fleet | AsyncClient
    history: History
    seed: str
    pause: tuple[float, float] = SUBMIT_PAUSE
    submitted: dict[str, Submitted] = field(default_factory=dict[str, Submitted])
    """What was submitted, by run id."""
    violations: list[Violation] = field(default_factory=list[Violation])
    live: set[str] = field(default_factory=set[str])

    async def run(self, is_over: asyncio.Event) -> None:
        """Work until it is over."""
        choice, number, tasks = random.Random(self.seed), 0, set[asyncio.Task[None]]()
        while not is_over.is_set():
            if len(self.live) < MOST_LIVE:
                key, number = f"{self.seed}-{number}", number + 1
                self.live.add(key)
                task = asyncio.create_task(self._submit_and_follow(key, random.Random(key)))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
            await asyncio.sleep(choice.uniform(*self.pause))
        async with asyncio.timeout(QUIET_SECONDS):
            await asyncio.gather(*tasks)

    async def close(self) -> None:
        """Close its connections."""
        await self.fleet.close()

    def forget(self, run_ids: Collection[str]) -> None:
        """Forget some of the runs."""
        for run_id in run_ids:
            self.submitted.pop(run_id, None)

    async def _submit_and_follow(self, key: str, choice: random.Random) -> None:
        job = Job(choice.randint(0, 8), choice.uniform(0, 0.1), choice.choice([0, 0, 0, 1, 2]))
        agent = choice.choice(AGENTS)
        found = Submitted(await self._submit(key, job, agent), job)
        self.submitted[found.run_id] = found
        if choice.random() < 0.2:
            await asyncio.sleep(choice.uniform(0, 0.5))
            await self._cancel(found)
        if choice.random() < 0.3:
            again = await self._submit(key, job, agent)
            if again != found.run_id:
                text = f"the key {key} stands for {again}, too"
                self.violations.append(Violation(found.run_id, "a key is one run", text))
        await self._read(found.run_id, choice)
        self.live.discard(key)
        found.left = time.monotonic()

    async def _submit(self, key: str, job: Job, agent: str) -> str:
        given = {"events": job.events, "pause_seconds": job.pause_seconds, "failures": job.failures}
        while True:
            with contextlib.suppress(MurmurError):
                handle = await self.fleet.submit(agent, given, idempotency_key=key)
                return handle.run_id
            await asyncio.sleep(0.1)

    async def _cancel(self, found: Submitted) -> None:
        with contextlib.suppress(MurmurError):
            cancellation = await self.fleet.handle(found.run_id).cancel()
            found.is_cancelled = cancellation.requested is not None

    async def _read(self, run_id: str, choice: random.Random) -> None:
        """Read the run to its end, over every error; each session continues the one before."""
        after: str | None = None
        while True:
            recorder = Recorder(await self._store(), self.history)
            reading = asyncio.create_task(recorder.read(run_id, after))
            try:
                done, _ = await asyncio.wait({reading}, timeout=choice.uniform(0.5, 20))
            finally:
                reading.cancel()
            (outcome,) = await asyncio.gather(reading, return_exceptions=True)
            sessions = [each for each in self.history.readers if each.run_id == run_id]
            if isinstance(outcome, CursorError):
                after = None
            elif sessions and sessions[-1].events:
                after = str(sessions[-1].events[-1].id)
            if done and not isinstance(outcome, BaseException):
                return
            await asyncio.sleep(0.1)

    async def _store(self) -> RunStore:
        if isinstance(self.fleet, AsyncClient):
            return cast("RunStore", PodStreams(self.fleet))
        while True:
            with contextlib.suppress(MurmurError):
                return await self.fleet.store()
            await asyncio.sleep(0.1)


@dataclass(frozen=True, slots=True)
class PodStreams:
    """What a recorder needs to read runs over HTTP."""

    client: AsyncClient

    def stream(self, run_id: str, *, after: str | None = None) -> AsyncGenerator[RunEvent]:
        """Read a run to its end."""
        return self.client.handle(run_id).stream(after=after)


async def read_feed(store: RunStore, feeds: list[list[FeedEntry]], is_over: asyncio.Event) -> None:
    """Read the feed until it is over; each break of it begins a new list."""
    after: str | None = None
    while not is_over.is_set():
        entries: list[FeedEntry] = []
        feeds.append(entries)
        try:
            async for entry in store.feed(after=after):
                entries.append(entry)
                after = entry.cursor
        except CursorError:
            after = None
        except MurmurError:
            await asyncio.sleep(0.1)


def fleet_problems(found: Submitted, stored: StoredRun) -> Iterator[Violation]:
    """Promises to the programs of a fleet that the checker does not know."""
    run_id, run = found.run_id, stored.run
    if run is None:
        yield Violation(run_id, "a submitted run exists", "it was acknowledged, and it is gone")
        return
    if not run.state.is_terminal:
        text = f"it is {run.state} {QUIET_SECONDS:g} s after the last fault"
        yield Violation(run_id, "a run ends", text)
        return
    if found.is_cancelled and run.state is not RunState.CANCELLED:
        yield Violation(run_id, "a cancel wins", f"the run has ended as {run.state}")
    yield from _of_events(found, stored, run)


def _of_events(found: Submitted, stored: StoredRun, run: Run) -> Iterator[Violation]:
    numbers: dict[int, list[str]] = {}
    for entry in stored.journal:
        if entry.fields.get("name") == "number":
            numbers.setdefault(entry.attempt or 0, []).append(entry.fields["data"])
    for attempt, seen in numbers.items():
        if seen != [str(number) for number in range(len(seen))]:
            text = f"attempt {attempt} wrote {seen}"
            yield Violation(found.run_id, "an attempt's events are there once, in order", text)
    last = numbers.get(run.attempt, [])
    if run.state is RunState.COMPLETED and len(last) != found.job.events:
        text = f"the last attempt has {len(last)} of {found.job.events} events"
        yield Violation(found.run_id, "a completed run has all events", text)
    ends = [each for each in stored.journal if each.type == EntryType.CREATED]
    if len(ends) > 1:
        yield Violation(found.run_id, "a run is created once", f"{len(ends)} times")
