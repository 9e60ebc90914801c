"""All connections of a process are killed at one moment: its subscribers lose and repeat nothing,
and what they missed is read once for all of them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest

from murmur_streams.core.model.events import RunEvent, RunEventType
from murmur_streams.core.model.states import RunState
from murmur_streams.stores.redis.live.hub import MOST_DIRECT
from murmur_streams.stores.redis.live.sources import DirectSource, FeedSource
from murmur_streams.stores.redis.store import RedisRunStore
from tests.servers import Space
from tests.stores.faults.waiting import wait_until

RUN_ID = "run"
SUBSCRIBERS = 1_000
WAVES = 3
EVENTS_A_WAVE = 100
MOST_READS_A_WAVE = 150
"""Of 1,000 subscribers, whose own reads would be 2,000; a wave needs about 5, and 3 a run more."""
READS = ("xrange", "xread")
"""The writer's script uses neither."""


@pytest.fixture
async def store(space: Space) -> AsyncIterator[RedisRunStore]:
    async with space.store() as store:
        yield store


def reads_of(space: Space) -> int:
    """How often the server was asked for entries since the last reset."""
    stats: dict[str, Any] = space.admin.info("commandstats")
    return sum(int(stats.get(f"cmdstat_{name}", {"calls": 0})["calls"]) for name in READS)


def kill_and_write(space: Space, first: int) -> None:
    """Kill every connection, and write before one of them can be made again.

    In a thread that the loop waits for: nothing of the subscribers' process runs meanwhile.
    """

    async def work() -> None:
        async with space.store() as writer:
            await writer.get_status(RUN_ID)
            space.admin.client_kill_filter(_type="normal", skipme=True)
            for number in range(first, first + EVENTS_A_WAVE):
                await writer.append(RUN_ID, note(number))

    thread = threading.Thread(target=lambda: asyncio.run(work()))
    thread.start()
    thread.join()


def note(number: int) -> RunEvent:
    return RunEvent(type=RunEventType.CUSTOM, run_id=RUN_ID, data=number)


async def follow(store: RedisRunStore, run_id: str, seen: list[object]) -> None:
    async for event in store.stream(run_id):
        seen.append(event.data)  # noqa: PERF401  # each is to be seen as it comes


async def all_have(seen: list[list[object]], count: int) -> None:
    """Return when every subscriber has that many: repeats are for the test to find."""
    await wait_until(lambda: all(len(each) >= count for each in seen), f"{count} are seen")


@pytest.mark.slow
@pytest.mark.parametrize("kind", [DirectSource, FeedSource])
@pytest.mark.fault("F37")
async def test_1000_reconnecting_subscribers_share_their_reads(
    space: Space, store: RedisRunStore, kind: type
) -> None:
    """Their reads after the cut are few, and each subscriber gets each event once."""
    run_ids = [RUN_ID] + [f"idle-{n}" for n in range(MOST_DIRECT if kind is FeedSource else 0)]
    for run_id in run_ids:
        await store.create(run_id, "t")
    idle = [asyncio.create_task(follow(store, run_id, [])) for run_id in run_ids[1:]]
    seen: list[list[object]] = [[] for _ in range(SUBSCRIBERS)]
    readers = [asyncio.create_task(follow(store, RUN_ID, each)) for each in seen]
    await wait_until(
        lambda: (
            store._tails.followers == SUBSCRIBERS + len(idle)
            and isinstance(store._tails._live[0]._source, kind)
        ),
        "everybody follows",
    )
    for wave in range(1, WAVES + 1):
        space.admin.config_resetstat()
        kill_and_write(space, (wave - 1) * EVENTS_A_WAVE)
        wanted = list(range(wave * EVENTS_A_WAVE))
        await all_have(seen, len(wanted))
        assert 0 < reads_of(space) < MOST_READS_A_WAVE
        assert seen == [wanted] * SUBSCRIBERS
    await store.finish(RUN_ID, RunState.COMPLETED)
    await asyncio.gather(*readers)
    assert seen == [list(range(WAVES * EVENTS_A_WAVE))] * SUBSCRIBERS
    for task in idle:
        task.cancel()
    await asyncio.gather(*idle, return_exceptions=True)
