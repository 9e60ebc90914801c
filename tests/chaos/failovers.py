"""``python -m tests.chaos.failovers``: failovers under load, one by one.

Programs append, submit and read, and a worker executes, while a primary is killed, frozen and
thawed, or switched in order, or a slot of a cluster moves. For each failover: how long do calls
wait, what is lost, and has the program that wrote it learned of each loss? The recorder and the
checker judge each one.

    make failovers                            # 20 of each kind, without and with replicated writes
    make failovers HOW=killed-after-a-cut DURABILITY=replicated COUNT=5
    make failovers TOPOLOGY=cluster HOW="slot moved"

On one machine replicas are so near that a kill loses nothing. A cut ends their links to the primary
for the last third of a second before the failover.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncGenerator, Callable, Generator
from statistics import median

from tests.chaos import cluster_failovers, sentinel_failovers
from tests.chaos.cluster_failovers import ClusterFailovers
from tests.chaos.one_failover import (
    PROGRAMS,
    FailoverReport,
    Service,
    Submitter,
    a_worker,
    one_failover,
)
from tests.chaos.sentinel_failovers import SentinelFailovers
from tests.cluster_service import cluster_service
from tests.running_server import short_folder
from tests.sentinel_service import sentinel_service

HOW = {"sentinel": sentinel_failovers.HOW, "cluster": cluster_failovers.HOW}
DURABILITY = ("primary", "replicated")
REPLICAS = 2
"""Of each primary: one is left to confirm writes after a failover."""


@contextlib.contextmanager
def _service(topology: str) -> Generator[Service]:
    with short_folder() as folder:
        if topology == "sentinel":
            with sentinel_service(folder, replicas=REPLICAS) as group:
                yield SentinelFailovers(group)
        else:
            with cluster_service(folder, replicas=REPLICAS) as cluster:
                yield ClusterFailovers(cluster)


async def failovers(
    topology: str, how: str, durability: str, count: int
) -> AsyncGenerator[FailoverReport]:
    """Fail over so many times on one service."""
    with _service(topology) as service:
        programs = [Submitter(service.url, durability) for _ in range(PROGRAMS)]
        try:
            async with a_worker(service.url, durability):
                for _ in range(count):
                    yield await one_failover(
                        service, how, programs, is_replicated=durability == "replicated"
                    )
        finally:
            for program in programs:
                await program.store.close()


def summary(topology: str, how: str, durability: str, reports: list[FailoverReport]) -> str:
    """One line of the table."""

    def times(name: str) -> str:
        values = [getattr(each, name) for each in reports]
        return f"{median(values):.2f} s (at most {max(values):.2f} s)"

    total = {
        name: sum(getattr(each, name) for each in reports)
        for name in ("acknowledged", "lost", "reported", "resets")
    }
    after_most = max(each.resume_seconds - each.agree_seconds for each in reports)
    return (
        f"{topology}, {durability}, {how}: {len(reports)} times; switched after "
        f"{times('switch_seconds')}; writes went on {times('resume_seconds')} after that, and at "
        f"most {after_most:.2f} s after most had switched; the longest write took "
        f"{times('waited_seconds')}, to others {times('others_waited_seconds')}; "
        f"{total['acknowledged']} writes acknowledged, {total['lost']} lost, of which "
        f"{total['reported']} reported; {total['resets']} readers reset; "
        f"{sum(len(each.violations) for each in reports)} violations; load {os.getloadavg()[1]:.1f}"
    )


async def run(
    topology: str, how: str, durability: str, count: int, show: Callable[[str], None]
) -> bool:
    """Fail over and print; False when there was a violation."""
    reports: list[FailoverReport] = []
    async for report in failovers(topology, how, durability, count):
        reports.append(report)
        show(f"{topology}, {durability}, {how}, {len(reports)} of {count}: {report}")
    print(summary(topology, how, durability, reports), flush=True)  # noqa: T201  # it is a command
    return not any(each.violations for each in reports)


def main(argv: list[str]) -> int:
    """Fail over and print a table; 1 when there was a violation."""
    parser = argparse.ArgumentParser("python -m tests.chaos.failovers", description=__doc__)
    parser.add_argument("--topology", choices=[*HOW], default="sentinel")
    parser.add_argument("--how", default="all")
    parser.add_argument("--durability", choices=[*DURABILITY, "all"], default="all")
    parser.add_argument("--count", type=int, default=20)
    given = parser.parse_args(argv)
    kinds = HOW[given.topology]
    if given.how not in {*kinds, "all"}:
        parser.error(f"--how is one of {', '.join(kinds)}, or all")

    def show(line: str) -> None:
        print(line, file=sys.stderr, flush=True)  # noqa: T201

    outcomes = [
        asyncio.run(run(given.topology, how, durability, given.count, show))
        for durability in (DURABILITY if given.durability == "all" else [given.durability])
        for how in (kinds if given.how == "all" else [given.how])
    ]
    return 0 if all(outcomes) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
