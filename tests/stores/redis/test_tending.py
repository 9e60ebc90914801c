"""Housekeeping: lost leases, lost queues, lost wake-ups, silence."""

from __future__ import annotations

import asyncio
from typing import Any

from murmur_streams.core.model.states import RunState
from murmur_streams.core.model.work import Beat, NoticeKind
from murmur_streams.stores.redis.queue import Queue
from murmur_streams.stores.redis.store import RedisRunStore
from murmur_streams.testing import wait_until
from tests.servers import Space
from tests.stores.redis.working import (
    INTERVAL_SECONDS,
    claimed,
    entries,
    expire_leases,
    handed_on,
    ids,
    take,
)


async def tend_all_around(queue: Queue) -> None:
    """Go past the rows of all live runs once."""
    for _ in range(4):
        await handed_on(queue)


async def test_of_two_workers_one_tends(space: Space, store: RedisRunStore, queue: Queue) -> None:
    """Only the worker that holds the role requeues the lost runs."""
    claims = await claimed(store, queue, 30)
    assert await handed_on(queue, "second") == []
    expire_leases(space)
    assert await handed_on(queue, "third") == []
    assert sorted(await handed_on(queue, "second")) == sorted(ids(claims))


async def test_another_one_tends_when_the_interval_is_over(
    space: Space, store: RedisRunStore, queue: Queue
) -> None:
    """If the first worker is gone, the second takes over."""
    (claim,) = await claimed(store, queue)
    await queue.tend("gone", [], 0.2)
    expire_leases(space)

    async def is_handed_on() -> bool:
        return await handed_on(queue, "second") == [claim.run_id]

    await wait_until(is_handed_on, "the second one takes over")


async def test_leases_are_handed_on_though_rows_of_others_come_first(
    space: Space, store: RedisRunStore, queue: Queue
) -> None:
    """A hundred rows of missing runs do not hide a lost one."""
    (claim,) = await claimed(store, queue)
    expire_leases(space)
    space.admin.zadd(space.keys.leases(0), {f"gone-{number}": 0 for number in range(100)})
    assert await handed_on(queue) == [claim.run_id]
    assert space.admin.zcard(space.keys.leases(0)) == 0


async def test_a_run_set_pending_is_not_taken_from_its_next_worker(
    space: Space, store: RedisRunStore, queue: Queue
) -> None:
    """The old lease of the run must not end the claim of the next worker."""
    (claim,) = await claimed(store, queue)
    await store.set_state(claim.run_id, RunState.PENDING)
    assert space.admin.zcard(space.keys.leases(0)) == 0
    (again,) = await take(queue)
    assert (again.run_id, again.attempt) == (claim.run_id, 2)


async def test_a_queue_that_was_deleted_is_made_again(
    space: Space, store: RedisRunStore, queue: Queue
) -> None:
    """The hashes of pending runs are enough, delayed ones included."""
    await store.submit("run", "work")
    await store.submit("later", "work", delay_seconds=3600)
    space.admin.delete(space.keys.queue("work", 0))
    await tend_all_around(queue)
    assert ids(await take(queue, 5)) == ["run"]
    assert space.admin.zcard(space.keys.queue("work", 0)) == 1


async def test_leases_that_were_deleted_are_made_again(
    space: Space, store: RedisRunStore, queue: Queue
) -> None:
    """Each held run gets a whole new lease."""
    (claim,) = await claimed(store, queue)
    space.admin.delete(space.keys.leases(0))
    await tend_all_around(queue)
    expire_leases(space)
    assert await handed_on(queue) == [claim.run_id]


async def test_more_runs_than_are_looked_at_in_a_call_are_healed_too(
    space: Space, store: RedisRunStore, queue: Queue
) -> None:
    """The next calls go on where the last one ended."""
    await asyncio.gather(*(store.submit(f"run-{number}", "work") for number in range(120)))
    space.admin.delete(space.keys.queue("work", 0))
    await tend_all_around(queue)
    assert len(await take(queue, 200)) == 120


async def test_a_thousand_runs_are_healed_in_a_call_and_no_more(
    space: Space, store: RedisRunStore, queue: Queue
) -> None:
    """One call of housekeeping stays short."""
    await asyncio.gather(*(store.submit(f"run-{number}", "work") for number in range(1020)))
    key = space.keys.queue("work", 0)
    space.admin.delete(key)
    await handed_on(queue)
    assert space.admin.zcard(key) == 1000
    await handed_on(queue)
    assert space.admin.zcard(key) == 1020


async def test_a_worker_is_woken_while_there_is_work(
    space: Space, store: RedisRunStore, queue: Queue
) -> None:
    """Housekeeping adds wake-up tokens as long as runs wait."""
    await queue.prepare(["work"])
    await store.submit("run", "work")
    space.admin.delete(space.keys.wake("work", 0))
    for _ in range(2):
        await queue.tend("first", ["work"], INTERVAL_SECONDS)
    assert space.admin.xlen(space.keys.wake("work", 0)) == 2
    await take(queue)
    await queue.tend("first", ["work"], INTERVAL_SECONDS)
    assert space.admin.xlen(space.keys.wake("work", 0)) == 2


async def test_a_silence_is_reported_once(space: Space, store: RedisRunStore, queue: Queue) -> None:
    """A new silence is reported again after a write."""
    (claim,) = await claimed(store, queue)
    beat = Beat(claim, silent_after_seconds=0.005)
    assert await queue.heartbeat([Beat(claim), Beat(claim, 3600)]) == []
    await asyncio.sleep(0.02)
    assert [notices.kind for notices in await queue.heartbeat([beat])] == [NoticeKind.SILENT]
    await asyncio.sleep(0.02)
    assert await queue.heartbeat([beat]) == []
    await store.checkpoint(claim.run_id, 1, claim.token)
    await asyncio.sleep(0.02)
    assert [notices.kind for notices in await queue.heartbeat([beat])] == [NoticeKind.SILENT]
    notices = await entries(store, claim.run_id, "run.silent")
    assert notices == [{"attempt": "1", "worker": "first"}] * 2


async def test_a_heartbeat_reports_claims_that_are_over(
    space: Space, store: RedisRunStore, queue: Queue
) -> None:
    """Each lost claim gets a notice, the valid one none."""
    claims = await claimed(store, queue, 3)
    assert await queue.heartbeat([Beat(claim) for claim in claims]) == []
    expire_leases(space)
    await handed_on(queue)
    (again,) = await take(queue, worker="second")
    notices = await queue.heartbeat([Beat(claim) for claim in (*claims, again)])
    assert [(each.claim, each.kind) for each in notices] == [
        (claim, NoticeKind.LOST) for claim in claims
    ]
    rows: Any = space.admin.zrange(space.keys.leases(0), 0, -1)
    assert rows == [again.run_id.encode()]


async def test_a_damaged_run_runs_again_once_it_is_rebuilt(
    space: Space, store: RedisRunStore, queue: Queue
) -> None:
    """It is neither claimed nor handed on until then."""
    await store.submit("held", "work")
    await take(queue)
    await store.submit("waits", "work", priority=3)
    for run_id in ("held", "waits"):
        space.admin.hdel(space.keys.run(run_id), "last_ms")
    expire_leases(space)
    assert (await take(queue, 5), await handed_on(queue)) == ([], [])
    for run_id in ("held", "waits"):
        await store.rebuild(run_id)
        assert (await store.audit(run_id)).problems == ()
    assert await handed_on(queue) == ["held"]
    assert ids(await take(queue, 5)) == ["waits", "held"]
