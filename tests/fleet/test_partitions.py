"""A fleet over three partitions: claims, heartbeats, take-overs and wake-ups find all of them."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from murmur_streams import Fleet
from murmur_streams.core.model.errors import StoreConfigurationError
from murmur_streams.core.model.states import RunState
from murmur_streams.fleet.worker import Worker
from murmur_streams.stores.redis.keys import Keys
from murmur_streams.stores.redis.store import RedisRunStore, redis_only
from tests.fleet.queueing import hand_on, over, take
from tests.fleet.stage import Stage, wait_until
from tests.servers import Space

PARTITIONS = 3


@pytest.fixture
async def wide(space: Space, tmp_path: Path) -> AsyncIterator[Stage]:
    """Workers and a fleet over three partitions."""
    stage = Stage(space.url, space.prefix, tmp_path, partitions=PARTITIONS)
    yield stage
    stage.close()
    await stage.fleet.close()


@pytest.fixture
async def store(space: Space) -> AsyncIterator[RedisRunStore]:
    """A store over three partitions."""
    async with space.store(partitions=PARTITIONS) as store:
        yield store


def one_of_each() -> list[str]:
    """Two run ids of each partition."""
    keys = Keys("any", PARTITIONS)
    ids = [f"r-{number}" for number in range(100)]
    by_partition = [
        [each for each in ids if keys.partition(each) == partition] for partition in range(3)
    ]
    return [run_id for partition in by_partition for run_id in partition[:2]]


async def test_an_idle_worker_is_roused_by_a_run_of_every_partition(wide: Stage) -> None:
    """By itself, this worker looks at its queues once an hour."""
    await wide.ready(wide.start())
    for run_id in one_of_each():
        handle = await wide.fleet.submit("counts", {"steps": 2}, run_id=run_id)
        await handle.output(timeout=30)


async def test_a_dead_workers_runs_are_taken_over_in_every_partition(wide: Stage) -> None:
    """One run of each partition gets a second execution."""
    gate = wide.gate()
    first = await wide.ready(wide.start(lease_seconds=3))
    handles = [
        await wide.fleet.submit("waits", {"gate": str(gate)}, run_id=run_id)
        for run_id in one_of_each()
    ]
    for handle in handles:
        await wide.in_state(handle, RunState.RUNNING, attempt=1)
    first.send(signal.SIGKILL)
    await wide.ready(wide.start(lease_seconds=3))
    for handle in handles:
        await wide.in_state(handle, RunState.RUNNING, attempt=2)
    gate.touch()
    for handle in handles:
        await handle.output(timeout=30)
    assert await wide.check(handles) == [2] * len(handles)


async def test_heartbeats_move_the_leases_of_every_partition(
    space: Space, store: RedisRunStore
) -> None:
    """One call extends the leases of all partitions."""
    queue = store.queue(lease_seconds=60)
    for run_id in one_of_each():
        await store.submit(run_id, "work")
    claims = await take(queue, "w", 10)
    assert sorted(claim.run_id for claim in claims) == sorted(one_of_each())
    leases = [store._keys.leases(partition) for partition in range(PARTITIONS)]
    for claim in claims:
        space.admin.zadd(store._keys.leases(store._keys.partition(claim.run_id)), {claim.run_id: 1})
    assert await over(queue, claims) == []
    assert [space.admin.zcount(lease, 2, "+inf") for lease in leases] == [2, 2, 2]
    assert await hand_on(queue) == []


async def test_a_claim_is_limited_over_all_partitions(
    store: RedisRunStore,
) -> None:
    """A claim takes no more runs than requested, counted over all partitions."""
    queue = store.queue(lease_seconds=60)
    for run_id in one_of_each():
        await store.submit(run_id, "work")
    assert [len(await take(queue, "w", 4)) for _ in range(3)] == [4, 2, 0]


async def test_a_fleet_that_says_another_number_refuses_to_start(wide: Stage) -> None:
    """The error has the number that the server knows."""
    await wide.fleet.store()
    handle = await wide.fleet.submit("counts", {})
    async with Fleet(wide.url, key_prefix=wide.prefix, partitions=2) as fleet:
        with pytest.raises(StoreConfigurationError, match="partitions=3"):
            await fleet.submit("counts", {})
    assert (await handle.snapshot()).state is RunState.PENDING


async def test_a_worker_with_an_old_number_takes_nothing(
    space: Space, caplog: pytest.LogCaptureFixture
) -> None:
    """After a FLUSHALL others fixed another number: the worker waits and logs what differs."""
    old = Fleet(space.url, key_prefix=space.prefix, partitions=1)

    @old.agent
    async def work() -> None: ...

    worker = Worker(old)
    working = asyncio.create_task(worker.run())

    async def is_listed() -> bool:
        return bool(space.admin.exists(space.keys.workers))

    await wait_until(is_listed, "the worker works")
    with space.admin.pipeline(transaction=True) as pipeline:
        pipeline.flushall()
        pipeline.hset(space.keys.meta, "schema_version", "1")
        pipeline.hset(space.keys.meta, "partitions", str(PARTITIONS))
        pipeline.execute()
    async with old, space.store(partitions=PARTITIONS) as newer:
        for run_id in one_of_each():
            await newer.submit(run_id, "work")

        async def is_logged() -> bool:
            return f"partitions={PARTITIONS}" in caplog.text

        await wait_until(is_logged, "the worker logs what differs")
        worker.stop()
        await working
        states = [run.state for run in (await newer.list_runs()).runs]
    assert states == [RunState.PENDING] * len(one_of_each())


async def test_the_environment_says_the_number(
    wide: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MURMUR_PARTITIONS is used without an option."""
    monkeypatch.setenv("MURMUR_PARTITIONS", str(PARTITIONS))
    async with Fleet(wide.url, key_prefix=wide.prefix) as fleet:
        assert redis_only(await fleet.store())._keys.partitions == PARTITIONS
