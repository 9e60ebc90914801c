"""The programs of a chaos run: all that calls stores and pods, and what is recorded of it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from murmur_streams import Fleet
from murmur_streams.client import AsyncClient
from murmur_streams.core.model.errors import RunNotFoundError
from murmur_streams.stores.redis.store import RedisRunStore
from murmur_streams.stores.timing import wall_clock_ms
from murmur_streams.testing.checker import Violation, check
from murmur_streams.testing.history import History, StoredRun, stored_runs
from tests.chaos.fleet_programs import SUBMIT_PAUSE, FleetProgram, fleet_problems, read_feed
from tests.chaos.programs import CALL_PAUSE, Program, SharedRuns
from tests.chaos.report import Report
from tests.chaos.world import World

PROGRAMS, RUNS = 2, 6
CALL_SECONDS, RETRY_SECONDS = 2.0, 30.0


@dataclass(frozen=True, slots=True)
class Pace:
    """The shortest and the longest pause of the programs, in seconds."""

    between_calls: tuple[float, float] = CALL_PAUSE
    between_submissions: tuple[float, float] = SUBMIT_PAUSE


class Load:
    """The programs of a chaos run, and their histories.

    Args:
        world: the servers.
        seed: of every choice.
        pace: of the programs.
        pods: the addresses of pods, each of which gets a client that submits and reads.
        options: further ones of every store.
    """

    def __init__(
        self,
        world: World,
        seed: int,
        pace: Pace | None = None,
        pods: Sequence[str] = (),
        **options: Any,
    ) -> None:
        pace = pace or Pace()
        self._url, self._options = world.url, {**world.options, **options}
        self.began = time.monotonic()
        self.history = History(may_rewind=world.may_rewind)
        self.fleet_history = History(may_rewind=world.may_rewind, is_whole=False)
        self.fleet_history.feeds = self.history.feeds
        self.runs = SharedRuns(RUNS)
        calls = pace.between_calls
        self.programs = [
            Program(number, self._open, self.history, self.runs, seed * 1_000 + number, calls)
            for number in range(PROGRAMS)
        ]
        fleet = Fleet(world.url, call_seconds=CALL_SECONDS, **self._options)
        submitters = [fleet, *(AsyncClient(pod, trust_env=False) for pod in pods)]
        self.fleet_programs = [
            FleetProgram(each, self.fleet_history, f"{seed}.{number}", pace.between_submissions)
            for number, each in enumerate(submitters)
        ]

    def _open(self, error_ms: Callable[[], int]) -> RedisRunStore:
        return self.open_store(clock=lambda: wall_clock_ms() + error_ms())

    def open_store(self, **options: Any) -> RedisRunStore:
        """A store like those of the programs."""
        seconds = {"call_seconds": CALL_SECONDS, "retry_seconds": RETRY_SECONDS}
        given: dict[str, Any] = {**seconds, **self._options, **options}
        return RedisRunStore(self._url, max_events=0, **given)

    @contextlib.asynccontextmanager
    async def working(self) -> AsyncGenerator[None]:
        """Let the programs work while the block lasts; then wait until all runs have ended."""
        is_over = asyncio.Event()
        reader = self._open(lambda: 0)
        feed = asyncio.create_task(read_feed(reader, self.history.feeds, is_over))
        works = [*(each.run(is_over) for each in (*self.programs, *self.fleet_programs))]
        working = [asyncio.create_task(work) for work in works]
        try:
            yield
            is_over.set()
            with contextlib.suppress(TimeoutError):  # Which run is stuck is found afterwards.
                await asyncio.gather(*working)
        finally:
            for task in (*working, feed):
                task.cancel()
            await asyncio.gather(*working, feed, return_exceptions=True)
            await reader.close()
            for program in (*self.programs, *self.fleet_programs):
                await program.close()

    @property
    def run_ids(self) -> list[str]:
        """The runs that have not been judged yet."""
        submitted = [each for program in self.fleet_programs for each in program.submitted]
        return [*self.runs.created, *submitted]

    def left(self) -> dict[str, float]:
        """The runs that no program uses any more, and since when, by ``time.monotonic``."""
        left = dict(self.runs.left)
        for program in self.fleet_programs:
            for run_id, found in program.submitted.items():
                if found.left is not None:
                    left[run_id] = found.left
        return left

    def forget(self, run_ids: Collection[str]) -> tuple[History, History]:
        """Forget runs that no program uses any more.

        Returns:
            The history of those of the programs, and of those of the workers.
        """
        for program in self.programs:
            program.forget(run_ids)
        for program in self.fleet_programs:
            program.forget(run_ids)
        own = frozenset(self.runs.forget(run_ids))
        return self.history.take(own), self.fleet_history.take(frozenset(run_ids) - own)


async def judge(
    load: Load, store: RedisRunStore, report: Report, run_ids: Collection[str]
) -> dict[str, StoredRun]:
    """Judge runs on which no call is under way any more, and forget them.

    Args:
        load: what the programs did.
        store: reads what is stored of the runs; while its server has faults, it may raise before
            anything is judged.
        report: gets the violations, and the numbers.
        run_ids: of the runs.

    Returns:
        What is stored of them.
    """
    chosen = frozenset(run_ids)
    own = [run_id for run_id in load.runs.created if run_id in chosen]
    submitted = {
        run_id: found
        for program in load.fleet_programs
        for run_id, found in program.submitted.items()
        if run_id in chosen
    }
    stored, of_fleet = await stored_runs(store, own), await stored_runs(store, submitted)
    violations: list[Violation] = []
    for run_id, found in (stored | of_fleet).items():
        if found.run is not None:
            # A run that was read a moment ago may have expired since.
            with contextlib.suppress(RunNotFoundError):
                problems = (await store.audit(run_id)).problems
                violations += [Violation(run_id, "audit", text) for text in problems]
    history, fleet_history = load.forget(chosen)
    violations += check(history, stored) + check(fleet_history, of_fleet)
    for run_id, found in submitted.items():
        violations += fleet_problems(found, of_fleet[run_id])
    for program in load.fleet_programs:
        violations += program.violations
        program.violations.clear()
    for run_id in {each.run_id for each in violations}:
        report.calls[run_id] = [
            f"{call.began - load.began:.2f} to {call.ended - load.began:.2f}: "
            f"{type(call.command).__name__} {call.outcome} {call.answer}"
            for call in history.calls
            if call.run_id == run_id
        ]
    report.violations += violations
    report.outcomes.update(str(call.outcome) for call in history.calls)
    ended = [each.run for each in of_fleet.values() if each.run is not None]
    report.ends.update(str(each.state) for each in ended)
    report.attempts += sum(each.attempt for each in ended)
    report.runs += len(stored)
    report.entries += sum(len(each.journal) for each in (*stored.values(), *of_fleet.values()))
    report.readers += len(history.readers) + len(fleet_history.readers)
    report.feed_entries += sum(len(feed) for feed in (*history.feeds, *fleet_history.feeds))
    return stored | of_fleet
