"""``python -m tests.chaos.raises``: raises of the number of partitions under load, one by one.

Each round begins with an empty key space in one partition, and raises it to 4 and then to 16 while
programs work that learn of it only by what they do: they race for the same ids, append, read,
submit to a fleet whose agents fail at first and are tried again, list and follow the feed. The
checker judges the histories; every run must have ended once, be listed once, and be in the feed
once.

    make raises COUNT=100                    # one server
    make raises COUNT=20 TOPOLOGY=cluster
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
import time
from collections import Counter
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, field

from murmur_streams import Backoff, Fleet, RunContext
from murmur_streams.core.model.errors import RunExistsError
from murmur_streams.core.model.events import RunEvent, RunEventType
from murmur_streams.core.model.states import RunState
from murmur_streams.stores.own_tasks import end_tasks
from murmur_streams.stores.redis.partitions import forget_numbers, raise_partitions
from murmur_streams.stores.redis.store import RedisRunStore, redis_only
from murmur_streams.testing.checker import check
from murmur_streams.testing.history import History, stored_runs
from murmur_streams.testing.plugin import working
from murmur_streams.testing.recorder import Recorder
from tests.cluster_service import cluster_service
from tests.running_server import running_server, short_folder

NUMBERS = (4, 16)
PROGRAMS, RACED, WRITERS = 3, 12, 2
JOBS_BETWEEN = 15
"""How many runs are submitted before, between and after the raises."""
PATIENCE_SECONDS = 60.0


@dataclass
class Round:
    """One key space, its programs, and what they found."""

    url: str
    prefix: str
    history: History = field(default_factory=History)
    executed: Counter[str] = field(default_factory=Counter[str])
    jobs: list[str] = field(default_factory=list[str])
    problems: list[str] = field(default_factory=list[str])
    fed: dict[str, list[int]] = field(default_factory=dict[str, list[int]])
    """The seqs that a reader of the feed has got of each run."""
    is_over: asyncio.Event = field(default_factory=asyncio.Event)

    def store(self) -> RedisRunStore:
        """A program that was set to one partition before the first raise."""
        return RedisRunStore(self.url, key_prefix=self.prefix, partitions=1)

    def fleet(self) -> Fleet:
        """A fleet whose agent fails at its first try."""
        fleet = Fleet(self.url, key_prefix=self.prefix, partitions=1)

        @fleet.agent(retries=2, backoff=Backoff(first_seconds=0.05))
        async def counting(ctx: RunContext) -> int:
            self.executed[f"{ctx.run_id} {ctx.attempt}"] += 1
            await asyncio.sleep(0.02)
            if ctx.attempt == 1:
                raise ConnectionError("the first try fails")
            return ctx.attempt

        return fleet


async def one_round(url: str, prefix: str) -> Round:
    """Raise the number twice under load; the problems that were found are in the round."""
    it = Round(url, prefix)
    async with AsyncExitStack() as stack:
        stores = [await stack.enter_async_context(it.store()) for _ in range(PROGRAMS)]
        fleets = [await stack.enter_async_context(it.fleet()) for _ in range(2)]
        # Both open their stores, and so know one partition, before the first raise.
        submitting, _ = [redis_only(await fleet.store()) for fleet in fleets]
        await stack.enter_async_context(working(fleets[1], lease_seconds=3.0))
        raced = [f"raced-{number}" for number in range(RACED)]
        load = [
            *(_write(it, store, raced, number) for number, store in enumerate(stores)),
            _list(it, stores[0]),
        ]
        tasks = [asyncio.create_task(each) for each in load]
        feed = asyncio.create_task(_follow(it, stores[1]))
        await _submit(it, fleets[0])
        for number in NUMBERS:
            await raise_partitions(stores[-1], number)
            await _submit(it, fleets[0])
        it.is_over.set()
        await asyncio.gather(*tasks)
        for run_id in raced:
            await Recorder(stores[0], it.history).finish(run_id, RunState.COMPLETED)
        await _until_ended(it, submitting)
        await _judge(it, stores[0], raced)
        await _compare_feed(it, feed, submitting)
        await _forget(it, stores[1])
    return it


async def _write(it: Round, store: RedisRunStore, raced: list[str], name: int) -> None:
    """Create the runs that all programs create, now and then, and append to those that exist."""
    recorder, number = Recorder(store, it.history), 0
    while not it.is_over.is_set() or number < len(raced):
        if number < len(raced):
            with contextlib.suppress(RunExistsError):
                await recorder.create(raced[number], "work")
        for run_id in raced[: number + 1][-WRITERS:]:
            event = RunEvent(type=RunEventType.LOG, run_id=run_id, data=f"{name}-{number}")
            await recorder.append(run_id, event)
        number += 1
        await asyncio.sleep(0.005)


async def _submit(it: Round, fleet: Fleet) -> None:
    for _ in range(JOBS_BETWEEN):
        it.jobs.append((await fleet.submit("counting")).run_id)
        await asyncio.sleep(0.005)


async def _list(it: Round, store: RedisRunStore) -> None:
    """List all runs in small pages, again and again: no run is on two pages."""
    while not it.is_over.is_set():
        found, cursor = Counter[str](), None
        while True:
            page = await store.list_runs(limit=7, cursor=cursor)
            found.update(run.run_id for run in page.runs)
            if (cursor := page.cursor) is None:
                break
        it.problems += [f"listed {n} times: {each}" for each, n in found.items() if n > 1]
        await asyncio.sleep(0.01)


async def _follow(it: Round, store: RedisRunStore) -> None:
    """Read the feed until cancelled."""
    async with aclosing(store.feed()) as feed:
        async for each in feed:
            it.fed.setdefault(each.run_id, []).append(each.entry.seq)


async def _until_ended(it: Round, store: RedisRunStore) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        for run_id in it.jobs:
            while not (await store.get_status(run_id)).state.is_terminal:  # noqa: ASYNC110  # polls
                await asyncio.sleep(0.02)


async def _judge(it: Round, store: RedisRunStore, raced: list[str]) -> None:
    it.problems += map(str, check(it.history, await stored_runs(store, raced)))
    for run_id in it.jobs:
        run = await store.snapshot(run_id)
        tries = [it.executed[f"{run_id} {attempt}"] for attempt in (1, 2)]
        if (run.state, run.attempt, tries) != (RunState.COMPLETED, 2, [1, 1]):
            it.problems.append(f"run {run_id}: {run.state}, attempt {run.attempt}, tries {tries}")
    for run_id in (*raced, *it.jobs):
        if not (report := await store.audit(run_id)).ok:
            it.problems.append(f"audit of {run_id}: {report.problems}")
    listed = Counter(run.run_id for run in (await store.list_runs(limit=500)).runs)
    if listed != Counter((*raced, *it.jobs)):
        it.problems.append(f"listed: {listed}")


async def _compare_feed(it: Round, feed: asyncio.Task[None], store: RedisRunStore) -> None:
    """A reader that began before the raises gets each entry once."""
    runs = {run.run_id: run.version for run in (await store.list_runs(limit=500)).runs}
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(PATIENCE_SECONDS):
            while sum(map(len, it.fed.values())) < sum(runs.values()):  # noqa: ASYNC110  # no event
                await asyncio.sleep(0.02)
    await end_tasks([feed])
    for run_id, version in runs.items():
        if it.fed.get(run_id) != [*range(1, version + 1)]:
            it.problems.append(f"feed of {run_id}: {it.fed.get(run_id)}, version {version}")


async def _forget(it: Round, store: RedisRunStore) -> None:
    """Once the runs are gone, no program needs the older numbers."""
    while runs := (await store.list_runs(limit=500)).runs:
        await asyncio.gather(*(store.delete(run.run_id) for run in runs))
    if str(await forget_numbers(store)) != str(NUMBERS[-1]):
        it.problems.append("the older numbers were not forgotten")


async def _rounds(url: str, count: int) -> int:
    failed, began = 0, time.monotonic()
    for number in range(0, count, len(NUMBERS)):
        it = await one_round(url, f"raise-{number}")
        failed += bool(it.problems)
        _say(
            f"{number + len(NUMBERS):4} raises, {time.monotonic() - began:4.0f} s: "
            f"{len(it.history.calls)} writes, {len(it.jobs)} runs with 2 tries, "
            f"{len(it.problems)} problems",
            *it.problems,
        )
    _say(f"{failed} of {count // len(NUMBERS)} rounds found problems")
    return failed


def _say(*lines: str) -> None:
    print(*lines, sep="\n  ", flush=True)  # noqa: T201  # it is a command


def main(count: int, topology: str) -> int:
    """Raise the number so often; how many rounds have found problems."""
    with short_folder() as folder:
        if topology == "cluster":
            with cluster_service(folder) as group:
                return asyncio.run(_rounds(group.url, count))
        with running_server(folder) as (url, _):
            return asyncio.run(_rounds(url, count))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100, help="how many raises, two a round")
    parser.add_argument("--topology", choices=["standalone", "cluster"], default="standalone")
    given = parser.parse_args()
    sys.exit(bool(main(given.count, given.topology)))
