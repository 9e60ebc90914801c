"""``python -m tests.chaos``: programs work on runs while faults happen, and a checker judges them.

Every choice comes from the seed: which calls, and in each lane which faults. The order in which
servers, programs and lanes meet does not, so a seed gives the same faults, and not always the same
outcome.

    make chaos                               # 100 faults on each topology
    make chaos SEED=7 FAULTS=500 TOPOLOGY=sentinel REPORT=chaos.json
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import sys
import time
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

from murmur_streams import Fleet
from murmur_streams.stores.redis.store import RedisRunStore
from murmur_streams.stores.timing import wall_clock_ms
from murmur_streams.testing.checker import Violation, check
from murmur_streams.testing.faults import FaultSchedule
from murmur_streams.testing.history import History, stored_runs
from tests.chaos.fleet_programs import FleetProgram, fleet_problems, read_feed
from tests.chaos.programs import Program, SharedRuns, program_faults
from tests.chaos.report import Report, write
from tests.chaos.workers import worker_faults, workers
from tests.chaos.world import World
from tests.chaos.worlds import WORLDS
from tests.running_server import short_folder

PROGRAMS, RUNS, WORKERS = 2, 6, 2
PAUSE_SECONDS = (0.1, 1.0)
"""Of each lane: the programs get something done meanwhile."""


class Chaos:
    """One chaos run: the programs, the faults, and what they did.

    Args:
        world: the servers.
        seed: of every choice.
    """

    def __init__(self, world: World, seed: int) -> None:
        self._world = world
        self.history = History(may_rewind=world.may_rewind)
        self.fleet_history = History(may_rewind=world.may_rewind, is_whole=False)
        self.fleet_history.feeds = self.history.feeds
        self.runs = SharedRuns(RUNS)
        self.programs = [
            Program(number, self._open, self.history, self.runs, seed * 1_000 + number)
            for number in range(PROGRAMS)
        ]
        options: dict[str, Any] = {"call_seconds": 2.0, **world.options}
        self.fleet_program = FleetProgram(Fleet(world.url, **options), self.fleet_history, seed)

    def _open(self, error_ms: Callable[[], int]) -> RedisRunStore:
        return RedisRunStore(
            self._world.url,
            max_events=0,
            call_seconds=2.0,
            retry_seconds=30.0,
            clock=lambda: wall_clock_ms() + error_ms(),
            **self._world.options,
        )

    @contextlib.asynccontextmanager
    async def working(self) -> AsyncGenerator[None]:
        """Let the programs work while the block lasts; then wait until all runs have ended."""
        is_over = asyncio.Event()
        reader = self._open(lambda: 0)
        feed = asyncio.create_task(read_feed(reader, self.history.feeds, is_over))
        works = [*(each.run(is_over) for each in (*self.programs, self.fleet_program))]
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
            await self.fleet_program.fleet.close()
            for program in self.programs:
                await program.close()


async def chaos(topology: str, seed: int, faults: int, show: Callable[[str], None]) -> Report:
    """Let programs work while so many faults happen, and judge the histories."""
    report, began = Report(topology, seed), time.monotonic()
    with short_folder() as folder:
        async with contextlib.AsyncExitStack() as stack:
            world = await stack.enter_async_context(WORLDS[topology](folder, seed))
            options = {
                f"MURMUR_{name.upper()}": str(value) for name, value in world.options.items()
            }
            crew = await stack.enter_async_context(workers(WORKERS, folder, world.url, options))
            run = Chaos(world, seed)
            choice = random.Random(f"{seed}:programs:details")
            lanes = world.lanes | {
                "programs": program_faults(run.programs, choice) | worker_faults(crew, choice)
            }
            schedule = FaultSchedule(lanes, seed, PAUSE_SECONDS)

            def show_fault(number: int, name: str) -> None:
                show(f"{time.monotonic() - began:6.1f} s {topology}: {number} of {faults}: {name}")

            async with run.working():
                report.faults = await schedule.run(faults, show_fault)
            await _judge(report, run, world, began)
    report.seconds = time.monotonic() - began
    return report


async def _judge(report: Report, run: Chaos, world: World, began: float) -> None:
    async with RedisRunStore(world.url, max_events=0, **world.options) as store:
        stored = await stored_runs(store, run.runs.created)
        submitted = {each.run_id: each for each in run.fleet_program.submitted.values()}
        of_fleet = await stored_runs(store, submitted)
        report.violations = check(run.history, stored) + check(run.fleet_history, of_fleet)
        report.violations += run.fleet_program.violations
        for run_id, found in submitted.items():
            report.violations += fleet_problems(found, of_fleet[run_id])
        for run_id, found in (stored | of_fleet).items():
            if found.run is not None:
                problems = (await store.audit(run_id)).problems
                report.violations += [Violation(run_id, "audit", text) for text in problems]
    for run_id in {each.run_id for each in report.violations}:
        report.calls[run_id] = [
            f"{call.began - began:.2f} to {call.ended - began:.2f}: {type(call.command).__name__} "
            f"{call.outcome} {call.answer}"
            for call in run.history.calls
            if call.run_id == run_id
        ]
    report.outcomes.update(str(call.outcome) for call in run.history.calls)
    ended = [each.run for each in of_fleet.values() if each.run is not None]
    report.ends.update(str(each.state) for each in ended)
    report.attempts = sum(each.attempt for each in ended)
    report.runs = len(stored)
    report.entries = sum(len(each.journal) for each in (*stored.values(), *of_fleet.values()))
    report.readers = len(run.history.readers) + len(run.fleet_history.readers)
    report.feed_entries = sum(len(feed) for feed in run.history.feeds)


def main(argv: list[str]) -> int:
    """Run on each topology and print the reports; 1 when there was a violation."""
    parser = argparse.ArgumentParser("python -m tests.chaos", description=__doc__)
    parser.add_argument("--topology", choices=[*WORLDS, "all"], default="all")
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    parser.add_argument("--faults", type=int, default=100)
    parser.add_argument("--report", type=Path, help="a file: Markdown (.md) or JSON")
    given = parser.parse_args(argv)

    def show(line: str) -> None:
        print(line, file=sys.stderr, flush=True)  # noqa: T201  # it is a command

    reports: list[Report] = []
    for topology in [*WORLDS] if given.topology == "all" else [given.topology]:
        reports.append(asyncio.run(chaos(topology, given.seed, given.faults, show)))
        print("\n".join(reports[-1].lines()))  # noqa: T201
    if given.report is not None:
        write(reports, given.report)
    return 1 if any(report.violations for report in reports) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
