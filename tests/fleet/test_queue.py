"""Waking idle workers, and a queue whose parts were lost or tampered with."""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import AsyncIterator
from typing import cast

import pytest

from murmur_streams.core.model.errors import LeaseLostError
from murmur_streams.core.model.states import RunState
from murmur_streams.core.model.work import Claim, TargetRule
from murmur_streams.stores.redis.queue import Queue
from murmur_streams.stores.redis.store import RedisRunStore
from tests.fleet.queueing import hand_on, over, take
from tests.fleet.stage import Stage, wait_until
from tests.servers import Space

SECOND_MS = 1_000


@pytest.fixture
async def store(space: Space) -> AsyncIterator[RedisRunStore]:
    """A store in the test's key space."""
    async with space.store() as store:
        yield store


async def claimed(store: RedisRunStore, count: int = 1) -> tuple[Queue, list[Claim]]:
    """A queue, and so many runs of ``work`` that a worker holds."""
    queue = store.queue(lease_seconds=60)
    for _ in range(count):
        await store.submit(secrets.token_hex(4), "work")
    return queue, await take(queue, "first", count)


def expire_leases(space: Space) -> None:
    """Let all leases be over, as if their workers had been silent for long."""
    leases = space.keys.leases(0)
    run_ids = cast("list[bytes]", space.admin.zrange(leases, 0, -1))
    space.admin.zadd(leases, dict.fromkeys(run_ids, 1))


async def test_idle_workers_are_roused_by_a_submission(stage: Stage) -> None:
    """By themselves, these workers look at the queue once an hour."""
    for _ in range(2):
        await stage.ready(stage.start())
    for _ in range(10):
        handle = await stage.fleet.submit("counts", {})
        await handle.output(timeout=30)


async def test_each_token_rouses_one_idle_worker(stage: Stage) -> None:
    """Three runs go to three workers with one slot each."""
    gate = stage.gate()
    for _ in range(3):
        await stage.ready(stage.start(concurrency=1))
    handles = [await stage.fleet.submit("waits", {"gate": str(gate)}) for _ in range(3)]
    for handle in handles:
        await stage.in_state(handle, RunState.RUNNING, attempt=1)
    workers = Counter([(await handle.snapshot()).worker for handle in handles])
    assert sorted(workers.values()) == [1, 1, 1]
    gate.touch()
    for handle in handles:
        await handle.output(timeout=30)


@pytest.mark.parametrize("lost", ["stream", "group"])
async def test_a_lost_wake_stream_is_made_again(stage: Stage, space: Space, lost: str) -> None:
    """Without stream or group, a worker still gets the next run."""
    await stage.ready(stage.start())
    for _ in range(3):
        handle = await stage.fleet.submit("counts", {})
        await handle.output(timeout=30)
        if lost == "stream":
            space.admin.delete(space.keys.wake("counts", 0))
        else:
            space.admin.xgroup_destroy(space.keys.wake("counts", 0), "workers")
    handle = await stage.fleet.submit("counts", {})
    await handle.output(timeout=30)


async def test_leases_that_were_lost_are_rebuilt_by_heartbeats(stage: Stage, space: Space) -> None:
    """A worker's next heartbeat restores its rows."""
    gate = stage.gate()
    await stage.ready(stage.start(lease_seconds=3))
    handle = await stage.fleet.submit("waits", {"gate": str(gate)})
    await stage.in_state(handle, RunState.RUNNING, attempt=1)
    space.admin.delete(space.keys.leases(0))

    async def is_rebuilt() -> bool:
        return space.admin.zscore(space.keys.leases(0), handle.run_id) is not None

    await wait_until(is_rebuilt, "the lease is back")
    gate.touch()
    await handle.output(timeout=30)
    assert await stage.check([handle]) == [1]


async def test_listings_drop_runs_that_have_expired(space: Space, store: RedisRunStore) -> None:
    """Index entries of expired runs are removed, and hide no other run."""
    queue_key = space.keys.queue("work", 0)
    space.admin.zadd(queue_key, {f"gone-{number}": number for number in range(500)})
    await store.create("ended", "work")
    await store.set_state("ended", RunState.CANCELLED)
    space.admin.zadd(queue_key, {"ended": 501})
    queue, claims = await claimed(store)
    assert [claim.attempt for claim in claims] == [1]
    assert space.admin.exists(queue_key) == 0
    assert await take(queue, "first", 1) == []


async def test_a_claim_takes_the_oldest_runs_up_to_its_count(
    store: RedisRunStore,
) -> None:
    """A claim takes the oldest runs first, and no more than requested."""
    queue = store.queue(lease_seconds=60)
    for number in range(5):
        await store.submit(f"run-{number}", "work")
        await store.submit(f"other-{number}", "other")
        await asyncio.sleep(0.002)
    first = await take(queue, "first", 6, "work", "other")
    assert [claim.run_id for claim in first] == [*(f"run-{n}" for n in range(5)), "other-0"]
    assert len({claim.token for claim in first}) == 6
    rest = await take(queue, "second", 6, "work", "other")
    assert [claim.run_id for claim in rest] == [f"other-{n}" for n in range(1, 5)]


@pytest.mark.fault("F28")
async def test_of_two_reclaimers_one_wins(space: Space, store: RedisRunStore) -> None:
    """Eight callers at once requeue each lost run once."""
    queue, claims = await claimed(store, 30)
    expire_leases(space)
    answers = await asyncio.gather(*(hand_on(queue, f"tender-{number}") for number in range(8)))
    reclaimed = [run_id for answer in answers for run_id in answer]
    assert sorted(reclaimed) == sorted(claim.run_id for claim in claims)
    again = await take(queue, "second", 100)
    assert sorted(claim.run_id for claim in again) == sorted(reclaimed)
    assert {claim.attempt for claim in again} == {2}
    assert await hand_on(queue) == []


async def test_a_heartbeat_reports_which_claims_are_over(
    space: Space, store: RedisRunStore
) -> None:
    """The new claim of the same run stays valid."""
    queue, claims = await claimed(store, 3)
    assert await over(queue, claims) == []
    expire_leases(space)
    await hand_on(queue)
    (again,) = await take(queue, "second", 1)
    assert await over(queue, [*claims, again]) == claims
    assert space.admin.zrange(space.keys.leases(0), 0, -1) == [again.run_id.encode()]


async def test_an_old_claim_can_write_nothing_and_hand_nothing_back(
    space: Space, store: RedisRunStore
) -> None:
    """Its finish is refused and its release changes nothing."""
    queue, (old,) = await claimed(store)
    expire_leases(space)
    await hand_on(queue)
    (new,) = await take(queue, "second", 1)
    before = await store.snapshot(old.run_id)
    with pytest.raises(LeaseLostError):
        await store.finish(old.run_id, RunState.COMPLETED, claim=old.token)
    await queue.release(old, "worker_stopped")
    assert await store.snapshot(old.run_id) == before
    assert before.claim == new.token


@pytest.mark.fault("F33")
async def test_a_lease_is_a_deadline_by_the_servers_clock(
    space: Space, store: RedisRunStore
) -> None:
    """It lies one lease after the server's time of the claim."""
    queue, (claim,) = await claimed(store)
    seconds, _ = space.admin.time()
    deadline = space.admin.zscore(space.keys.leases(0), claim.run_id)
    assert deadline is not None
    assert abs(deadline - (seconds + 60) * SECOND_MS) < 5 * SECOND_MS
    assert await hand_on(queue) == []


DAMAGES = {
    "a hash without its last_ms": lambda keys, run_id: [("HDEL", keys.run(run_id), "last_ms")],
    "a foreign entry in the journal": lambda keys, run_id: [
        ("XADD", keys.journal(run_id), "9999999999999-1", "somebody", "else")
    ],
    "a string for a hash": lambda keys, run_id: [
        ("DEL", keys.run(run_id)),
        ("SET", keys.run(run_id), "x"),
    ],
    "no journal": lambda keys, run_id: [("DEL", keys.journal(run_id))],
}


@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_damaged_run_costs_only_itself_when_it_is_claimed(
    store: RedisRunStore, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The other runs are handed out, and the log names the damaged one."""
    for run_id in ("before", "bad", "after"):
        await store.submit(run_id, "work")
    for command in DAMAGES[damage](store._keys, "bad"):
        await store._server.read(*command)
    queue = store.queue(lease_seconds=60)
    claims = await take(queue, "worker", 10)
    assert sorted(claim.run_id for claim in claims) == ["after", "before"]
    assert "run bad is damaged" in caplog.text
    assert await take(queue, "worker", 10) == []
    await store._server.read("DEL", *store._keys.of_run("bad"))


@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_damaged_run_costs_only_itself_when_it_is_taken_back(
    store: RedisRunStore, space: Space, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The other lost runs are requeued."""
    queue, claims = await claimed(store, 3)
    bad = claims[1].run_id
    for command in DAMAGES[damage](store._keys, bad):
        await store._server.read(*command)
    assert await over(queue, claims) == []
    expire_leases(space)
    assert sorted(await hand_on(queue)) == sorted({each.run_id for each in claims} - {bad})
    assert f"run {bad} is damaged" in caplog.text
    assert await hand_on(queue) == []
    await store._server.read("DEL", *store._keys.of_run(bad))


async def test_a_claim_ends_where_its_reply_is_large_enough(store: RedisRunStore) -> None:
    """A worker of many targets does not get one more large input of each."""
    targets = ["a", "b", "c"]
    for number in range(2):
        for target in targets:
            await store.submit(f"{target}{number}", target, input="x" * 700_000)
    queue = store.queue(lease_seconds=60)
    found = await queue.claim("worker", [TargetRule(target) for target in targets], 10)
    assert [claim.run_id for claim in found.claims] == ["a0", "a1"]
