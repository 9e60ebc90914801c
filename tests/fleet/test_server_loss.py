"""The server dies, or loses everything, under running workers."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest
from redis import Redis

from murmur_streams.core.model.errors import StoreFullError
from murmur_streams.core.model.states import RunState
from murmur_streams.embedded import ensure_server, server_status
from murmur_streams.stores.redis.keys import Keys
from tests.fleet.stage import Stage, wait_until

RUNS = 30


@pytest.mark.slow
@pytest.mark.fault("F9")
async def test_runs_end_once_though_the_server_was_killed(
    own_stage: Stage, own_folder: Path
) -> None:
    """Three kills under thirty runs, two workers and no lost run."""
    for _ in range(2):
        await own_stage.ready(own_stage.start(lease_seconds=2, idle_seconds=1))
    handles = [
        await own_stage.fleet.submit("counts", {"steps": 10, "pause_seconds": 0.02 * (n % 10)})
        for n in range(RUNS)
    ]
    for _ in range(3):
        await handles[0].status()  # By now some process has started the server again.
        server = server_status(own_folder)
        assert server is not None
        os.kill(server.pid, signal.SIGKILL)
        await asyncio.sleep(0.5)
    for handle in handles:
        output = await handle.output(timeout=60)
        assert output.total == 45
    await own_stage.check(handles)
    assert [worker.process.poll() for worker in own_stage.workers] == [None, None]


@pytest.mark.fault("F12")
async def test_workers_outlive_the_loss_of_all_data(own_stage: Stage, own_folder: Path) -> None:
    """After FLUSHALL they execute new runs and stop cleanly."""
    gate = own_stage.gate()
    worker = await own_stage.ready(own_stage.start(lease_seconds=1))
    lost = await own_stage.fleet.submit("waits", {"gate": str(gate)})
    await own_stage.in_state(lost, RunState.RUNNING, attempt=1)
    with Redis.from_url(ensure_server(own_folder).url) as admin:
        for _ in range(2):
            admin.flushall()
            handle = await own_stage.fleet.submit("counts", {"steps": 2})
            await handle.output(timeout=30)
            assert await own_stage.check([handle]) == [1]
    worker.send(signal.SIGTERM)
    assert await asyncio.to_thread(worker.exit_code) == 0


async def lease_moves_on(admin: Redis, stage: Stage, run_id: str) -> None:
    """Wait until a heartbeat has moved the run's lease on."""
    leases = Keys(stage.prefix).leases(0)
    before = admin.zscore(leases, run_id)

    async def has_moved() -> bool:
        return admin.zscore(leases, run_id) not in {before, None}

    await wait_until(has_moved, f"a heartbeat keeps run {run_id}")


async def test_leases_last_though_the_server_is_out_of_memory(
    own_stage: Stage, own_folder: Path
) -> None:
    """Heartbeats are accepted by a full server."""
    gate = own_stage.gate()
    await own_stage.ready(own_stage.start(lease_seconds=3))
    handle = await own_stage.fleet.submit("waits", {"gate": str(gate)})

    async def has_begun() -> bool:
        return any(
            entry.fields.get("name") == "began" for entry in await own_stage.journal(handle.run_id)
        )

    await wait_until(has_begun, "the agent's own write is done")
    with Redis.from_url(ensure_server(own_folder).url) as admin:
        admin.config_set("maxmemory", "1")
        with pytest.raises(StoreFullError):
            await own_stage.fleet.submit("counts", {})
        # By then it would have run out.
        for _ in range(5):
            await lease_moves_on(admin, own_stage, handle.run_id)
        admin.config_set("maxmemory", "0")
    gate.touch()
    await handle.output(timeout=30)
    assert await own_stage.check([handle]) == [1]


async def test_heartbeats_go_on_after_the_server_has_refused_some(
    own_stage: Stage, own_folder: Path
) -> None:
    """Once the right is back, leases are extended again."""
    gate = own_stage.gate()
    worker = await own_stage.ready(own_stage.start(lease_seconds=3))
    handle = await own_stage.fleet.submit("waits", {"gate": str(gate)})
    await own_stage.in_state(handle, RunState.RUNNING, attempt=1)
    with Redis.from_url(ensure_server(own_folder).url) as admin:
        admin.acl_setuser("default", enabled=True, commands=["-zadd"])

        async def was_refused() -> bool:
            # The loops of a worker share the line: a claim may be refused before a heartbeat is.
            return "does not permit" in worker.text()

        await wait_until(was_refused, "the worker is refused")
        admin.acl_setuser("default", enabled=True, commands=["+zadd"])
        await lease_moves_on(admin, own_stage, handle.run_id)
    gate.touch()
    await handle.output(timeout=30)
    await own_stage.check([handle])
    assert worker.process.poll() is None
