"""A failover to a replica that lagged behind takes the feed back, and maybe journals with it.

Done by hand: the keys get an earlier state while no connection breaks, so that only the
entries show it. Subscribers see each event exactly once, or CursorResetError; never another
history.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

import pytest

from murmur_streams.core.model.errors import CursorResetError
from murmur_streams.core.model.events import RunEvent, RunEventType
from murmur_streams.core.model.states import RunState
from murmur_streams.stores.redis.live import sources
from murmur_streams.stores.redis.live.hub import MOST_DIRECT
from murmur_streams.stores.redis.live.sources import FeedSource
from murmur_streams.stores.redis.store import RedisRunStore
from tests.key_audit import expiry_times
from tests.servers import Space
from tests.stores.faults.waiting import wait_until

RUNS = MOST_DIRECT + 2
LOST = RUNS // 2
"""The first runs are written to after the moment that the server goes back to."""
PATIENCE_SECONDS = 30.0
Rewind = Callable[[Space, dict[str, bytes]], None]


@pytest.fixture(autouse=True)
def short_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """A feed that is set back wakes no reader; the bounded read finds it if no later entry does."""
    monkeypatch.setattr(sources, "BLOCK_SECONDS", 0.2)


@pytest.fixture
async def store(space: Space) -> AsyncIterator[RedisRunStore]:
    async with space.store() as store:
        yield store


@pytest.fixture
async def writer(space: Space) -> AsyncIterator[RedisRunStore]:
    async with space.store() as store:
        yield store


def note(run_id: str, data: int | str) -> RunEvent:
    return RunEvent(type=RunEventType.CUSTOM, run_id=run_id, data=data)


def dump(space: Space, keys: list[str]) -> dict[str, bytes]:
    """The content of these keys now."""
    client: Any = space.admin
    return {key: client.dump(key) for key in keys if client.exists(key)}


def restored(space: Space, dumps: dict[str, bytes]) -> None:
    """The whole keys as they were, with the last id that a stream remembers."""
    expiries = expiry_times(space.admin, list(dumps))
    for (key, content), expiry in zip(dumps.items(), expiries, strict=True):
        space.admin.restore(key, max(0, expiry), content, replace=True, absttl=True)


def added_again(space: Space, dumps: dict[str, bytes]) -> None:
    """A new stream with the same first entries: it remembers no other id than its last."""
    client: Any = space.admin
    for key, content in dumps.items():
        space.admin.restore("earlier", 0, content)
        earlier = client.xrange("earlier")
        client.delete("earlier", key)
        for entry_id, fields in earlier:
            client.xadd(key, fields, id=entry_id)


def emptied(space: Space, dumps: dict[str, bytes]) -> None:
    """A replica that had nothing yet."""
    space.admin.delete(*dumps)


REWINDS: dict[str, Rewind] = {
    "restored": restored,
    "added again": added_again,
    "emptied": emptied,
}


class Subscribers:
    """One for each run, of a process that follows by the feed."""

    def __init__(self, store: RedisRunStore, run_ids: list[str]) -> None:
        self.seen: dict[str, list[object]] = {run_id: [] for run_id in run_ids}
        self._store = store
        self.tasks = {each: asyncio.create_task(self._follow(each)) for each in run_ids}

    async def _follow(self, run_id: str) -> None:
        async for event in self._store.stream(run_id):
            self.seen[run_id].append(event.data)

    async def follow(self) -> None:
        """Return when all of them wait."""
        await wait_until(
            lambda: (
                self._store._tails.followers == len(self.tasks)
                and isinstance(self._store._tails._live[0]._source, FeedSource)
            ),
            "all follow by the feed",
        )

    async def have_seen(self, count: int) -> None:
        """Return when each has seen so many events."""
        await wait_until(
            lambda: all(len(each) >= count for each in self.seen.values()), f"{count} are seen"
        )

    async def ends(self) -> dict[str, object]:
        """How each ends: None, or its error."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            ends = await asyncio.gather(*self.tasks.values(), return_exceptions=True)
        return dict(zip(self.tasks, ends, strict=True))


async def created(writer: RedisRunStore) -> list[str]:
    run_ids = [f"run-{number}" for number in range(RUNS)]
    for run_id in run_ids:
        await writer.create(run_id, "t")
    return run_ids


@pytest.mark.parametrize("rewind", REWINDS)
async def test_a_feed_that_went_back_alone_loses_no_event(
    space: Space, store: RedisRunStore, writer: RedisRunStore, rewind: str
) -> None:
    """Only the feed was rewound, not the journals."""
    run_ids = await created(writer)
    subscribers = Subscribers(store, run_ids)
    await subscribers.follow()
    for run_id in run_ids:
        await writer.append(run_id, note(run_id, 0))
    await subscribers.have_seen(1)
    earlier = dump(space, [space.keys.feed(0)])
    for run_id in run_ids:
        await writer.append(run_id, note(run_id, 1))
    await subscribers.have_seen(2)
    REWINDS[rewind](space, earlier)
    for run_id in run_ids:
        await writer.append(run_id, note(run_id, 2))
        await writer.finish(run_id, RunState.COMPLETED)
    assert set((await subscribers.ends()).values()) == {None}
    assert subscribers.seen == {run_id: [0, 1, 2] for run_id in run_ids}


@pytest.mark.parametrize("goes_on", [False, True])
async def test_rewound_journals_reset_only_their_own_readers(
    space: Space, store: RedisRunStore, writer: RedisRunStore, goes_on: bool
) -> None:
    """Journals and feed went back; readers of runs that did not go back continue."""
    run_ids = await created(writer)
    subscribers = Subscribers(store, run_ids)
    await subscribers.follow()
    keys = [key for run_id in run_ids for key in space.keys.of_run(run_id)]
    for run_id in run_ids:
        await writer.append(run_id, note(run_id, 0))
    earlier = dump(space, [space.keys.feed(0), *keys])
    lost, others = run_ids[:LOST], run_ids[LOST:]
    for run_id in lost:
        await writer.append(run_id, note(run_id, "lost"), note(run_id, "lost, too"))
    await wait_until(lambda: all(len(subscribers.seen[each]) == 3 for each in lost), "all is seen")
    await subscribers.have_seen(1)
    restored(space, earlier)
    # Another process: the producers' records went back, too.
    async with space.store() as other:
        if goes_on:
            for run_id in lost:
                await other.append(run_id, *[note(run_id, "another history")] * 3)
        for run_id in others:
            await other.append(run_id, note(run_id, 1))
            await other.finish(run_id, RunState.COMPLETED)
    ends = await subscribers.ends()
    assert {type(ends[run_id]) for run_id in lost} == {CursorResetError}
    assert {ends[run_id] for run_id in others} == {None}
    assert {tuple(subscribers.seen[each]) for each in lost} == {(0, "lost", "lost, too")}
    assert {tuple(subscribers.seen[each]) for each in others} == {(0, 1)}


@pytest.mark.parametrize("rewind", REWINDS)
@pytest.mark.parametrize("goes_on", [False, True])
async def test_a_rewound_feed_resets_its_readers(
    space: Space, writer: RedisRunStore, rewind: str, goes_on: bool
) -> None:
    """The error's cursor lets a reader resume, if it wants to."""
    for run_id in ("a", "b"):
        await writer.create(run_id, "t")
    earlier = dump(space, [space.keys.feed(0)])
    await writer.append("a", *[note("a", "seen")] * 5)
    async with asyncio.timeout(PATIENCE_SECONDS), aclosing(writer.feed()) as feed:
        seen = [await anext(feed) for _ in range(7)]
        REWINDS[rewind](space, earlier)
        if goes_on:
            await writer.append("b", note("b", "later"))
        with pytest.raises(CursorResetError) as caught:
            await anext(feed)
    # The same answer for a reader that returns with the last cursor.
    with pytest.raises(CursorResetError):
        await anext(writer.feed(after=seen[-1].cursor))
    if not goes_on:
        await writer.append("b", note("b", "later"))
    async with (
        asyncio.timeout(PATIENCE_SECONDS),
        aclosing(writer.feed(after=caught.value.resume_cursor)) as feed,
    ):
        while (each := await anext(feed)).entry.fields.get("data") != '"later"':
            assert each.entry.type == "run.created"
