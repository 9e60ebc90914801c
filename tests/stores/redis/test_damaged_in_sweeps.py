"""A run that was damaged by hand costs only itself where one call goes through many runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from murmur_streams.core.model.run import listing_key
from murmur_streams.core.model.states import RunState
from murmur_streams.stores.redis.keys import Keys
from tests.servers import Space
from tests.stores.faults.waiting import wait_until

DAMAGED = "b-damaged"
SOUND = ("a-sound", "c-sound")
LEASE_SECONDS = 3600.0
Damage = Callable[[Any, Keys], object]
DAMAGES: dict[str, Damage] = {
    "a field is gone": lambda client, keys: client.hdel(keys.run(DAMAGED), "version"),
    "the target is gone": lambda client, keys: client.hdel(keys.run(DAMAGED), "target"),
    "the version is another": lambda client, keys: client.hset(keys.run(DAMAGED), "version", 99),
    "the version is not a number": lambda client, keys: client.hset(
        keys.run(DAMAGED), "version", "x"
    ),
    "the journal is gone": lambda client, keys: client.delete(keys.journal(DAMAGED)),
    "the journal is not a stream": lambda client, keys: client.set(
        keys.journal(DAMAGED), "x", keepttl=True
    ),
    "the hash is not a hash": lambda client, keys: client.set(keys.run(DAMAGED), "x", keepttl=True),
    "the deadline is not a number": lambda client, keys: client.hset(
        keys.run(DAMAGED), "live_until", "x"
    ),
    "the creation is not a number": lambda client, keys: client.hset(
        keys.run(DAMAGED), "created_ms", "x"
    ),
    "the lease is not a number": lambda client, keys: client.hset(
        keys.run(DAMAGED), "owner_lease_ms", "x"
    ),
    "the state is none": lambda client, keys: client.hset(keys.run(DAMAGED), "state", "x"),
}


@pytest.fixture(autouse=True)
def damaged_keys_are_removed(space: Space) -> Iterator[None]:
    """The key audit would name them."""
    yield
    space.admin.delete(*space.keys.of_run(DAMAGED))


def make_overdue(space: Space, run_ids: tuple[str, ...]) -> None:
    """As if the runs had been without a write for as long as they may be."""
    client: Any = space.admin
    for run_id in run_ids:
        created_ms = int(client.hget(space.keys.run(run_id), "created_ms"))
        client.hset(space.keys.run(run_id), "live_until", 1)
        client.zadd(space.keys.overdue(0), {f"t:{listing_key(created_ms, run_id)}": 1})


@pytest.mark.parametrize("damage", DAMAGES)
async def test_an_overdue_run_that_is_damaged_costs_only_itself(space: Space, damage: str) -> None:
    """The other overdue runs fail in time, and the damaged one does after a rebuild."""
    run_ids = (SOUND[0], DAMAGED, SOUND[1])
    async with space.store() as store:
        for run_id in run_ids:
            await store.create(run_id, "t")
        make_overdue(space, run_ids)
        DAMAGES[damage](space.admin, space.keys)
        await store.sweep()
        # Every begin and end of a run does a little of a sweep.
        await store.create("later", "t")
        await store.finish("later", RunState.COMPLETED)
        for run_id in SOUND:
            assert "live_ttl_seconds" in ((await store.snapshot(run_id)).error or "")


@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_damaged_owned_run_does_not_affect_others(space: Space, damage: str) -> None:
    """The leases of other owned runs are extended, and they are failed when their owner is gone."""
    client: Any = space.admin
    owners = space.keys.owners(0)
    async with space.store(owner_lease_seconds=LEASE_SECONDS) as store:
        for run_id in (SOUND[0], DAMAGED, SOUND[1]):
            await store.create(run_id, "t")
            await store.set_state(run_id, RunState.RUNNING)
        DAMAGES[damage](client, space.keys)
        before = {run_id: client.zscore(owners, run_id) for run_id in SOUND}

        async def extended() -> bool:
            await store._owners._beat(0)
            return all(client.zscore(owners, run_id) > before[run_id] for run_id in SOUND)

        await wait_until(extended, "the word of the owner reaches the sound runs")
    async with space.store() as other:
        for run_id in SOUND:
            client.hset(space.keys.run(run_id), "owner_lease_ms", 1)
        client.zadd(owners, dict.fromkeys((*SOUND, DAMAGED), 1))

        async def are_lost() -> bool:
            await other.sweep()
            return {(await other.snapshot(run_id)).error for run_id in SOUND} == {"owner_lost"}

        await wait_until(are_lost, "the sound runs fail")


def keys_by_role(keys: Keys) -> dict[str, str]:
    """The keys of a partition that housekeeping looks at."""
    states = {f"index of {state}": keys.index_state(state, 0) for state in RunState}
    return states | {
        "owners": keys.owners(0),
        "overdue": keys.overdue(0),
        "expiring": keys.expiring(0),
        "leases": keys.leases(0),
        "feed": keys.feed(0),
        "sweeper": keys.sweeper(0),
    }


ENDS_NEED = {"overdue", "expiring", "feed", *(f"index of {state}" for state in RunState)}
"""Without these no run can be ended."""


@pytest.mark.parametrize("call", ["sweep", "tend"])
@pytest.mark.parametrize("role", keys_by_role(Keys("any")))
async def test_an_odd_key_stops_no_other_housekeeping(
    space: Space, role: str, call: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A key of another type is logged by its name, and costs only the part that needs it."""
    client: Any = space.admin
    async with space.store() as store:
        for run_id in ("a", "b"):
            await store.create(run_id, "t")
        await store.finish("b", RunState.COMPLETED)
        make_overdue(space, ("a",))
        (expired,) = client.zrange(space.keys.expiring(0), 0, -1)
        client.zadd(space.keys.expiring(0), {expired: 1})
        client.delete(*space.keys.of_run("b"))
        key = keys_by_role(space.keys)[role]
        client.delete(key)
        client.rpush(key, "odd")
        if call == "sweep":
            await store.sweep()
        else:
            await store.queue(lease_seconds=60).tend("worker", ["t"], 60.0)
        assert (key in caplog.text) == (role != "sweeper" or call == "tend")
        run = await store.snapshot("a")
        assert run.state is (RunState.PENDING if role in ENDS_NEED else RunState.FAILED)
        rows = client.zcard(space.keys.index(0))
        assert rows == (2 if role == "expiring" else 1)
        client.delete(key)
        await store.rebuild("a")


async def test_a_damaged_run_is_reported_by_a_sweep(
    space: Space, caplog: pytest.LogCaptureFixture
) -> None:
    """The log names the run and how it is mended."""
    async with space.store() as store:
        await store.create(DAMAGED, "t")
        make_overdue(space, (DAMAGED,))
        space.admin.hset(space.keys.run(DAMAGED), "version", "x")
        assert await store.sweep() == 0
    assert f"murmur-streams rebuild {DAMAGED}" in caplog.text


async def test_a_row_that_names_no_run_is_dropped(space: Space) -> None:
    """A row that a hand put there would stop a sweep before the rows behind it."""
    client: Any = space.admin
    async with space.store() as store:
        await store.create("a", "t")
        make_overdue(space, ("a",))
        for key in (space.keys.overdue(0), space.keys.expiring(0), space.keys.owners(0)):
            client.zadd(key, {"no run": 0, "": 0})
        await store.sweep()
        assert (await store.snapshot("a")).state is RunState.FAILED
        assert client.zcard(space.keys.overdue(0)) == client.zcard(space.keys.owners(0)) == 0
        assert client.zcard(space.keys.expiring(0)) == 1
