"""A soak: a fleet works for a long time while faults happen now and then, and is measured."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import random
import time
from collections.abc import AsyncGenerator, Callable, Coroutine
from pathlib import Path
from typing import Any

from redis import Redis

from murmur_streams.core.model.errors import MurmurError
from murmur_streams.stores.redis.store import RedisRunStore
from murmur_streams.testing.faults import Act, FaultSchedule
from tests.chaos.load import RETRY_SECONDS, Load, Pace, judge
from tests.chaos.programs import program_faults
from tests.chaos.report import Report
from tests.chaos.workers import (
    RestartedProcess,
    environ_of,
    pod,
    process_faults,
    running,
    worker_faults,
    workers,
)
from tests.chaos.world import World
from tests.chaos.worlds import WORLDS
from tests.pods.balancer import free_ports
from tests.running_server import short_folder
from tests.soak.keys import client_of, count_keys, left_keys, problems_that_stay
from tests.soak.report import SoakReport
from tests.soak.sampler import Sampler

WORKERS, PODS = 3, 2
TTL_SECONDS = 180
"""Of ended runs: they expire during the soak."""
PACE = Pace(between_calls=(0.0, 0.2), between_submissions=(0.2, 0.8))
"""Far below what the machine can do: a machine that is busy then does not change the load."""
FAULT_PAUSE_SECONDS = (10.0, 50.0)
"""Of each of the five lanes."""
SETTLED_SECONDS = RETRY_SECONDS + 10
"""After the last call on a run began, none is under way."""
UNREADABLE_SECONDS = TTL_SECONDS - 20
RECENT_SECONDS = 300.0
REST_SECONDS = 60.0
JUDGED_AT_ONCE = 20
SAMPLE_SECONDS = JUDGE_SECONDS = 5.0
SHOW_SECONDS = 60.0
EXPIRY_SECONDS = TTL_SECONDS + 120.0
"""How long every run may take to expire: ttl, grace, and housekeeping."""
ENDLESS = 10**9
MIGRATED_MS = 1_000


class Soak:
    """One soak. ``report`` is there from the beginning, and grows.

    Args:
        topology: of the servers; see ``WORLDS``.
        seed: of every choice.
        minutes: how long the load lasts.
        show: gets lines for a person, at least once a minute.
    """

    def __init__(
        self, topology: str, seed: int, minutes: float, show: Callable[[str], None]
    ) -> None:
        self.report = SoakReport(Report(topology, seed), minutes)
        self._topology, self._seed, self._minutes = topology, seed, minutes
        self._show = show
        self._stopped = asyncio.Event()
        self._began = time.monotonic()
        self._live: set[str] = set()
        """Runs that were judged and had not ended: they are deleted."""
        self._judged: dict[str, float] = {}
        """When each run of the last minutes was judged."""

    def stop(self) -> None:
        """End the load now; what was measured is judged and reported."""
        self.report.was_interrupted = True
        self._stopped.set()

    async def run(self) -> None:
        """Let the fleet work, and judge it."""
        with short_folder() as folder:
            async with contextlib.AsyncExitStack() as stack:
                world = await stack.enter_async_context(WORLDS[self._topology](folder, self._seed))
                await self._in_world(world, folder, stack)

    async def _in_world(self, world: World, folder: Path, stack: contextlib.AsyncExitStack) -> None:
        environ = environ_of(world.url, {**world.options, "ttl_seconds": TTL_SECONDS})
        crew, ports = workers(WORKERS, folder, environ), free_ports(PODS)
        pods = [RestartedProcess(pod(port), environ, folder / f"pod{port}.log") for port in ports]
        processes = {f"worker {number}": each for number, each in enumerate(crew, 1)}
        processes |= {f"pod {number}": each for number, each in enumerate(pods, 1)}
        await stack.enter_async_context(running(processes.values()))
        addresses = [f"http://127.0.0.1:{port}" for port in ports]
        load = Load(world, self._seed, PACE, addresses, ttl_seconds=TTL_SECONDS)
        numbers = {name: functools.partial(_pid, each) for name, each in processes.items()}
        sampler = Sampler({"load": os.getpid, **numbers}, world)
        schedule = FaultSchedule(
            self._lanes(world, load, crew, pods), self._seed, FAULT_PAUSE_SECONDS
        )
        self.report.chaos.faults = schedule.report
        store = await stack.enter_async_context(load.open_store())
        async with (
            _beside(self._sample(sampler, processes), self._progress(sampler)),
            _beside(self._judge(load, store)),
            load.working(),
            _happening(schedule),
        ):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopped.wait(), self._minutes * 60)
            self._show("the load ends")
        await self._judge_rest(load, store)
        await self._look_at_keys(world)
        self.report.is_complete = True

    def _lanes(
        self,
        world: World,
        load: Load,
        crew: list[RestartedProcess],
        pods: list[RestartedProcess],
    ) -> dict[str, dict[str, Act]]:
        """The world's, and two of ours. The first worker and the first pod are left alone: the
        memory of a process that lives as long as the soak says most."""
        choice = random.Random(f"{self._seed}:ours:details")
        ours = worker_faults(crew[1:], choice) | process_faults("pod", pods[1:], choice)
        return world.lanes | {"ours": ours, "programs": program_faults(load.programs, choice)}

    async def _sample(self, sampler: Sampler, processes: dict[str, RestartedProcess]) -> None:
        while True:
            await sampler.sample()
            self.report.series = sampler.series
            self.report.starts = {name: each.starts for name, each in processes.items()}
            self.report.chaos.seconds = time.monotonic() - self._began
            await asyncio.sleep(SAMPLE_SECONDS)

    async def _progress(self, sampler: Sampler) -> None:
        while True:
            await asyncio.sleep(SHOW_SECONDS)
            chaos = self.report.chaos
            runs = chaos.runs + sum(chaos.ends.values())
            names = dict.fromkeys(each.name for each in sampler.series)
            memory = ", ".join(f"{name} {sampler.newest(name):,.0f}" for name in names)
            self._show(
                f"minute {(time.monotonic() - self._began) / 60:.0f} of {self._minutes:g}: "
                f"{chaos.faults.total} faults, {runs:,} runs, {chaos.entries:,} entries, "
                f"{len(chaos.violations)} violations; MiB: {memory}"
            )

    async def _judge(self, load: Load, store: RedisRunStore) -> None:
        """Judge runs some time after they ended, and forget them: no history grows for ever."""
        while True:
            await asyncio.sleep(JUDGE_SECONDS)
            while some := self._settled(load):
                if not await self._judge_runs(load, store, some):
                    break
            await self._end_live(store)
            # Readers of the feed may have got entries of judged runs since.
            recent = time.monotonic() - RECENT_SECONDS
            self._judged = {run_id: at for run_id, at in self._judged.items() if at > recent}
            load.forget(self._judged.keys())

    def _settled(self, load: Load) -> list[str]:
        """The next runs to judge, those first that were left first."""
        now, left = time.monotonic(), load.left()
        gone = [run_id for run_id, since in left.items() if now - since > UNREADABLE_SECONDS]
        self.report.unjudged += gone
        self._judged.update(dict.fromkeys(gone, now))
        load.forget(frozenset(gone))
        settled = [each for each in left if SETTLED_SECONDS < now - left[each] < UNREADABLE_SECONDS]
        return sorted(settled, key=left.__getitem__)[:JUDGED_AT_ONCE]

    async def _judge_rest(self, load: Load, store: RedisRunStore) -> None:
        """Judge what is there when no program works any more, and end what lives."""
        deadline = time.monotonic() + REST_SECONDS
        while load.run_ids and time.monotonic() < deadline:
            if not await self._judge_runs(load, store, load.run_ids[:JUDGED_AT_ONCE]):
                await asyncio.sleep(0.1)
        self.report.unjudged += load.run_ids
        await self._end_live(store)

    async def _judge_runs(self, load: Load, store: RedisRunStore, run_ids: list[str]) -> bool:
        """Judge runs; False when they cannot be read now, and wait for the next time."""
        try:
            stored = await judge(load, store, self.report.chaos, run_ids)
            self._judged.update(dict.fromkeys(stored, time.monotonic()))
            for run_id, found in stored.items():
                if found.run is not None and not found.run.state.is_terminal:
                    self._live.add(run_id)
        except MurmurError as error:
            self.report.last_error = f"{type(error).__name__}: {error}"
            return False
        return True

    async def _end_live(self, store: RedisRunStore) -> None:
        """Delete the runs that no program uses any more, and that have not ended."""
        with contextlib.suppress(MurmurError):  # The next time, then.
            for run_id in [*self._live]:
                await store.delete(run_id, force=True)
                self._live.discard(run_id)

    async def _look_at_keys(self, world: World) -> None:
        """Look at every key now, and when all runs have expired."""
        report = self.report
        with await asyncio.to_thread(client_of, world) as client:
            report.keys = await asyncio.to_thread(count_keys, client)
            problems = functools.partial(problems_that_stay, client, _apart_ms(world))
            report.key_problems = await asyncio.to_thread(problems)
            if report.was_interrupted:
                return
            self._show(f"waiting until all runs have expired, {TTL_SECONDS} s and more")
            left = await self._left_keys(client)
            if self._stopped.is_set():
                report.was_interrupted = True
                return
            report.left = left
            report.keys_at_the_end = await asyncio.to_thread(count_keys, client)
            report.key_problems += await asyncio.to_thread(problems)

    async def _left_keys(self, client: Redis) -> list[str]:
        """Wait until no key of a run is left; returns those that are there in the end."""
        began = shown = time.monotonic()
        while left := await asyncio.to_thread(left_keys, client):
            now = time.monotonic()
            if now - began > EXPIRY_SECONDS or self._stopped.is_set():
                break
            if now - shown > SHOW_SECONDS:
                shown = now
                self._show(f"{len(left):,} keys of runs are there after {now - began:.0f} s")
            await asyncio.sleep(SAMPLE_SECONDS)
        return left


def _apart_ms(world: World) -> int:
    """How far the expiry of a key may be from its run's: MIGRATE hands over what is left of it,
    and the node to which a slot is moved adds that to its own clock."""
    return MIGRATED_MS if "+cluster" in world.url else 0


def _pid(process: RestartedProcess) -> int | None:
    return process.pid


@contextlib.asynccontextmanager
async def _happening(schedule: FaultSchedule) -> AsyncGenerator[None]:
    """Let faults happen while the block lasts; at its end, those that happen are taken back."""
    async with asyncio.TaskGroup() as group:
        group.create_task(schedule.run(ENDLESS))
        yield
        schedule.stop()


@contextlib.asynccontextmanager
async def _beside(*works: Coroutine[Any, Any, None]) -> AsyncGenerator[None]:
    """Let some work go on while the block lasts; an error of it ends the block."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(work) for work in works]
        yield
        for task in tasks:
            task.cancel()
