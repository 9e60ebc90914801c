"""A run that was damaged by hand costs only itself where one call goes through many runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from murmur_streams.core.pages import listing_key
from murmur_streams.core.states import RunState
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
    "the version is no number": lambda client, keys: client.hset(keys.run(DAMAGED), "version", "x"),
    "the journal is gone": lambda client, keys: client.delete(keys.journal(DAMAGED)),
    "the journal is no stream": lambda client, keys: client.set(
        keys.journal(DAMAGED), "x", keepttl=True
    ),
    "the hash is no hash": lambda client, keys: client.set(keys.run(DAMAGED), "x", keepttl=True),
    "the deadline is no number": lambda client, keys: client.hset(
        keys.run(DAMAGED), "live_until", "x"
    ),
    "the creation is no number": lambda client, keys: client.hset(
        keys.run(DAMAGED), "created_ms", "x"
    ),
    "the lease is no number": lambda client, keys: client.hset(
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
    """As if nobody had written to them for as long as a run may be silent."""
    client: Any = space.admin
    for run_id in run_ids:
        created_ms = int(client.hget(space.keys.run(run_id), "created_ms"))
        client.hset(space.keys.run(run_id), "live_until", 1)
        client.zadd(space.keys.overdue(0), {f"t:{listing_key(created_ms, run_id)}": 1})


@pytest.mark.parametrize("damage", DAMAGES)
async def test_an_overdue_run_that_is_damaged_costs_only_itself(space: Space, damage: str) -> None:
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
async def test_an_owned_run_that_is_damaged_costs_the_others_neither_their_owner_nor_their_end(
    space: Space, damage: str
) -> None:
    client: Any = space.admin
    owners = space.keys.owners(0)
    async with space.store(owner_lease_seconds=LEASE_SECONDS) as store:
        for run_id in (SOUND[0], DAMAGED, SOUND[1]):
            await store.create(run_id, "t")
            await store.set_state(run_id, RunState.RUNNING)
        DAMAGES[damage](client, space.keys)
        before = {run_id: client.zscore(owners, run_id) for run_id in SOUND}

        async def kept() -> bool:
            await store._owners._beat(0)
            return all(client.zscore(owners, run_id) > before[run_id] for run_id in SOUND)

        await wait_until(kept, "the word of the owner reaches the sound runs")
    async with space.store() as other:
        for run_id in SOUND:
            client.hset(space.keys.run(run_id), "owner_lease_ms", 1)
        client.zadd(owners, dict.fromkeys((*SOUND, DAMAGED), 1))

        async def are_lost() -> bool:
            await other.sweep()
            return {(await other.snapshot(run_id)).error for run_id in SOUND} == {"owner_lost"}

        await wait_until(are_lost, "the sound runs fail")
