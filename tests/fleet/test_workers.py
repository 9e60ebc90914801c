"""The list of live workers."""

from __future__ import annotations

import asyncio
import platform
import signal

import pytest

from murmur_streams import Fleet
from murmur_streams.core.model.errors import InvalidInputError
from murmur_streams.core.model.states import RunState
from murmur_streams.core.model.work import WorkerInfo
from murmur_streams.fleet.worker import Worker
from tests.fleet import app
from tests.fleet.stage import Stage, wait_until
from tests.fleet.working import working
from tests.servers import Space


async def listed(fleet: Fleet, count: int) -> list[WorkerInfo]:
    """Wait until so many workers are listed."""

    async def are_there() -> bool:
        return len(await fleet.workers()) == count

    await wait_until(are_there, f"{count} workers are listed")
    return await fleet.workers()


def test_a_worker_for_no_agent_is_refused() -> None:
    """An empty list of targets raises InvalidInputError."""
    with pytest.raises(InvalidInputError, match="targets is empty"):
        Worker(app.fleet, targets=[])


async def test_a_worker_is_listed_with_its_runs_until_it_stops(stage: Stage) -> None:
    """A worker is listed with the runs that it executes until it has stopped."""
    gate = stage.gate()
    assert await stage.fleet.workers() == []
    one, two = [await stage.ready(stage.start(concurrency=3)) for _ in range(2)]
    handle = await stage.fleet.submit("waits", {"gate": str(gate)})
    await stage.in_state(handle, RunState.RUNNING, attempt=1)
    workers = {info.pid: info for info in await listed(stage.fleet, 2)}
    assert set(workers) == {one.pid, two.pid}
    for info in workers.values():
        assert (info.concurrency, info.python) == (3, platform.python_version())
        assert sorted(info.targets) == sorted(app.fleet.agents)

    async def is_listed() -> bool:
        return [info.runs for info in await stage.fleet.workers() if info.held] == [[handle.run_id]]

    await wait_until(is_listed, "the list shows the held runs")
    holder = next(info for info in await stage.fleet.workers() if info.held)
    assert holder.id == (await handle.snapshot()).worker
    process = one if holder.pid == one.pid else two
    process.send(signal.SIGTERM)

    async def drains() -> bool:
        return {info.state for info in await stage.fleet.workers()} == {"working", "draining"}

    await wait_until(drains, "the list shows that it drains")
    gate.touch()
    assert await asyncio.to_thread(process.exit_code) == 0
    assert holder.id not in {info.id for info in await listed(stage.fleet, 1)}


async def test_workers_of_the_same_id_are_two(fleet: Fleet) -> None:
    """Each process adds random digits to its name."""
    async with working(fleet, worker_id="mine") as one, working(fleet, worker_id="mine") as two:
        assert one.worker_id == two.worker_id == "mine"
        found = {info.id for info in await listed(fleet, 2)}
        assert found == {one.name, two.name}


async def test_a_worker_that_is_not_used_is_listed_nowhere(fleet: Fleet, space: Space) -> None:
    """Making the object writes nothing."""
    await fleet.workers()
    before = space.dump_without_records()
    Worker(fleet)
    assert space.dump_without_records() == before
