"""Three workers, five hundred runs and a hundred faults: every run ends once, as it should."""

from __future__ import annotations

import asyncio
import random
import signal
from pathlib import Path

import pytest

from murmur_streams import RunHandle
from tests.fleet.app import Job, Report
from tests.fleet.stage import Stage, WorkerProcess
from tests.servers import Space

LEASE_SECONDS = 1.0
RUNS = 500
SIGNALS = 102
"""Half of them kill; the others freeze the process for longer than its lease."""
BLOCKS = 40
"""So many runs block their worker's event loop for longer than its lease."""
PATIENCE_SECONDS = 120.0


def blocked(notes: Path) -> int:
    """How often an event loop was blocked."""
    return notes.read_text(encoding="utf-8").count("blocked") if notes.exists() else 0


class Chaos:
    """Submits runs of mixed length, and breaks one worker after another meanwhile."""

    def __init__(self, stage: Stage, chance: random.Random) -> None:
        self.stage = stage
        self.chance = chance
        self.notes = stage.folder / "notes"
        self.expected: dict[RunHandle[object], int] = {}
        self.signals = 0
        kinds = ["blocks_the_loop"] * BLOCKS + ["counts", "counts_blocking"] * RUNS
        self.agents = kinds[:RUNS]
        chance.shuffle(self.agents)

    def start(self) -> WorkerProcess:
        return self.stage.start(lease_seconds=LEASE_SECONDS, concurrency=8, idle_seconds=5)

    async def submit_some(self, count: int) -> None:
        """Submit the next runs; of each, what it should report is known."""
        for agent in [self.agents.pop() for _ in range(min(count, len(self.agents)))]:
            pause = self.chance.choice((0.0, 0.01, 0.05, 0.3))
            if agent == "blocks_the_loop":
                pause = 2 * LEASE_SECONDS
            job = Job(steps=self.chance.randrange(8), pause_seconds=pause, journal=str(self.notes))
            handle = await self.stage.fleet.submit(agent, job.model_dump())
            self.expected[handle] = sum(range(job.steps))

    async def torment(self, worker: WorkerProcess, faults: int) -> None:
        """Break a worker, or its successor, so many times."""
        for fault in range(faults):
            await self.stage.ready(worker)
            await self.submit_some(1 + RUNS // SIGNALS)
            await asyncio.sleep(self.chance.uniform(0, 0.3))
            self.signals += 1
            if fault % 2:
                worker.send(signal.SIGSTOP)
                await asyncio.sleep(LEASE_SECONDS * self.chance.uniform(1.1, 1.6))
                worker.send(signal.SIGCONT)
            else:
                worker.kill()
                worker = self.start()


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.fault("F25", "F26", "F27")
async def test_every_run_ends_once_whatever_the_workers_suffer(stage: Stage, space: Space) -> None:
    """Every run ends once and correctly, whatever happens to the workers."""
    chaos = Chaos(stage, random.Random(20_240_815))
    workers = [chaos.start() for _ in range(3)]
    shares = [SIGNALS // 3 + (number < SIGNALS % 3) for number in range(3)]
    await asyncio.gather(
        *(chaos.torment(worker, share) for worker, share in zip(workers, shares, strict=True))
    )
    await chaos.submit_some(RUNS)
    assert len(chaos.expected) == RUNS
    outputs = {handle: await handle.output(timeout=PATIENCE_SECONDS) for handle in chaos.expected}
    totals = {
        handle: Report.model_validate(output, from_attributes=True).total
        for handle, output in outputs.items()
    }
    assert totals == chaos.expected
    assert chaos.signals == SIGNALS
    assert blocked(chaos.notes) > 0
    attempts = await stage.check(chaos.expected)
    # The faults were felt: a run that was executed once only was hit by none.
    assert sum(attempts) > RUNS
    assert space.admin.zcard(space.keys.leases(0)) == 0
    for target in ("counts", "counts_blocking", "blocks_the_loop"):
        assert space.admin.zcard(space.keys.queue(target, 0)) == 0
    assert (await stage.fleet.dead.list()).letters == ()
