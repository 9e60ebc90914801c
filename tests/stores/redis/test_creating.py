"""A run begins whole or not at all, and a new life of an id leaves the old one's writes alone."""

from __future__ import annotations

import asyncio

import pytest

from murmur_streams.core.model.commands import Create, Delete
from murmur_streams.core.model.errors import StoreError
from murmur_streams.stores.redis.store import RedisRunStore
from tests.servers import Space
from tests.stores.redis.hand import HandWriter, calls_by_hand


async def test_a_retried_delete_spares_a_new_run_with_the_same_id(
    store: RedisRunStore,
) -> None:
    """A delete whose reply was lost is sent again; it must not remove a run created since."""
    await store.create("run", "t")
    hand = HandWriter(store, store._durations, lambda: 1)
    hand.producer, hand.n = "a", 1
    calls = calls_by_hand(hand, store._durations)
    first = await calls.execute("run", Delete(force=True))
    await store.create("run", "t")
    assert await calls.execute("run", Delete(force=True)) == first
    assert (await store.snapshot("run")).version == 1


@pytest.mark.parametrize("live_ttl_seconds", [0, 60])
async def test_leftovers_of_a_deleted_run_expire_with_the_new_one(
    space: Space, live_ttl_seconds: float
) -> None:
    """A new run under a deleted id takes over its tombstone and passes the audit."""
    async with space.store(live_ttl_seconds=live_ttl_seconds) as store:
        await store.create("run", "t")
        await store.delete("run", force=True)
        await store.create("run", "t")
        assert (await store.audit("run")).problems == ()


async def test_a_submit_after_a_delete_in_a_call_makes_a_new_run(store: RedisRunStore) -> None:
    """The tombstone in the journal is found although the call also makes a run that was absent."""
    await store.create("run", "t")
    epoch = (await store.snapshot("run")).epoch
    await asyncio.gather(
        store.delete("run", force=True), store.submit("run", "t"), store.submit("other", "t")
    )
    assert (await store.snapshot("run")).epoch != epoch
    assert (await store.audit("run")).problems == ()


@pytest.mark.leaves("*:feed")
async def test_a_run_whose_first_entry_fails_does_not_begin(
    space: Space, store: RedisRunStore
) -> None:
    """If the feed is a key of another type, neither the hash nor a queue row is written."""
    space.admin.set(space.keys.feed(0), "x")
    answer = store._calls.execute("run", Create("t", "epoch", queued=True))
    with pytest.raises(StoreError):
        await answer
    assert not space.admin.exists(space.keys.run("run"), space.keys.queue("t", 0))
