"""The feed in Redis: what trimming, deletion and partitions do to its readers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest

from murmur_streams.core.model.errors import CursorGapError, CursorResetError, InvalidCursorError
from murmur_streams.core.model.events import RunEvent, RunEventType
from murmur_streams.core.model.feed import FeedCursor, FeedEntry
from murmur_streams.core.model.states import RunState
from murmur_streams.stores.redis.store import RedisRunStore
from murmur_streams.testing import wait_until
from tests.servers import Space


@pytest.fixture
async def store(space: Space) -> AsyncIterator[RedisRunStore]:
    async with space.store() as store:
        yield store


async def take(store: RedisRunStore, count: int, after: str | None = None) -> list[FeedEntry]:
    found: list[FeedEntry] = []
    async with asyncio.timeout(20), aclosing(store.feed(after=after)) as feed:
        while len(found) < count:
            found.append(await anext(feed))
    return found


async def write(store: RedisRunStore, count: int, run_id: str = "run") -> None:
    await store.create(run_id, "t")
    event = RunEvent(type=RunEventType.LOG, run_id=run_id)
    for _ in range(count):
        await store.append(run_id, event)


@pytest.mark.fault("F38")
async def test_a_feed_trimmed_after_the_cursor_is_a_gap(space: Space, store: RedisRunStore) -> None:
    """The error's cursor is one from which the reader can continue."""
    await write(store, 9)
    seen = await take(store, 10)
    space.admin.xtrim(space.keys.feed(0), maxlen=4, approximate=False)
    with pytest.raises(CursorGapError, match="entries 3 to 6") as caught:
        await take(store, 1, seen[1].cursor)
    assert await take(store, 4, caught.value.resume_cursor) == seen[6:]
    # The entry itself is gone, but nothing after it is.
    assert await take(store, 4, seen[5].cursor) == seen[6:]


async def test_a_feed_stays_near_its_bound(space: Space) -> None:
    """It is trimmed now and then, to about feed_max_entries."""
    async with space.store(feed_max_entries=100) as store:
        await store.create("run", "t")
        event = RunEvent(type=RunEventType.LOG, run_id="run")
        for _ in range(20):
            await store.append("run", *[event] * 50)
        seen = await take(store, 100)
    length: Any = space.admin.xlen(space.keys.feed(0))
    # By every 32nd entry, and by whole nodes, which hold at most a hundred.
    assert 100 <= length < 100 + 32 + 100
    assert [each.entry.seq for each in seen] == list(range(1002 - length, 1102 - length))


@pytest.mark.parametrize("by", ["sweep", "tend"])
async def test_housekeeping_trims_the_feed_by_time(space: Space, by: str) -> None:
    """Entries older than ttl_seconds are removed, even if no new entry comes."""
    feed = space.keys.feed(0)
    length: Any = space.admin.xlen
    async with space.store(ttl_seconds=0.05) as store:
        await write(store, 3)
        await store.finish("run", RunState.COMPLETED)
        seen = await take(store, length(feed))

        async def is_trimmed() -> bool:
            await (store.sweep() if by == "sweep" else store.queue(60).tend("w", [], 60))
            return length(feed) == 1

        await wait_until(is_trimmed, "only the last entry is kept")
        with pytest.raises(CursorGapError):
            await take(store, 1, seen[1].cursor)
        # A reader that has read everything goes on without a gap, and so does n.
        async with asyncio.timeout(20), aclosing(store.feed(after=seen[-1].cursor)) as entries:
            coming = asyncio.ensure_future(anext(entries))
            await store.create("other", "t")
            after = await coming
    assert (after.run_id, after.entry.type) == ("other", "run.created")


async def test_without_a_ttl_the_feed_is_not_trimmed_by_time(space: Space) -> None:
    """With ttl_seconds=0 a sweep leaves all entries."""
    async with space.store(ttl_seconds=0) as store:
        await write(store, 3)
        await asyncio.sleep(0.02)
        await store.sweep()
        assert len(await take(store, 4)) == 4


@pytest.mark.fault("F38")
async def test_what_is_trimmed_under_a_reader_is_a_gap(space: Space, store: RedisRunStore) -> None:
    """The reader gets CursorGapError with a cursor to resume from."""
    await write(store, 1)
    async with aclosing(store.feed()) as feed:
        assert [(await anext(feed)).entry.seq for _ in range(2)] == [1, 2]
        event = RunEvent(type=RunEventType.LOG, run_id="run")
        await store.append("run", *[event] * 20)
        space.admin.xtrim(space.keys.feed(0), maxlen=2, approximate=False)
        with pytest.raises(CursorGapError) as caught:
            await anext(feed)
    assert [each.entry.seq for each in await take(store, 2, caught.value.resume_cursor)] == [21, 22]


async def test_a_feed_that_began_anew_is_a_reset(space: Space, store: RedisRunStore) -> None:
    """A cursor of a deleted feed is a reset; its resume cursor begins the new feed."""
    await write(store, 5)
    seen = await take(store, 6)
    space.admin.delete(space.keys.feed(0))
    with pytest.raises(CursorResetError):
        await take(store, 1, seen[-1].cursor)
    await write(store, 0, "other")
    with pytest.raises(CursorResetError) as caught:
        await take(store, 1, seen[-1].cursor)
    assert (await take(store, 1, caught.value.resume_cursor))[0].run_id == "other"


async def test_a_cursor_stands_in_every_partition(space: Space) -> None:
    """Resuming after any entry of three partitions gives each other entry once."""
    async with space.store(partitions=3) as store:
        for number in range(12):
            await write(store, 2, f"run-{number}")
        seen = await take(store, 36)
        assert len(FeedCursor.parse(seen[-1].cursor, 3).positions) == 3
        for index in range(0, 36, 5):
            rest = await take(store, 35 - index, seen[index].cursor)
            both = seen[: index + 1] + rest
            assert len({(each.run_id, each.entry.seq) for each in both}) == 36
        with pytest.raises(CursorResetError):
            FeedCursor.parse(seen[0].cursor, 2)
        with pytest.raises(InvalidCursorError):
            await take(store, 1, "feed.x")


async def test_an_entry_of_a_run_that_is_gone_still_comes(
    space: Space, store: RedisRunStore
) -> None:
    """A large entry has only its type then."""
    await store.create("run", "t")
    big = RunEvent(type=RunEventType.CUSTOM, run_id="run", name="n", data="x" * 2_000)
    await store.append("run", big)
    space.admin.delete(*space.keys.of_run("run"))
    created, event = await take(store, 2)
    assert (created.entry.type, event.entry.fields) == (
        "run.created",
        {"big": "1", "type": "custom"},
    )


async def test_a_consumer_group_on_the_feed_gets_every_entry(
    space: Space, store: RedisRunStore
) -> None:
    """Redis' own consumer groups work on the feed."""
    await write(store, 3)
    feed = space.keys.feed(0)
    space.admin.xgroup_create(feed, "billing", id="0", mkstream=True)
    replies: Any = space.admin.xreadgroup("billing", "worker-1", {feed: ">"}, count=100)
    ((_, entries),) = replies
    assert [fields[b"run"] for _, fields in entries] == [b"run"] * 4
    assert space.admin.xack(feed, "billing", *(entry_id for entry_id, _ in entries)) == 4
