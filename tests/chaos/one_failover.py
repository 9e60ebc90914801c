"""One failover under load: programs append, submit and read, and a worker executes.

For each: how long calls waited, what is lost, and has the program that wrote it learned of each
loss? The recorder and the checker judge it.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from murmur_streams import Fleet, RunContext
from murmur_streams.core.model.commands import Append
from murmur_streams.core.model.errors import MurmurError, RunNotFoundError
from murmur_streams.core.model.events import RunEvent, RunEventType
from murmur_streams.core.model.limits import new_run_id
from murmur_streams.core.model.states import TERMINAL_STATES, RunState
from murmur_streams.embedded.node import PATIENCE_SECONDS, Node
from murmur_streams.stores.redis.store import RedisRunStore
from murmur_streams.testing.checker import check
from murmur_streams.testing.history import Call, History, Outcome, stored_runs
from murmur_streams.testing.plugin import working
from murmur_streams.testing.recorder import Recorder
from murmur_streams.testing.run_view import RunView
from tests.chaos.writing import read, write
from tests.stores.faults.waiting import wait_until

PROGRAMS = 2
BEFORE, AFTER = 200, 200
"""How many acknowledged writes come before and after each failover."""
LEASE_SECONDS = 3.0


class Submitter:
    """A program: a store, what it submitted, and the losses that its store reported."""

    def __init__(self, url: str, durability: Any) -> None:
        self.reported: set[str] = set()
        self.store = RedisRunStore(
            url, durability=durability, on_rewind=self.reported.update, max_events=0
        )
        self.submitted: list[str] = []

    async def submit(self, is_over: asyncio.Event) -> None:
        """Submit runs until it is over."""
        while not is_over.is_set():
            run_id = new_run_id()
            with contextlib.suppress(MurmurError):
                await self.store.submit(run_id, "work")
                self.submitted.append(run_id)
            await asyncio.sleep(0.02)

    async def lost(self) -> set[str]:
        """Its submitted runs that the server does not have."""
        found: set[str] = set()
        for run_id in self.submitted:
            try:
                await self.store.get_status(run_id)
            except RunNotFoundError:
                found.add(run_id)
        return found


@dataclass(slots=True)
class FailoverReport:
    """What one failover did."""

    switch_seconds: float = 0.0
    """From the fault until the first of those who know it named the new primary."""
    agree_seconds: float = 0.0
    """From then until most of them had switched."""
    resume_seconds: float = 0.0
    """From the switch until the new primary had acknowledged a write."""
    waited_seconds: float = 0.0
    """The longest write to a run of the lost primary."""
    others_waited_seconds: float = 0.0
    """The longest write to another run."""
    acknowledged: int = 0
    lost: int = 0
    """Acknowledged writes and submits that are gone."""
    reported: int = 0
    """Those among them that the program learned of."""
    resets: int = 0
    """Readers that had received lost entries."""
    violations: list[str] = field(default_factory=list[str])


@dataclass(slots=True)
class Switch:
    """A change of primaries, by ``time.monotonic``."""

    old: Node
    began: float
    switched: float
    """When the first of those who know it named the new primary."""
    agreed: float
    """When most of them did."""


class Service(Protocol):
    """Servers whose primaries change."""

    writers: int
    """Of each program and run."""

    @property
    def url(self) -> str:
        """For a store."""
        ...

    def new_runs(self, store: RedisRunStore) -> list[str]:
        """Ids of the runs that the programs write to."""
        ...

    def of_lost_primary(self, runs: Sequence[str], how: str) -> list[str]:
        """Those of the runs that a fault concerns, before it happens."""
        ...

    async def switch(self, how: str) -> Switch:
        """Let a fault happen, and wait until there is another primary."""
        ...

    def repair(self, switch: Switch) -> None:
        """Let the old primary work again, and wait until all replicas follow."""
        ...


async def one_failover(
    service: Service, how: str, programs: list[Submitter], *, is_replicated: bool
) -> FailoverReport:
    """Let programs work, fail over, and judge what they met."""
    report, history, is_over = FailoverReport(), History(may_rewind=True), asyncio.Event()
    recorders = [Recorder(program.store, history) for program in programs]
    runs, counts = service.new_runs(programs[0].store), Counter[str]()
    await asyncio.gather(*(recorders[0].create(run_id, "by-hand") for run_id in runs))
    readers = [asyncio.create_task(read(recorders[1], run_id)) for run_id in runs]
    writers = [
        asyncio.create_task(write(recorder, run_id, f"{number}.{each}", counts, is_over))
        for number, recorder in enumerate(recorders)
        for run_id in runs
        for each in range(service.writers)
    ]
    writers += [asyncio.create_task(program.submit(is_over)) for program in programs]
    concerned = await asyncio.to_thread(service.of_lost_primary, runs, how)

    def count() -> int:
        return sum(counts[run_id] for run_id in concerned)

    await wait_until(lambda: count() > BEFORE, "writes are under way")
    switch = await service.switch(how)
    report.switch_seconds = switch.switched - switch.began
    report.agree_seconds = switch.agreed - switch.switched
    at_switch = count()
    await wait_until(lambda: count() > at_switch + AFTER, "writes go on")
    await asyncio.to_thread(service.repair, switch)
    is_over.set()
    await asyncio.gather(*writers)
    await _write_once_more(recorders, runs)
    for run_id in runs:
        await recorders[0].finish(run_id, RunState.COMPLETED)
    reading = asyncio.gather(*readers)
    report.resets = sum(await asyncio.wait_for(reading, PATIENCE_SECONDS))
    _note_waits(report, history, concerned, switch)
    await _judge(report, history, programs[0].store, concerned, switch)
    await _judge_submits(report, programs)
    if is_replicated and report.lost:
        report.violations.append(f"{report.lost} replicated writes are lost")
    return report


async def _write_once_more(recorders: list[Recorder], runs: list[str]) -> None:
    """Each program writes to each run: the next write learns of a loss, and the one after it not.

    Only then is every loss that a program can learn of reported.
    """
    for number, recorder in enumerate(recorders):
        for run_id in runs:
            for name in ("next", "after-next"):
                event = RunEvent(type=RunEventType.LOG, run_id=run_id, data=f"{name}-{number}")
                with contextlib.suppress(MurmurError):
                    await recorder.append(run_id, event)


def _note_waits(
    report: FailoverReport, history: History, concerned: Sequence[str], switch: Switch
) -> None:
    for call in history.calls:
        if isinstance(call.command, Append) and call.ended > switch.began:
            seconds = call.ended - call.began
            if call.run_id in concerned:
                report.waited_seconds = max(report.waited_seconds, seconds)
            else:
                report.others_waited_seconds = max(report.others_waited_seconds, seconds)


async def _judge(
    report: FailoverReport,
    history: History,
    store: RedisRunStore,
    concerned: Sequence[str],
    switch: Switch,
) -> None:
    stored = await stored_runs(store, history.run_ids)
    report.violations += [f"{each.rule}: {each.text}" for each in check(history, stored)]
    resumed: list[float] = []
    for run_id in stored:
        view = RunView.of(history, run_id, stored[run_id])
        for call in filter(_is_acknowledged_append, view.calls):
            report.acknowledged += 1
            if all(view.seqs_of_write(call.command)):
                if call.run_id in concerned and call.ended > switch.switched:
                    resumed.append(call.ended)
            else:
                report.lost += 1
                report.reported += view.is_reported(call)
        report.violations += [f"audit: {text}" for text in (await store.audit(run_id)).problems]
    report.resume_seconds = min(resumed) - switch.switched


def _is_acknowledged_append(call: Call) -> bool:
    return call.outcome is Outcome.ACKNOWLEDGED and isinstance(call.command, Append)


async def _judge_submits(report: FailoverReport, programs: list[Submitter]) -> None:
    for program in programs:
        lost = await program.lost()
        report.acknowledged += len(program.submitted)
        report.lost += len(lost)
        report.reported += len(lost & program.reported)
        report.violations += [
            f"submitted run {run_id} is gone, and no loss was reported"
            for run_id in lost - program.reported
        ]
        for run_id in set(program.submitted) - lost:
            ended = functools.partial(_has_ended, program.store, run_id)
            await wait_until(ended, f"run {run_id} ends", 60)
            problems = (await program.store.audit(run_id)).problems
            report.violations += [f"audit of {run_id}: {text}" for text in problems]
        program.submitted.clear()


async def _has_ended(store: RedisRunStore, run_id: str) -> bool:
    return (await store.get_status(run_id)).state in TERMINAL_STATES


@contextlib.asynccontextmanager
async def a_worker(url: str, durability: Any) -> AsyncGenerator[None]:
    """Execute the runs that are submitted."""
    fleet = Fleet(url, durability=durability)

    @fleet.agent
    async def work(run: RunContext) -> int:
        for number in range(3):
            await run.emit("step", number)
        return 3

    async with working(fleet, concurrency=20, lease_seconds=LEASE_SECONDS):
        yield
