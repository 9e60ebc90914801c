"""An audit compares the rows that sweeps go by (expiring, overdue, owners) with the hash; a rebuild
writes them anew."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from murmur_streams.core.model.run import listing_key
from murmur_streams.core.model.states import RunState
from murmur_streams.stores.redis.keys import Keys
from murmur_streams.stores.redis.store import RedisRunStore
from tests.servers import Space
from tests.stores.faults.waiting import wait_until

ENDED, WAITING, OWNED = "ended", "waiting", "owned"
LATE = 9_000_000_000_000
LEASE_SECONDS = 3600.0


class Hand:
    """A hand in redis-cli, at one run."""

    def __init__(self, space: Space, run_id: str) -> None:
        self.client: Any = space.admin
        self.keys: Keys = space.keys
        self.run_id = run_id
        self.run = self.keys.run(run_id)
        created_ms = int(self.client.hget(self.run, "created_ms"))
        tenant = self.client.hget(self.run, "tenant")
        whose = f"t/{tenant.decode()}" if tenant else "t"
        self.row = f"{whose}:{listing_key(created_ms, run_id)}"

    def drop(self, key: str) -> None:
        self.client.zrem(key, self.run_id if key == self.keys.owners(0) else self.row)

    def add(self, key: str, score: int) -> None:
        self.client.zadd(key, {self.run_id if key == self.keys.owners(0) else self.row: score})


Tamper = Callable[[Hand], object]
TAMPERS: dict[str, tuple[str, Tamper, str]] = {
    "an end that nothing removes": (
        ENDED,
        lambda hand: hand.drop(hand.keys.expiring(0)),
        ":expiring: lacks the run",
    ),
    "an end that is removed late": (
        ENDED,
        lambda hand: hand.add(hand.keys.expiring(0), LATE),
        f":expiring: has the run at {LATE}, the hash says ",
    ),
    "an end that is removed early": (
        ENDED,
        lambda hand: hand.add(hand.keys.expiring(0), 5),
        ":expiring: has the run at 5, the hash says ",
    ),
    "an ended run that is overdue": (
        ENDED,
        lambda hand: hand.add(hand.keys.overdue(0), LATE),
        ":overdue: wrongly has the run",
    ),
    "an ended run that is owned": (
        ENDED,
        lambda hand: hand.add(hand.keys.owners(0), LATE),
        ":owners: wrongly has the run",
    ),
    "a live run that is removed": (
        WAITING,
        lambda hand: hand.add(hand.keys.expiring(0), LATE),
        ":expiring: wrongly has the run",
    ),
    "a live run that is never overdue": (
        WAITING,
        lambda hand: hand.drop(hand.keys.overdue(0)),
        ":overdue: lacks the run",
    ),
    "a live run that is overdue too late": (
        WAITING,
        lambda hand: hand.add(hand.keys.overdue(0), LATE),
        f":overdue: has the run at {LATE}, the hash says ",
    ),
    "a run without an owner that is owned": (
        WAITING,
        lambda hand: hand.add(hand.keys.owners(0), 5),
        ":owners: wrongly has the run",
    ),
    "an owned run without a row of its lease": (
        OWNED,
        lambda hand: hand.drop(hand.keys.owners(0)),
        ":owners: lacks the run",
    ),
    "an owned run that is missed too late": (
        OWNED,
        lambda hand: hand.add(hand.keys.owners(0), LATE),
        f":owners: has the run at {LATE}, the hash says ",
    ),
    "an owner that is gone from the hash": (
        OWNED,
        lambda hand: hand.client.hdel(hand.run, "owner"),
        ":owners: wrongly has the run",
    ),
    "a lease that is not a number": (
        OWNED,
        lambda hand: hand.client.hset(hand.run, "owner_lease_ms", "long"),
        "owner_lease_ms: 'long' is not a number",
    ),
    "a deadline that is not a number": (
        WAITING,
        lambda hand: hand.client.hset(hand.run, "live_until", "never"),
        "live_until: 'never' is not a number",
    ),
    "an expiry that is not a number": (
        ENDED,
        lambda hand: hand.client.hset(hand.run, "expire_at", "-5"),
        "expire_at: '-5' is not a number",
    ),
    "a creation that is not a number": (
        WAITING,
        lambda hand: hand.client.hset(hand.run, "created_ms", "1e9"),
        "created_ms: the hash has '1e9'",
    ),
}


@pytest.fixture(params=[None, "acme"])
async def store(space: Space, request: pytest.FixtureRequest) -> AsyncIterator[RedisRunStore]:
    """A store with an ended run, a waiting one, and one that it owns; with or without a tenant."""
    async with space.store(owner_lease_seconds=LEASE_SECONDS) as store:
        for run_id in (ENDED, WAITING, OWNED):
            await store.create(run_id, "t", tenant=request.param)
        await store.finish(ENDED, RunState.COMPLETED)
        await store.set_state(OWNED, RunState.RUNNING)
        yield store


@pytest.mark.parametrize("run_id", [ENDED, WAITING, OWNED])
async def test_a_sound_run_has_no_problem(store: RedisRunStore, run_id: str) -> None:
    """An ended, a waiting and an owned run all pass."""
    assert (await store.audit(run_id)).problems == ()


@pytest.mark.parametrize("what", TAMPERS)
async def test_a_row_that_was_tampered_with_is_named_and_mended(
    space: Space, store: RedisRunStore, what: str
) -> None:
    """The audit names the row, and after a rebuild reports nothing."""
    run_id, tamper, problem = TAMPERS[what]
    tamper(Hand(space, run_id))
    report = await store.audit(run_id)
    assert any(problem in each for each in report.problems), report.problems
    await store.rebuild(run_id)
    assert (await store.audit(run_id)).problems == ()


async def test_a_row_that_is_early_is_as_designed(space: Space, store: RedisRunStore) -> None:
    """A write moves a live run's deadline on only in the hash, a beat only the row."""
    Hand(space, WAITING).add(space.keys.overdue(0), 5)
    Hand(space, OWNED).add(space.keys.owners(0), 5)
    for run_id in (WAITING, OWNED):
        assert (await store.audit(run_id)).problems == ()


@pytest.mark.parametrize("options", [{"ttl_seconds": 0}, {"live_ttl_seconds": 0}])
async def test_runs_without_expiry_are_never_due(space: Space, options: dict[str, float]) -> None:
    """With a time to live of 0, audit and rebuild expect no row and make none."""
    async with space.store(**options) as store:
        await store.create("live", "t")
        await store.create("gone", "t")
        await store.finish("gone", RunState.COMPLETED)
        for _ in range(2):
            for run_id in ("live", "gone"):
                assert (await store.audit(run_id)).problems == ()
                await store.rebuild(run_id)


async def test_a_damaged_overdue_run_ends_once_it_is_rebuilt(space: Space) -> None:
    """A sweep skips a damaged overdue run; after a rebuild the next sweep ends it."""
    async with space.store(owner_lease_seconds=0.2) as store:
        await store.create(OWNED, "t")
        await store.set_state(OWNED, RunState.RUNNING)
    client: Any = space.admin
    async with space.store() as other:
        client.hdel(space.keys.run(OWNED), "target")
        client.zadd(space.keys.owners(0), {OWNED: 1})
        assert await other.sweep() == 0
        assert client.zscore(space.keys.owners(0), OWNED) is None
        await other.rebuild(OWNED)

        async def is_failed() -> bool:
            await other.sweep()
            return (await other.snapshot(OWNED)).error == "owner_lost"

        await wait_until(is_failed, "the sweep fails it")
        assert (await other.audit(OWNED)).problems == ()
