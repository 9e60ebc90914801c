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
import shutil
import sys
import time
from collections.abc import Callable, Generator
from pathlib import Path

from murmur_streams.stores.redis.store import RedisRunStore
from murmur_streams.testing.faults import FaultSchedule
from tests.chaos.load import Load, judge
from tests.chaos.programs import program_faults
from tests.chaos.report import Report, write
from tests.chaos.workers import environ_of, running, worker_faults, workers
from tests.chaos.worlds import WORLDS
from tests.running_server import short_folder

WORKERS = 2
PAUSE_SECONDS = (0.1, 1.0)
"""Of each lane: the programs get something done meanwhile."""


async def chaos(
    topology: str,
    seed: int,
    faults: int,
    show: Callable[[str], None],
    logs: Path | None = None,
) -> Report:
    """Let programs work while so many faults happen, and judge the histories.

    Args:
        topology: of the servers.
        seed: of every choice.
        faults: how many.
        show: called with a line for each fault.
        logs: a folder that gets the logs of all servers and workers.
    """
    report, began = Report(topology, seed, began=time.time()), time.monotonic()
    with short_folder() as folder, _logs_to(logs, folder):
        async with contextlib.AsyncExitStack() as stack:
            world = await stack.enter_async_context(WORLDS[topology](folder, seed))
            crew = workers(WORKERS, folder, environ_of(world.url, world.options))
            await stack.enter_async_context(running(crew))
            load = Load(world, seed)
            choice = random.Random(f"{seed}:programs:details")
            lanes = world.lanes | {
                "programs": program_faults(load.programs, choice) | worker_faults(crew, choice)
            }
            schedule = FaultSchedule(lanes, seed, PAUSE_SECONDS)

            def show_fault(number: int, name: str) -> None:
                show(f"{time.monotonic() - began:6.1f} s {topology}: {number} of {faults}: {name}")

            async with load.working():
                report.faults = await schedule.run(faults, show_fault)
            async with RedisRunStore(world.url, max_events=0, **world.options) as store:
                await judge(load, store, report, load.run_ids)
    report.seconds = time.monotonic() - began
    return report


@contextlib.contextmanager
def _logs_to(logs: Path | None, folder: Path) -> Generator[None]:
    """Copy the logs below a folder to another one at the end."""
    try:
        yield
    finally:
        if logs is not None:
            for log in folder.rglob("*log"):
                copy = logs / log.relative_to(folder)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(log, copy)


def main(argv: list[str]) -> int:
    """Run on each topology and print the reports; 1 when there was a violation."""
    parser = argparse.ArgumentParser("python -m tests.chaos", description=__doc__)
    parser.add_argument("--topology", choices=[*WORLDS, "all"], default="all")
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    parser.add_argument("--faults", type=int, default=100)
    parser.add_argument("--report", type=Path, help="a file: Markdown (.md) or JSON")
    parser.add_argument("--logs", type=Path, help="a folder for the logs of servers and workers")
    given = parser.parse_args(argv)

    def show(line: str) -> None:
        print(line, file=sys.stderr, flush=True)  # noqa: T201  # it is a command

    reports: list[Report] = []
    for topology in [*WORLDS] if given.topology == "all" else [given.topology]:
        reports.append(asyncio.run(chaos(topology, given.seed, given.faults, show, given.logs)))
        print("\n".join(reports[-1].lines()))  # noqa: T201
    if given.report is not None:
        write(reports, given.report)
    return 1 if any(report.violations for report in reports) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
