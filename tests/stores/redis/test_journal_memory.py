"""A journal takes the memory that its entries need, and not the 4 KB of a stream's first node."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from murmur_streams.core.model.events import RunEvent, RunEventType
from murmur_streams.stores.redis.store import RedisRunStore
from tests.servers import Space

MOST_BYTES = 1_500


def journal_bytes(space: Space, run_id: str) -> int:
    """The memory of a journal by the server's count, which Redis 6.2 gives too low."""
    admin: Any = space.admin
    return int(admin.memory_usage(space.keys.journal(run_id), samples=0))


async def until_blocked(space: Space) -> None:
    """Wait until a client waits for an entry."""
    # Only the server knows, so an asyncio.Event cannot replace this poll.
    while not space.admin.info("clients")["blocked_clients"]:  # noqa: ASYNC110
        await asyncio.sleep(0.01)


async def test_a_journal_has_no_room_that_it_does_not_need(
    space: Space, store: RedisRunStore
) -> None:
    """It is small after the create, and grows with its entries."""
    await store.create("run", "work")
    assert journal_bytes(space, "run") < MOST_BYTES
    for number in range(3):
        await store.append(
            "run", RunEvent(type=RunEventType.CUSTOM, run_id="run", name=str(number))
        )
    assert journal_bytes(space, "run") < MOST_BYTES
    assert (await store.audit("run")).problems == ()


async def test_an_imported_journal_has_no_room_to_spare(space: Space, store: RedisRunStore) -> None:
    """The stream in which its entries were collected had 4 KB."""
    await store.create("run", "work")
    archive = await store.archive("run")
    await store.delete("run", force=True)
    assert await store.restore(archive)
    assert journal_bytes(space, "run") < MOST_BYTES
    assert (await store.audit("run")).problems == ()


@pytest.mark.parametrize("live_ttl_seconds", [0, 60])
async def test_the_copy_leaves_nothing_behind(space: Space, live_ttl_seconds: float) -> None:
    """The keys of a new run are those of the table, and all of them expire, or none."""
    async with space.store(live_ttl_seconds=live_ttl_seconds) as store:
        await store.create("run", "work", input=1)
        admin: Any = space.admin
        of_run = {key.decode() for key in admin.keys(f"{space.prefix}:*:run*")}
        assert of_run == {space.keys.run("run"), space.keys.journal("run"), space.keys.input("run")}
        assert {admin.pttl(key) > 0 for key in of_run} == {live_ttl_seconds > 0}


async def test_a_reader_of_a_tombstone_wakes_for_the_next_run(
    space: Space, store: RedisRunStore
) -> None:
    """It waits after the last id of the deleted run, and gets the first entry of the new one."""
    await store.create("run", "work")
    await store.delete("run", force=True)
    admin: Any = space.admin
    journal = space.keys.journal("run")
    last = admin.xrevrange(journal, count=1)[0][0]
    blocked = asyncio.create_task(
        asyncio.to_thread(admin.xread, {journal: last}, count=10, block=10_000)
    )
    await until_blocked(space)
    await store.create("run", "other")
    ((_, entries),) = await blocked
    assert [fields[b"target"] for _, fields in entries] == [b"other"]
