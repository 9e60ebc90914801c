"""``python -m tests.chaos.failovers``: failovers of a Sentinel service under load, one by one.

Programs append, submit and read, and a worker executes, while the primary is killed, frozen and
thawed, or switched in order. For each failover: how soon do writes go on, what is lost, and has the
program that wrote it learned of each loss? The recorder and the checker judge each one.

    make failovers                            # 20 of each kind, without and with replicated writes
    make failovers HOW=killed-after-a-cut DURABILITY=replicated COUNT=5

On one machine replicas are so near that a kill loses nothing. A cut ends their links to the primary
for the last third of a second before the failover.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import sys
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from statistics import median
from typing import Any, cast

from murmur_streams import Fleet, RunContext
from murmur_streams.core.model.commands import Append
from murmur_streams.core.model.errors import CursorError, MurmurError, RunNotFoundError
from murmur_streams.core.model.events import RunEvent, RunEventType
from murmur_streams.core.model.limits import new_run_id
from murmur_streams.core.model.states import TERMINAL_STATES, RunState
from murmur_streams.embedded.node import PATIENCE_SECONDS, Node
from murmur_streams.embedded.sentinel_group import SERVICE, SentinelGroup
from murmur_streams.stores.redis.store import RedisRunStore
from murmur_streams.testing.checker import check
from murmur_streams.testing.history import Call, History, Outcome, stored_runs
from murmur_streams.testing.plugin import working
from murmur_streams.testing.recorder import Recorder
from murmur_streams.testing.run_view import RunView
from tests.running_server import short_folder
from tests.sentinel_service import sentinel_service
from tests.stores.faults.waiting import wait_until

CUT = "-after-a-cut"
HOW = ("killed", "frozen", "in order", f"killed{CUT}", f"frozen{CUT}")
CUT_SECONDS = 0.3
DURABILITY = ("primary", "replicated")
PROGRAMS, RUNS, WRITERS = 2, 4, 3
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
    """From the fault until the first Sentinel named the new primary."""
    agree_seconds: float = 0.0
    """From then until most of them had finished the switch (``+switch-master``)."""
    resume_seconds: float = 0.0
    """From then until the new primary had acknowledged a write."""
    acknowledged: int = 0
    lost: int = 0
    """Acknowledged writes and submits that are gone."""
    reported: int = 0
    """Those among them that the program learned of."""
    resets: int = 0
    """Readers that had received lost entries."""
    violations: list[str] = field(default_factory=list[str])


async def append(recorder: Recorder, run_id: str, name: str, is_over: asyncio.Event) -> None:
    """Append until it is over; every third write expects the version of the one before."""
    version, number = 1, 0
    while not is_over.is_set():
        event = RunEvent(type=RunEventType.LOG, run_id=run_id, data=f"{name}-{number}")
        expected = version if number % 3 == 0 else None
        with contextlib.suppress(MurmurError):
            version = await recorder.append(run_id, event, expected_version=expected)
        number += 1
        await asyncio.sleep(0.005)


async def read(recorder: Recorder, run_id: str, report: FailoverReport) -> None:
    """Read to the end; after a reset from where the error says."""
    after: str | None = None
    while True:
        try:
            await recorder.read(run_id, after)
        except CursorError as error:
            after = error.resume_cursor
            report.resets += 1
        else:
            return


async def write_once_more(recorders: list[Recorder], runs: list[str]) -> None:
    """Each program writes to each run: the next write learns of a loss, and the one after it not.

    Only then is every loss that a program can learn of reported.
    """
    for number, recorder in enumerate(recorders):
        for run_id in runs:
            for name in ("next", "after-next"):
                event = RunEvent(type=RunEventType.LOG, run_id=run_id, data=f"{name}-{number}")
                with contextlib.suppress(MurmurError):
                    await recorder.append(run_id, event)


def is_acknowledged_append(call: Call) -> bool:
    return call.outcome is Outcome.ACKNOWLEDGED and isinstance(call.command, Append)


async def one_failover(
    group: SentinelGroup, how: str, programs: list[Submitter], is_replicated: bool
) -> FailoverReport:
    """Let programs work, fail over, and judge what they met."""
    report, history, is_over = FailoverReport(), History(may_rewind=True), asyncio.Event()
    recorders = [Recorder(program.store, history) for program in programs]
    runs = [new_run_id() for _ in range(RUNS)]
    await asyncio.gather(*(recorders[0].create(run_id, "by-hand") for run_id in runs))
    readers = [asyncio.create_task(read(recorders[1], run_id, report)) for run_id in runs]
    writers = [
        asyncio.create_task(append(recorder, run_id, f"{number}.{each}", is_over))
        for number, recorder in enumerate(recorders)
        for run_id in runs
        for each in range(WRITERS)
    ]
    writers += [asyncio.create_task(program.submit(is_over)) for program in programs]

    def count() -> int:
        return sum(is_acknowledged_append(call) for call in history.calls)

    await wait_until(lambda: count() > BEFORE, "writes are under way")
    if how.endswith(CUT):
        await asyncio.to_thread(_link_replicas, group.primary, "-")
        await asyncio.sleep(CUT_SECONDS)
    began = time.monotonic()
    old, switched, agreed = await _switch(group, how)
    report.switch_seconds, report.agree_seconds = switched - began, agreed - switched
    at_switch = count()
    await wait_until(lambda: count() > at_switch + AFTER, "writes go on")
    await asyncio.to_thread(_repair, old, how)
    await asyncio.to_thread(group.wait_until_whole)
    is_over.set()
    await asyncio.gather(*writers)
    await write_once_more(recorders, runs)
    for run_id in runs:
        await recorders[0].finish(run_id, RunState.COMPLETED)
    await asyncio.wait_for(asyncio.gather(*readers), PATIENCE_SECONDS)
    await _judge(report, history, programs[0].store, runs, switched)
    await _judge_submits(report, programs)
    if is_replicated and report.lost:
        report.violations.append(f"{report.lost} replicated writes are lost")
    return report


async def _switch(group: SentinelGroup, how: str) -> tuple[Node, float, float]:
    """Bring another server to power.

    Returns:
        The old primary, when the first Sentinel named the new one, and when most had switched.
    """
    old = group.primary

    def wait(count: int, port_of: Callable[[Any], int]) -> float:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while sum(_ask(each, port_of) != old.port for each in group.sentinels) < count:
            assert time.monotonic() < deadline, "the Sentinels name no other primary"
            time.sleep(0.002)
        return time.monotonic()

    most = len(group.sentinels) // 2 + 1
    asked = [(1, _named_port), (most, _switched_port)]
    waiting = [asyncio.create_task(asyncio.to_thread(wait, *each)) for each in asked]
    if how.startswith("killed"):
        old.kill()
    elif how.startswith("frozen"):
        old.freeze()
    else:
        await asyncio.to_thread(group.fail_over)
    return old, await waiting[0], await waiting[1]


def _ask(sentinel: Node, port_of: Callable[[Any], int]) -> int:
    with sentinel.client as client:
        return port_of(client)


def _named_port(client: Any) -> int:
    """The primary for new programs: the promoted one, also before the failover has ended."""
    return int(client.sentinel_get_master_addr_by_name(SERVICE)[1])


def _switched_port(client: Any) -> int:
    """The primary that the Sentinel monitors."""
    return int(client.sentinel_master(SERVICE)["port"])


def _repair(old: Node, how: str) -> None:
    if how.startswith("killed"):
        old.start()
    elif how.startswith("frozen"):
        old.thaw()
        _link_replicas(old, "+")


def _link_replicas(server: Node, sign: str) -> None:
    """Let replicas follow a server (``+``), or not (``-``)."""
    with server.client as client:
        execute = cast("Any", client).execute_command
        execute("ACL", "SETUSER", "default", f"{sign}psync", f"{sign}replconf")
        if sign == "-":
            execute("CLIENT", "KILL", "TYPE", "replica")


async def _judge(
    report: FailoverReport, history: History, store: RedisRunStore, runs: list[str], switched: float
) -> None:
    stored = await stored_runs(store, runs)
    report.violations += [f"{each.rule}: {each.text}" for each in check(history, stored)]
    resumed: list[float] = []
    for run_id in runs:
        view = RunView.of(history, run_id, stored[run_id])
        for call in filter(is_acknowledged_append, view.calls):
            report.acknowledged += 1
            if all(view.seqs_of_write(call.command)):
                resumed += [call.ended] if call.ended > switched else []
            else:
                report.lost += 1
                report.reported += view.is_reported(call)
        report.violations += [f"audit: {text}" for text in (await store.audit(run_id)).problems]
    report.resume_seconds = min(resumed) - switched


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


async def failovers(how: str, durability: str, count: int) -> AsyncGenerator[FailoverReport]:
    """Fail over so many times on one service."""
    with short_folder() as folder, sentinel_service(folder, replicas=2) as group:
        programs = [Submitter(group.url, durability) for _ in range(PROGRAMS)]
        try:
            async with a_worker(group.url, durability):
                for _ in range(count):
                    yield await one_failover(group, how, programs, durability == "replicated")
        finally:
            for program in programs:
                await program.store.close()


def summary(how: str, durability: str, reports: list[FailoverReport]) -> str:
    """One line of the table."""
    switches = [each.switch_seconds for each in reports]
    resumes = [each.resume_seconds for each in reports]
    after_most = [each.resume_seconds - each.agree_seconds for each in reports]
    total = {
        name: sum(getattr(each, name) for each in reports)
        for name in ("acknowledged", "lost", "reported", "resets")
    }
    return (
        f"{durability}, {how}: {len(reports)} failovers; Sentinels switched after "
        f"{median(switches):.2f} s (at most {max(switches):.2f} s); writes went on "
        f"{median(resumes):.3f} s after the switch (at most {max(resumes):.3f} s), and at "
        f"most {max(after_most):.3f} s after most Sentinels had switched; "
        f"{total['acknowledged']} writes acknowledged, {total['lost']} lost, of which "
        f"{total['reported']} reported; {total['resets']} readers reset; "
        f"{sum(len(each.violations) for each in reports)} violations"
    )


async def run(how: str, durability: str, count: int, show: Callable[[str], None]) -> bool:
    """Fail over and print; False when there was a violation."""
    reports: list[FailoverReport] = []
    async for report in failovers(how, durability, count):
        reports.append(report)
        show(f"{durability}, {how}, {len(reports)} of {count}: {report}")
    print(summary(how, durability, reports), flush=True)  # noqa: T201  # it is a command
    return not any(each.violations for each in reports)


def main(argv: list[str]) -> int:
    """Fail over and print a table; 1 when there was a violation."""
    parser = argparse.ArgumentParser("python -m tests.chaos.failovers", description=__doc__)
    parser.add_argument("--how", choices=[*HOW, "all"], default="all")
    parser.add_argument("--durability", choices=[*DURABILITY, "all"], default="all")
    parser.add_argument("--count", type=int, default=20)
    given = parser.parse_args(argv)

    def show(line: str) -> None:
        print(line, file=sys.stderr, flush=True)  # noqa: T201

    outcomes = [
        asyncio.run(run(how, durability, given.count, show))
        for durability in (DURABILITY if given.durability == "all" else [given.durability])
        for how in (HOW if given.how == "all" else [given.how])
    ]
    return 0 if all(outcomes) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
