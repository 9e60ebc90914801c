"""Histories over failovers of a Sentinel service: with replicated writes no promise is broken."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from murmur_streams.core.model.states import RunState
from murmur_streams.stores.redis.store import RedisRunStore
from murmur_streams.testing.checker import check
from murmur_streams.testing.faults import Failover, fail_over
from murmur_streams.testing.history import History, stored_runs
from murmur_streams.testing.recorder import Recorder
from tests.chaos.failovers import failovers
from tests.chaos.writing import read, write
from tests.running_server import short_folder
from tests.sentinel_service import sentinel_service
from tests.stores.faults.waiting import wait_until

RUNS, WRITERS = 4, 3


@pytest.mark.parametrize("how", ["killed", "frozen", "in order"])
@pytest.mark.fault("F14", "F15", on="sentinel")
async def test_replicated_writes_keep_every_promise(how: Failover) -> None:
    """Writers with and without expected versions, and readers, while the primary changes."""
    history, is_over, counts = History(may_rewind=True), asyncio.Event(), Counter[str]()
    with short_folder() as folder, sentinel_service(folder, replicas=2) as service:
        async with RedisRunStore(service.url, durability="replicated") as store:
            recorder = Recorder(store, history)
            runs = [f"run{number}" for number in range(RUNS)]
            await asyncio.gather(*(recorder.create(run_id, "work") for run_id in runs))
            readers = [asyncio.create_task(read(recorder, run_id)) for run_id in runs]
            writers = [
                asyncio.create_task(write(recorder, run_id, f"{number}", counts, is_over))
                for run_id in runs
                for number in range(WRITERS)
            ]
            await wait_until(lambda: counts.total() > 100, "writes are under way")
            await fail_over(service, how)
            count = counts.total()
            await wait_until(lambda: counts.total() > count + 100, "writes go on")
            is_over.set()
            await asyncio.gather(*writers)
            for run_id in runs:
                await recorder.finish(run_id, RunState.COMPLETED)
            await asyncio.gather(*readers)
            assert check(history, await stored_runs(store, runs)) == []


@pytest.mark.slow
@pytest.mark.parametrize("how", ["in order", "killed-after-a-cut"])
@pytest.mark.fault("F14", "F16", on="sentinel")
async def test_without_replicated_every_loss_is_reported(how: str) -> None:
    """Programs, a worker and readers; the checker knows which losses each program learned of."""
    async for report in failovers("sentinel", how, "primary", 1):
        assert report.violations == []
        assert report.lost == report.reported
