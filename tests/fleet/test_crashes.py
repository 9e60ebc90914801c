"""After any end of a worker's process, its runs end once, with the right result."""

from __future__ import annotations

import asyncio
import random

import pytest

from murmur_streams import RunHandle
from murmur_streams.core.model.states import RunState
from tests.fleet.app import Job, Report
from tests.fleet.stage import Stage, WorkerProcess

KILLS = 50
RUNS_PER_KILL = 3


def total(output: object) -> int:
    """The total of a report, which a fleet without agents decodes as a plain model."""
    return Report.model_validate(output, from_attributes=True).total


async def submit_some(stage: Stage, chance: random.Random) -> dict[RunHandle[object], int]:
    """Submit runs of mixed length; their handles, with the totals they should report."""
    submitted: dict[RunHandle[object], int] = {}
    for _ in range(RUNS_PER_KILL):
        job = Job(steps=chance.randrange(12), pause_seconds=chance.choice((0.0, 0.01, 0.1)))
        agent = chance.choice(("counts", "counts_blocking"))
        handle = await stage.fleet.submit(agent, job.model_dump())
        submitted[handle] = sum(range(job.steps))
    return submitted


async def holder(stage: Stage, handle: RunHandle[object]) -> WorkerProcess:
    """Wait until the run is executed; the worker that does."""
    await stage.in_state(handle, RunState.RUNNING, attempt=1)
    worker_id = (await handle.snapshot()).worker or ""
    return next(each for each in stage.workers if f"-{each.pid}-" in worker_id)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.fault("F25")
async def test_fifty_killed_workers_leave_every_run_ended_once(
    stage: Stage,
) -> None:
    """Fifty workers that are killed at random moments leave every run ended once."""

    def start() -> WorkerProcess:
        return stage.start(lease_seconds=1, concurrency=4, idle_seconds=5)

    chance = random.Random(20_240_607)
    workers = [start() for _ in range(3)]
    expected: dict[RunHandle[object], int] = {}
    bereft: list[RunHandle[object]] = []
    for kill in range(KILLS):
        expected |= await submit_some(stage, chance)
        victim = workers[chance.randrange(len(workers))]
        gate = stage.gate()
        if kill % 5 == 0:
            # Here the kill hits for certain a worker that executes a run.
            bereft.append(await stage.fleet.submit("waits", {"gate": str(gate)}))
            victim = await holder(stage, bereft[-1])
        await stage.ready(victim)
        await asyncio.sleep(chance.uniform(0, 0.5))
        victim.kill()
        gate.touch()
        workers[workers.index(victim)] = start()
    outputs = {handle: await handle.output(timeout=60) for handle in expected}
    assert {handle: total(output) for handle, output in outputs.items()} == expected
    for handle in bereft:
        await handle.output(timeout=60)
    await stage.check(expected)
    assert all(attempt > 1 for attempt in await stage.check(bereft))


@pytest.mark.parametrize("moment", ["claimed", "finishing"])
@pytest.mark.fault("F25")
async def test_a_worker_that_dies_before_its_run_has_ended_is_replaced(
    stage: Stage, moment: str
) -> None:
    """Killed after the claim or during the end: attempt 2 completes the run."""
    first = await stage.ready(stage.start(lease_seconds=3, die_at=moment))
    handle = await stage.fleet.submit("counts", {"steps": 3})
    assert await asyncio.to_thread(first.process.wait, 30) == 9
    await stage.ready(stage.start(lease_seconds=3))
    assert total(await handle.output(timeout=30)) == 3
    assert await stage.check([handle]) == [2]


@pytest.mark.fault("F25")
async def test_a_worker_may_die_after_its_run_has_ended(stage: Stage) -> None:
    """A worker that dies right after it has ended its run changes nothing about the run."""
    first = await stage.ready(stage.start(lease_seconds=3, die_at="finished"))
    handle = await stage.fleet.submit("counts", {"steps": 3})
    assert await asyncio.to_thread(first.process.wait, 30) == 9
    ended = await handle.snapshot()
    await stage.ready(stage.start(lease_seconds=3))
    other = await stage.fleet.submit("counts", {"steps": 3})
    await other.output(timeout=30)
    assert await handle.snapshot() == ended
    assert await stage.check([handle, other]) == [1, 1]


@pytest.mark.fault("F30")
async def test_a_run_that_kills_its_worker_runs_elsewhere(
    stage: Stage,
) -> None:
    """A run whose handler kills the worker's process is executed by another worker."""
    first = await stage.ready(stage.start(lease_seconds=3))
    handle = await stage.fleet.submit("dies_once", {})
    assert await asyncio.to_thread(first.process.wait, 30) == 9
    await stage.ready(stage.start(lease_seconds=3))
    assert total(await handle.output(timeout=30)) == 2
    assert await stage.check([handle]) == [2]
    reasons = [entry.fields.get("reason") for entry in await stage.journal(handle.run_id)]
    assert "lease_expired" in reasons


@pytest.mark.slow
async def test_all_runs_of_a_dead_worker_are_requeued(
    stage: Stage,
) -> None:
    """All runs of a dead worker are queued again, however many they are."""
    gate = stage.gate()
    first = await stage.ready(stage.start(lease_seconds=3, concurrency=60))
    handles = [await stage.fleet.submit("waits", {"gate": str(gate)}) for _ in range(60)]
    for handle in handles:
        await stage.in_state(handle, RunState.RUNNING, attempt=1)
    first.kill()
    second: WorkerProcess = await stage.ready(stage.start(lease_seconds=3, concurrency=60))
    for handle in handles:
        await stage.in_state(handle, RunState.RUNNING, attempt=2)
    gate.touch()
    for handle in handles:
        await handle.output(timeout=30)
    assert await stage.check(handles) == [2] * 60
    assert second.process.poll() is None
