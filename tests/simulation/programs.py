"""What happens in a simulation: programs that submit, work, cancel and read, and faults."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from murmur_streams import Fleet, RunEvent, RunEventType, RunState
from murmur_streams.core.model import errors
from murmur_streams.core.model.entries import Cursor
from murmur_streams.core.model.feed import FeedEntry
from murmur_streams.fleet.worker import Worker
from murmur_streams.stores.work_store import WorkStore
from murmur_streams.testing.history import ReaderSession
from murmur_streams.testing.simulation import Process, Simulation
from tests.simulation.agents import AGENTS, simulated_fleet

TRY_AGAIN_SECONDS = 0.2
PATIENCE_SECONDS = 120.0
"""How long everything may take once no fault happens any more."""


@dataclass(eq=False)
class Crew:
    """The workers, each in a process of its own."""

    simulation: Simulation
    lease_seconds: float
    concurrency: int
    living: dict[Process, Worker] = field(default_factory=dict[Process, Worker])
    ending: list[Process] = field(default_factory=list[Process])
    count: int = 0

    def start(self) -> None:
        """Start one more worker."""
        self.count += 1
        name = f"worker-{self.count}"
        fleet = simulated_fleet()
        worker = Worker(
            fleet,
            concurrency=self.concurrency,
            lease_seconds=self.lease_seconds,
            drain_seconds=2.0,
            worker_id=name,
        )
        self.living[self.simulation.start(name, self._work(fleet, worker))] = worker

    async def _work(self, fleet: Fleet, worker: Worker) -> None:
        while True:
            try:
                await worker.run()
            except errors.StoreError:
                # It could not begin: its supervisor starts it again.
                await asyncio.sleep(TRY_AGAIN_SECONDS)
            else:
                break
        if not self.simulation.is_one_process:
            await fleet.close()

    def kill(self, process: Process) -> None:
        """End one without notice."""
        del self.living[process]
        self.simulation.kill(process)

    def stop(self, process: Process) -> None:
        """Ask one to drain and end."""
        self.living.pop(process).stop()
        self.ending.append(process)


@dataclass(eq=False)
class Programs:
    """The other programs of a simulation."""

    simulation: Simulation
    choice: Random
    run_ids: list[str] = field(default_factory=list[str])
    """The runs of agents."""
    own_run_ids: list[str] = field(default_factory=list[str])
    """The runs of a program without workers."""
    deleted: set[str] = field(default_factory=set[str])
    """The runs that were deleted, and perhaps begun anew."""
    pauses: bool = False
    """Whether an agent was paused."""
    tasks: list[asyncio.Task[None]] = field(default_factory=list[asyncio.Task[None]])

    def start(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Start a program that ends by itself."""
        self.tasks.append(asyncio.create_task(work, name=name))

    async def submit(self, fleet: Fleet, run_id: str) -> None:
        """Submit a run, whatever it takes, and wait for its result."""
        agent, count = self.choice.choice(AGENTS), self.choice.randint(1, 4)
        options: dict[str, Any] = {"priority": self.choice.choice((-1, 0, 0, 5))}
        if self.choice.random() < 0.2:
            options["delay"] = self.choice.random() * 2
        if self.choice.random() < 0.15:
            options["deadline"] = 1 + self.choice.random() * 3
        self.run_ids.append(run_id)
        # Some come while all workers are idle.
        await asyncio.sleep(self.choice.choice((0, 0, 2)) * self.choice.random())
        while True:
            try:
                handle = await fleet.submit(agent, count, run_id=run_id, **options)
                break
            except errors.RunExistsError:
                handle = fleet.handle(run_id)
                break
            except errors.StoreError:
                await asyncio.sleep(TRY_AGAIN_SECONDS)
        if self.choice.random() < 0.5:
            await self._result(fleet, handle.run_id)

    async def submit_twice(self, fleets: Sequence[Fleet], key: str) -> None:
        """Submit the same request from two programs, with one idempotency key: it is one run."""
        agent, count = self.choice.choice(AGENTS), self.choice.randint(1, 3)

        async def submit(fleet: Fleet) -> str:
            while True:
                try:
                    return (await fleet.submit(agent, count, idempotency_key=key)).run_id
                except errors.StoreError:
                    await asyncio.sleep(TRY_AGAIN_SECONDS)

        first, second = await asyncio.gather(*(submit(fleet) for fleet in fleets))
        self.run_ids.append(first)
        if first != second:
            self.simulation.findings.append(f"the key {key} made two runs: {first}, {second}")

    async def pause(self, fleet: Fleet) -> None:
        """Pause an agent for a while."""
        agent = self.choice.choice(AGENTS)
        self.pauses = True
        await _insistent(fleet, lambda store: store.pause(agent))
        await asyncio.sleep(self.choice.random() * 3)
        await _insistent(fleet, lambda store: store.resume(agent))

    async def _result(self, fleet: Fleet, run_id: str) -> None:
        while True:
            try:
                result = await fleet.handle(run_id).result(timeout=self.choice.choice((None, 3)))
            except (errors.StoreError, TimeoutError):
                await asyncio.sleep(TRY_AGAIN_SECONDS)
                continue
            run = await _until_read(fleet, run_id)
            if (result.error is None) != (run.state is RunState.COMPLETED):
                self.simulation.findings.append(f"{run_id} is {run.state}, its result {result}")
            return

    async def cancel(self, fleet: Fleet, run_id: str) -> None:
        """Request the cancel of a run, once."""
        with contextlib.suppress(errors.MurmurError):
            wait = self.choice.choice((False, True, 1.0))
            await fleet.handle(run_id).cancel(reason="simulated", wait=wait)

    async def read(self, fleet: Fleet, run_id: str) -> None:
        """Follow a run to its end, with sessions that break off and resume by cursor."""
        after: str | None = None
        readers = self.simulation.history.readers
        while True:
            session = ReaderSession(run_id, after)
            limit = self.choice.choice((1, 2, 5, 100))
            seconds = self.choice.choice((0.3, 2.0, None))
            try:
                store = await fleet.store()
                readers.append(session)
                async with asyncio.timeout(seconds):
                    async with contextlib.aclosing(store.stream(run_id, after=after)) as events:
                        async for event in events:
                            session.events.append(event)
                            self._check_life(session)
                            if len(session.events) >= limit:
                                break
                        else:
                            session.is_complete = True
                            return
            except errors.CursorError as error:
                after = error.resume_cursor
                continue
            except errors.RunNotFoundError:
                if run_id in self.deleted:
                    return
                await asyncio.sleep(TRY_AGAIN_SECONDS)
            except (errors.StoreError, TimeoutError):
                await asyncio.sleep(TRY_AGAIN_SECONDS)
            if session.events:
                after = session.events[-1].id

    def _check_life(self, session: ReaderSession) -> None:
        """A session is in one life of its run, and never goes back."""
        if len(session.events) > 1:
            before, last = (Cursor.parse(str(event.id)) for event in session.events[-2:])
            if before.epoch != last.epoch or before.seq >= last.seq:
                text = f"{session.run_id}: a reader got {last} after {before}"
                self.simulation.findings.append(text)

    async def read_feed(self, fleet: Fleet) -> None:
        """Follow the feed until it is cancelled."""
        received: list[FeedEntry] = []
        self.simulation.history.feeds.append(received)
        while True:
            after = received[-1].cursor if received else None
            limit = len(received) + self.choice.choice((3, 30))
            try:
                store = await fleet.store()
                async with contextlib.aclosing(store.feed(after=after)) as entries:
                    async for entry in entries:
                        received.append(entry)
                        if len(received) >= limit:
                            break
            except errors.StoreError:
                await asyncio.sleep(TRY_AGAIN_SECONDS)

    async def write(self, fleet: Fleet, run_id: str) -> None:
        """Execute a run without a worker, and perhaps delete it and begin its id anew."""
        self.own_run_ids.append(run_id)
        await self._live(fleet, run_id, "first")
        if self.choice.random() < 0.4:
            self.deleted.add(run_id)
            await _insistent(fleet, lambda store: store.delete(run_id, force=True))
            if self.choice.random() < 0.6:
                await self._live(fleet, run_id, "second")

    async def _live(self, fleet: Fleet, run_id: str, life: str) -> None:
        """Create a run, append to it by several tasks, sometimes with a version, and end it."""
        await _insistent(fleet, lambda store: store.create(run_id, "own"))
        versions = [1]

        async def append(task: int) -> None:
            for number in range(self.choice.randint(1, 4)):
                event = RunEvent(
                    type=RunEventType.LOG, run_id=run_id, data=f"{life}.{task}.{number}"
                )
                expected = versions[-1] if self.choice.random() < 0.4 else None
                with contextlib.suppress(errors.MurmurError):
                    store = await fleet.store()
                    versions.append(await store.append(run_id, event, expected_version=expected))
                await asyncio.sleep(self.choice.random() * 0.3)

        await asyncio.gather(*(append(task) for task in range(2)))
        tries = itertools.count()  # The checker finds an event by its values: each try has its own.

        def finish(store: WorkStore) -> Awaitable[object]:
            data = f"{life}.last.{next(tries)}"
            last = RunEvent(type=RunEventType.LOG, run_id=run_id, data=data)
            return store.finish(run_id, RunState.COMPLETED, event=last)

        await _insistent(fleet, finish)


async def _until_read(fleet: Fleet, run_id: str) -> Any:
    while True:
        try:
            return await (await fleet.store()).snapshot(run_id)
        except errors.StoreError:
            await asyncio.sleep(TRY_AGAIN_SECONDS)


async def _insistent(fleet: Fleet, call: Callable[[WorkStore], Awaitable[object]]) -> None:
    """Repeat a write until it is done or was done before."""
    while True:
        try:
            await call(await fleet.store())
        except errors.RunExistsError:
            return
        except errors.StoreError:
            await asyncio.sleep(TRY_AGAIN_SECONDS)
        else:
            return


async def disturb(simulation: Simulation, crew: Crew, seconds: float) -> None:
    """Let faults happen for some time, chosen by the seed; then mend everything."""
    choice, faults = simulation.choice, simulation.faults
    end = simulation.loop.time() + seconds
    faults.unavailable = choice.choice((0, 0, 0.02, 0.1))
    faults.unconfirmed = choice.choice((0, 0, 0.02, 0.1))
    faults.refused = choice.choice((0, 0, 0.03))
    while simulation.loop.time() < end:
        await asyncio.sleep(0.1 + choice.random())
        what = choice.choice(("away", "kill", "freeze", "stop", "clock", "slow"))
        process = choice.choice([*crew.living]) if crew.living else None
        if what == "away":
            faults.is_away = True
            await asyncio.sleep(choice.random() * 3)
            faults.is_away = False
        elif what == "slow":
            faults.slowest_seconds = choice.choice((0.002, 0.02, 0.1, 0.6))
        elif what == "clock":
            simulation.clock_error_ms += choice.randint(-4_000, 4_000)
        elif process is None:
            continue
        elif what == "stop":
            crew.stop(process)
            crew.start()
        elif simulation.is_one_process:
            continue
        elif what == "kill":
            crew.kill(process)
            crew.start()
        else:
            simulation.freeze(process, choice.random() * 3 * crew.lease_seconds)
    faults.end()
    faults.slowest_seconds = 0.01
