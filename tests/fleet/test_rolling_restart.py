"""All workers are replaced one after the other while they work."""

from __future__ import annotations

import asyncio
import signal

import pytest

from murmur_streams import RunHandle
from tests.fleet.stage import Stage, wait_until

WORKERS = 3
RUNS_PER_STEP = 40


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_a_rolling_restart_executes_every_run_once(stage: Stage) -> None:
    """A rolling restart of all workers loses no run, and executes none twice."""
    workers = [await stage.ready(stage.start(concurrency=5)) for _ in range(WORKERS)]
    handles: list[RunHandle[object]] = []
    for index in range(WORKERS):
        for number in range(RUNS_PER_STEP):
            agent = ("counts", "counts_blocking")[number % 2]
            job = {"steps": 4, "pause_seconds": 0.02 * (number % 5)}
            handles.append(await stage.fleet.submit(agent, job))
        successor = await stage.ready(stage.start(concurrency=5))
        old, workers[index] = workers[index], successor
        old.send(signal.SIGTERM)
        assert await asyncio.to_thread(old.exit_code) == 0
    for handle in handles:
        await handle.output(timeout=60)
    assert await stage.check(handles) == [1] * len(handles)


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_the_next_worker_executes_handed_back_runs(stage: Stage) -> None:
    """With no time to drain, what has finished stays so, and the rest is done again."""
    gate = stage.gate()
    first = await stage.ready(stage.start(concurrency=20, drain_seconds=0))
    waiting = [await stage.fleet.submit("waits", {"gate": str(gate)}) for _ in range(10)]
    done = [await stage.fleet.submit("counts", {"steps": 2}) for _ in range(10)]
    for handle in done:
        await handle.output(timeout=30)

    async def all_wait() -> bool:
        return all([(await handle.snapshot()).attempt == 1 for handle in waiting])

    await wait_until(all_wait, "the others are under way")
    first.send(signal.SIGTERM)
    assert await asyncio.to_thread(first.exit_code) == 0
    await stage.ready(stage.start(concurrency=20))
    gate.touch()
    for handle in waiting:
        await handle.output(timeout=30)
    assert await stage.check(waiting) == [2] * 10
    assert await stage.check(done) == [1] * 10
