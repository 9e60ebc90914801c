"""A run damaged by hand hinders neither a worker's other runs nor its other targets."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from murmur_streams.core.model.errors import StoreError
from murmur_streams.core.model.states import RunState
from murmur_streams.core.model.work import Beat, Claim, TargetRule
from murmur_streams.stores.redis.keys import Keys
from murmur_streams.stores.redis.queue import Queue
from murmur_streams.stores.redis.store import RedisRunStore
from tests.servers import Space
from tests.stores.redis.test_damaged_in_sweeps import DAMAGED, DAMAGES, SOUND, Damage
from tests.stores.redis.working import INTERVAL_SECONDS, WORK, expire_leases, handed_on, ids, take

RUNS = (SOUND[0], DAMAGED, SOUND[1])
BOTH = [*WORK, TargetRule("other")]
PAYLOADS: dict[str, Damage] = {
    "the input is not a string": lambda client, keys: (
        client.delete(keys.input(DAMAGED)),
        client.sadd(keys.input(DAMAGED), "x"),
    ),
    "the checkpoint is not a string": lambda client, keys: (
        client.hset(keys.run(DAMAGED), "checkpoint_size", 1),
        client.sadd(keys.checkpoint(DAMAGED), "x"),
    ),
    "the attempt is not a number": lambda client, keys: client.hset(
        keys.run(DAMAGED), "attempt", "x"
    ),
}
ROWS: dict[str, Callable[[Keys], str]] = {
    "leases": lambda keys: keys.leases(0),
    "owners": lambda keys: keys.owners(0),
    "overdue": lambda keys: keys.overdue(0),
    "expiring": lambda keys: keys.expiring(0),
    "index of state": lambda keys: keys.index_state(RunState.RUNNING, 0),
}


@pytest.fixture
async def store(space: Space) -> AsyncIterator[RedisRunStore]:
    """Without an audit of what is damaged."""
    async with space.store() as store:
        yield store
        for run_id in RUNS:
            space.admin.delete(*space.keys.of_run(run_id))


def put(space: Space, key: str) -> None:
    """Something else in the place of a key."""
    space.admin.delete(key)
    space.admin.set(key, "x")


@pytest.mark.parametrize("damage", DAMAGES | PAYLOADS)
async def test_a_run_that_is_damaged_takes_no_other_claim_with_it(
    space: Space, store: RedisRunStore, queue: Queue, damage: str
) -> None:
    """One claim call of three runs still hands out the two sound ones."""
    for run_id in RUNS:
        await store.submit(run_id, "work", input=1)
    (DAMAGES | PAYLOADS)[damage](space.admin, space.keys)
    found = ids(await take(queue, 3))
    assert [run_id for run_id in found if run_id != DAMAGED] == [*SOUND]
    assert {(await store.snapshot(run_id)).attempt for run_id in SOUND} == {1}
    if damage.endswith("string"):
        assert found == [*SOUND]
        run = await store.snapshot(DAMAGED)
        assert (run.state, run.attempt, run.version) == (RunState.PENDING, 0, 1)
        space.admin.delete(space.keys.input(DAMAGED), space.keys.checkpoint(DAMAGED))
        await handed_on(queue)
        assert ids(await take(queue, 3)) == [DAMAGED]


@pytest.mark.parametrize("damage", DAMAGES | PAYLOADS)
async def test_a_damaged_claimed_run_does_not_affect_others(
    space: Space, store: RedisRunStore, queue: Queue, damage: str
) -> None:
    """Other runs get their heartbeats, and are requeued when their leases run out."""
    for run_id in RUNS:
        await store.submit(run_id, "work")
    claims = await take(queue, 3)
    (DAMAGES | PAYLOADS)[damage](space.admin, space.keys)
    before: Any = space.admin.zscore(space.keys.leases(0), SOUND[1])
    notices = await queue.heartbeat([Beat(claim) for claim in claims])
    assert {each.claim.run_id for each in notices} <= {DAMAGED}
    after: Any = space.admin.zscore(space.keys.leases(0), SOUND[1])
    assert after >= before
    expire_leases(space)
    assert {*SOUND} <= {*await handed_on(queue)}


@pytest.mark.parametrize("what", ["queue", "wake"])
async def test_a_queue_of_another_type_is_logged_once(
    space: Space, store: RedisRunStore, queue: Queue, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The target is skipped; other targets are served."""
    keys = {"queue": space.keys.queue("work", 0), "wake": space.keys.wake("work", 0)}
    await store.submit(SOUND[0], "work")
    (claim,) = await take(queue)
    await store.submit(SOUND[1], "other")
    put(space, keys[what])
    for _ in range(2):
        found: list[Claim] = (await queue.claim("first", BOTH, 5)).claims
        assert {each.target for each in found} <= {"other"}
        if found:
            await store.release(found[0].run_id, found[0].token, "worker_stopped")
    assert caplog.text.count("can be taken") == (what == "queue")
    await store.release(claim.run_id, claim.token, "worker_stopped")
    assert (await store.snapshot(claim.run_id)).state is RunState.PENDING
    await queue.tend("first", ["work", "other"], INTERVAL_SECONDS)
    space.admin.delete(keys[what])
    for _ in ("pending", "running"):
        await queue.tend("first", ["work", "other"], INTERVAL_SECONDS)
    assert set(ids((await queue.claim("first", BOTH, 5)).claims)) == {*SOUND}


async def test_a_failed_letter_does_not_affect_other_runs(
    space: Space, store: RedisRunStore, queue: Queue
) -> None:
    """A dead letter that cannot be written does not stop the claim of another run."""
    for run_id in (DAMAGED, SOUND[0]):
        await store.submit(run_id, "work")
    tokens = {claim.run_id: claim.token for claim in await take(queue, 2)}
    await store.release(DAMAGED, tokens[DAMAGED], "failed")
    await store.release(SOUND[0], tokens[SOUND[0]], "worker_stopped")
    key = space.keys.dead("work", 0)
    put(space, key)
    found = (await queue.claim("first", [TargetRule("work", max_attempts=1)], 5)).claims
    assert ids(found) == [SOUND[0]]
    assert (await store.snapshot(DAMAGED)).error == "given up after 1 attempt"
    space.admin.delete(key)


@pytest.mark.parametrize("row", ROWS)
async def test_where_no_run_can_be_started_none_is(
    space: Space, store: RedisRunStore, queue: Queue, row: str
) -> None:
    """A key of another type in the place of a shared row: the claim fails before any write."""
    await store.submit(SOUND[0], "work")
    key = ROWS[row](space.keys)
    rows: Any = space.admin.zrange(key, 0, -1, withscores=True)
    put(space, key)
    with pytest.raises(StoreError, match=r"redis-cli TYPE KEY.*"):
        await take(queue)
    run = await store.snapshot(SOUND[0])
    assert (run.state, run.version) == (RunState.PENDING, 1)
    space.admin.delete(key)
    if rows:
        space.admin.zadd(key, dict(rows))
    assert ids(await take(queue)) == [SOUND[0]]
