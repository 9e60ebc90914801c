"""``python -m tests.chaos``: programs work on runs while faults happen, and a checker judges them.

Every choice comes from the seed: which calls, which faults, when. The order in which servers and
programs meet does not, so a seed gives the same faults, and not always the same outcome.

    make chaos                               # 100 faults on each topology
    make chaos SEED=7 FAULTS=500 TOPOLOGY=sentinel
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from murmur_streams.stores.redis.store import RedisRunStore
from murmur_streams.stores.timing import wall_clock_ms
from murmur_streams.testing.checker import Violation, check
from murmur_streams.testing.history import History, stored_runs
from tests.chaos.programs import Program, SharedRuns
from tests.chaos.worlds import WORLDS, World
from tests.running_server import short_folder

PROGRAMS, RUNS = 3, 6
HOUR_MS = 3_600_000


@dataclass(slots=True)
class Report:
    """What a chaos run did and found."""

    topology: str
    seed: int
    seconds: float = 0.0
    faults: Counter[str] = field(default_factory=Counter[str])
    outcomes: Counter[str] = field(default_factory=Counter[str])
    runs: int = 0
    entries: int = 0
    readers: int = 0
    violations: list[Violation] = field(default_factory=list[Violation])

    def lines(self) -> list[str]:
        """For a person."""
        happened = ", ".join(f"{count} {name}" for name, count in sorted(self.outcomes.items()))
        faults = f"{sum(self.faults.values())} faults of {len(self.faults)} kinds"
        lines = [
            f"{self.topology}, seed {self.seed}: {faults} in {self.seconds:.0f} s",
            f"  {self.runs} runs, {self.entries} entries, {self.readers} readers",
            f"  calls: {happened}",
        ]
        lines += [f"  {count:4} {name}" for name, count in sorted(self.faults.items())]
        lines += [
            f"  VIOLATION {each.run_id}: {each.rule}: {each.text}" for each in self.violations
        ]
        return [*lines, f"  {len(self.violations)} violations"]


async def chaos(topology: str, seed: int, faults: int, show: Callable[[str], None]) -> Report:
    """Let programs work while so many faults happen, and judge the history."""
    report, choice, history = Report(topology, seed), random.Random(seed), History()
    began, is_over, runs = time.monotonic(), asyncio.Event(), SharedRuns(RUNS)
    with short_folder() as folder:
        async with WORLDS[topology](folder, choice) as world:
            history.may_rewind = world.may_rewind

            def open_store(error_ms: Callable[[], int]) -> RedisRunStore:
                return RedisRunStore(
                    world.url,
                    max_events=0,
                    call_seconds=2.0,
                    retry_seconds=30.0,
                    clock=lambda: wall_clock_ms() + error_ms(),
                    **world.options,
                )

            programs = [
                Program(number, open_store, history, runs, seed * 1_000 + number)
                for number in range(PROGRAMS)
            ]
            working = [asyncio.create_task(program.run(is_over)) for program in programs]
            kinds = world.faults | _of_programs(programs, choice)
            for number in range(faults):
                name = choice.choice(sorted(kinds))
                show(f"{topology}: fault {number + 1} of {faults}: {name}")
                report.faults[name] += 1
                await kinds[name]()
                await asyncio.sleep(choice.uniform(0.05, 0.3))
            is_over.set()
            await asyncio.gather(*working)
            await _judge(report, history, world, runs)
            for program in programs:
                await program.close()
    report.seconds = time.monotonic() - began
    return report


def _of_programs(programs: list[Program], choice: random.Random):
    async def clock_jumps() -> None:
        program = choice.choice(programs)
        program.clock_error_ms = choice.choice([-HOUR_MS, HOUR_MS])
        await asyncio.sleep(choice.uniform(0.1, 0.5))
        program.clock_error_ms = 0

    async def restarts() -> None:
        await choice.choice(programs).reopen()

    return {"a program's clock jumps": clock_jumps, "a program restarts": restarts}


async def _judge(report: Report, history: History, world: World, runs: SharedRuns) -> None:
    async with RedisRunStore(world.url, max_events=0) as store:
        stored = await stored_runs(store, runs.created)
        report.violations = check(history, stored)
        for run_id in runs.created:
            if stored[run_id].run is not None:
                problems = (await store.audit(run_id)).problems
                report.violations += [Violation(run_id, "audit", text) for text in problems]
    report.outcomes.update(str(call.outcome) for call in history.calls)
    report.runs = len(runs.created)
    report.entries = sum(len(each.journal) for each in stored.values())
    report.readers = len(history.readers)


def main(argv: list[str]) -> int:
    """Run on each topology and print the reports; 1 when there was a violation."""
    parser = argparse.ArgumentParser("python -m tests.chaos", description=__doc__)
    parser.add_argument("--topology", choices=[*WORLDS, "all"], default="all")
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    parser.add_argument("--faults", type=int, default=100)
    given = parser.parse_args(argv)

    def show(line: str) -> None:
        print(line, file=sys.stderr, flush=True)  # noqa: T201  # it is a command

    reports = [
        asyncio.run(chaos(topology, given.seed, given.faults, show))
        for topology in ([*WORLDS] if given.topology == "all" else [given.topology])
    ]
    for report in reports:
        print("\n".join(report.lines()))  # noqa: T201
    return 1 if any(report.violations for report in reports) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
