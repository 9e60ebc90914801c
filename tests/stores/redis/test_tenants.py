"""A tenant's run is in the tenant's index from its creation to its removal; a run without a tenant
is stored exactly as before tenants existed."""

from __future__ import annotations

from typing import Any

import pytest

from murmur_streams.cli.data.keys import inspections_of
from murmur_streams.core.model.entries import EntryType
from murmur_streams.core.model.run import Run, listing_key
from murmur_streams.core.model.states import RunState
from murmur_streams.stores.redis.keys import removal_row
from murmur_streams.stores.redis.queue import Queue
from murmur_streams.stores.redis.store import RedisRunStore
from murmur_streams.testing import wait_until
from tests.lua.headers import SCRIPTS, reachable_code
from tests.servers import Space
from tests.stores.redis.working import entries, server_ms, take

RUN_ID, TENANT = "run:1", "acme"
HOT = ("append", "push_event", "update_progress", "checkpoint", "set_result", "heartbeat")
LISTED_BY = ("", "state:pending", "target:t", f"tenant:{TENANT}")


def members(space: Space, key: str) -> set[str]:
    """The members of a sorted set."""
    client: Any = space.admin
    return {member.decode() for member in client.zrange(key, 0, -1)}


def of_tenant(space: Space, tenant: str = TENANT) -> set[str]:
    """The runs in a tenant's index."""
    found = members(space, space.keys.index_tenant(tenant, 0))
    return {member.partition(":")[2] for member in found}


def is_gone(space: Space) -> bool:
    return not space.admin.exists(space.keys.run(RUN_ID))


async def begun(store: RedisRunStore, how: str, tenant: str | None = TENANT) -> Run:
    """A run, created or submitted."""
    begin = store.submit if how == "submit" else store.create
    await begin(RUN_ID, "t", input=1, metadata={"a": 1}, tenant=tenant)
    return await store.snapshot(RUN_ID)


@pytest.mark.parametrize("how", ["create", "submit"])
async def test_a_run_has_the_same_member_in_every_index(
    space: Space, store: RedisRunStore, how: str
) -> None:
    """Also in that of its tenant, and the row of removal names the tenant."""
    run = await begun(store, how)
    assert run.tenant == TENANT
    member = listing_key(run.created_ms, RUN_ID)
    for name in LISTED_BY:
        key = ":".join(filter(None, (space.keys.index(0), name)))
        assert members(space, key) == {member}
    assert members(space, space.keys.overdue(0)) == {f"t/{TENANT}:{member}"}
    (created,) = await entries(store, RUN_ID, EntryType.CREATED)
    assert created["tenant"] == TENANT
    assert (await store.audit(RUN_ID)).problems == ()


@pytest.mark.parametrize("how", ["create", "submit"])
async def test_a_run_without_a_tenant_has_no_field_or_row_of_one(
    space: Space, store: RedisRunStore, how: str
) -> None:
    """Its hash, its entries and its rows do not mention a tenant."""
    run = await begun(store, how, tenant=None)
    assert members(space, space.keys.overdue(0)) == {f"t:{listing_key(run.created_ms, RUN_ID)}"}
    (created,) = await entries(store, RUN_ID, EntryType.CREATED)
    assert "tenant" not in created
    client: Any = space.admin
    assert not client.hexists(space.keys.run(RUN_ID), "tenant")
    await store.finish(RUN_ID, RunState.FAILED, dead="why")
    assert members(space, space.keys.expiring(0)) == {f"t:{listing_key(run.created_ms, RUN_ID)}"}
    assert not [key for key in client.scan_iter() if b"tenant" in key]
    ((_, letter),) = client.xrange(space.keys.dead("t", 0))
    assert b"tenant" not in letter


@pytest.mark.parametrize("how", ["create", "submit"])
async def test_a_deleted_run_leaves_its_tenants_index(
    space: Space, store: RedisRunStore, how: str
) -> None:
    """Another run of the tenant stays there."""
    await begun(store, how)
    await store.create("other", "t", tenant=TENANT)
    await store.delete(RUN_ID, force=True)
    assert of_tenant(space) == {"other"}
    assert len(members(space, space.keys.overdue(0))) == 1


async def test_an_expired_run_leaves_its_tenants_index(space: Space) -> None:
    """A sweep removes the row after the keys have expired."""
    async with space.store(ttl_seconds=0.2) as store:
        await begun(store, "submit")
        await store.finish(RUN_ID, RunState.COMPLETED)
        assert of_tenant(space) == {RUN_ID}
        await wait_until(lambda: is_gone(space), "the run expires")
        await store.sweep()
    assert space.admin.exists(space.keys.index_tenant(TENANT, 0)) == 0
    for row in (space.keys.expiring(0), space.keys.overdue(0), space.keys.index(0)):
        assert space.admin.exists(row) == 0


async def test_a_new_run_cleans_the_tenant_index_of_an_expired_one(
    space: Space,
) -> None:
    """A create does the same without a sweep."""
    async with space.store(ttl_seconds=0.2) as store:
        await begun(store, "create")
        await store.finish(RUN_ID, RunState.COMPLETED)
        await wait_until(lambda: is_gone(space), "the run expires")
        await store.create("other", "t")
    assert of_tenant(space) == set()


@pytest.mark.leaves("*:run:1")
@pytest.mark.parametrize("reborn", [False, True])
async def test_a_live_run_whose_hash_is_gone_leaves_its_tenants_index(
    space: Space, store: RedisRunStore, *, reborn: bool
) -> None:
    """Its row of removal suffices, also when the id is in use again."""
    run = await begun(store, "submit")
    row = removal_row("t", run.created_ms, RUN_ID, TENANT)
    client: Any = space.admin
    client.delete(*space.keys.of_run(RUN_ID))
    if reborn:
        # In the same millisecond it would have the same position.
        await wait_until(lambda: server_ms(space) > run.created_ms, "a millisecond passes")
        await store.submit(RUN_ID, "t", tenant="beta")
    assert client.zadd(space.keys.overdue(0), {row: 1}, xx=True, ch=True) == 1
    assert await store.sweep() == 1
    assert of_tenant(space) == set()
    assert of_tenant(space, "beta") == ({RUN_ID} if reborn else set())


async def test_a_neglected_run_fails_and_expires_with_its_tenant_row(
    space: Space,
) -> None:
    """A live run that gets no write for too long."""
    async with space.store(live_ttl_seconds=0.1, ttl_seconds=0.2) as store:
        await begun(store, "create")

        async def is_failed() -> bool:
            return await store.sweep() == 1

        await wait_until(is_failed, "the sweep fails it")
        assert (await store.audit(RUN_ID)).problems == ()
        assert of_tenant(space) == {RUN_ID}
        await wait_until(lambda: is_gone(space), "the run expires")
        await store.sweep()
    assert of_tenant(space) == set()


async def test_a_released_run_with_a_deadline_keeps_its_tenants_row(
    space: Space, store: RedisRunStore, queue: Queue
) -> None:
    """The row of its next check still names the tenant."""
    await store.submit(RUN_ID, "work", tenant=TENANT, deadline_seconds=3600)
    (claim,) = await take(queue)
    await store.release(RUN_ID, claim.token, "failed", delay_seconds=60)
    run = await store.snapshot(RUN_ID)
    row = removal_row("work", run.created_ms, RUN_ID, TENANT)
    assert members(space, space.keys.overdue(0)) == {row}
    assert (await store.audit(RUN_ID)).problems == ()


@pytest.mark.parametrize("damage", ["index", "hash", "field", "another's"])
async def test_a_damaged_tenant_is_named_and_mended(
    space: Space, store: RedisRunStore, damage: str
) -> None:
    """The audit finds it, and a rebuild repairs it from the journal."""
    await begun(store, "submit")
    client, key = space.admin, space.keys.run(RUN_ID)
    match damage:
        case "index":
            client.delete(space.keys.index_tenant(TENANT, 0))
        case "hash":
            client.delete(key, space.keys.index_tenant(TENANT, 0))
        case "field":
            client.hdel(key, "tenant")
        case _:
            client.hset(key, "tenant", "beta")
    if damage != "hash":
        problems = (await store.audit(RUN_ID)).problems
        assert any("tenant" in problem for problem in problems), problems
    await store.rebuild(RUN_ID)
    assert (await store.audit(RUN_ID)).problems == ()
    assert of_tenant(space) == {RUN_ID}
    assert (await store.snapshot(RUN_ID)).tenant == TENANT


async def test_audit_finds_a_row_without_its_tenant(space: Space, store: RedisRunStore) -> None:
    """A row that lacks the tenant counts as missing."""
    run = await begun(store, "create")
    client: Any = space.admin
    client.zrem(space.keys.overdue(0), removal_row("t", run.created_ms, RUN_ID, TENANT))
    client.zadd(space.keys.overdue(0), {removal_row("t", run.created_ms, RUN_ID): 1})
    problems = (await store.audit(RUN_ID)).problems
    assert problems == (f"{space.keys.overdue(0)}: lacks the run",)
    await store.rebuild(RUN_ID)


@pytest.mark.parametrize("ends", [False, True])
async def test_the_lines_of_keys_find_the_rows_of_a_tenants_run(
    space: Space, store: RedisRunStore, *, ends: bool
) -> None:
    """The redis-cli lines of `keys` work for a run with a tenant."""
    await begun(store, "submit")
    if ends:
        await store.finish(RUN_ID, RunState.COMPLETED)
    row = space.keys.expiring(0) if ends else space.keys.overdue(0)
    looks = inspections_of(space.keys, await store.snapshot(RUN_ID))
    (command,) = [look.argv for look in looks if look.argv[1] == row]
    client: Any = space.admin
    assert client.execute_command(*command) is not None


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_scripts_of_every_moment_know_no_tenant(script: str) -> None:
    """Scripts of the hot path do not contain the tenant's index."""
    knows = "tenant_index_key" in reachable_code(script)
    assert not (knows and script in HOT)
    assert knows or script not in {"create", "submit", "requeue", "delete", "rebuild", "sweep"}
