"""A write is applied once: its producer's record says so, for ten minutes of server time."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from murmur_streams.core.model.commands import PushEvent
from murmur_streams.core.rules.decide import Answer
from murmur_streams.stores.redis.calls import Calls
from murmur_streams.stores.redis.durations import Durations
from murmur_streams.stores.redis.store import RedisRunStore
from tests.servers import Space
from tests.stores.redis.hand import HandWriter, calls_by_hand

RUN_ID = "run"
EVENT = {"type": "log", "ts": "2026-01-01T00:00:00+00:00"}
MINUTE_MS = 60_000
MANY = 40


class Hand:
    """Pushes events under any producer, number and clock."""

    def __init__(self, store: RedisRunStore) -> None:
        self.store = store
        self.behind_ms = 0
        self._writer = HandWriter(store)
        self._calls: Calls = calls_by_hand(
            self._writer, store, Durations(0, 0, 0, 1000), self._clock
        )

    async def push(self, producer: str, n: int) -> Answer:
        self._writer.producer, self._writer.n = producer, n
        return await self._calls.execute(RUN_ID, PushEvent(EVENT))

    def _clock(self) -> int:
        return time.time_ns() // 1_000_000 - self.behind_ms


@pytest.fixture
async def hand(space: Space) -> AsyncIterator[Hand]:
    async with space.store() as store:
        await store.create(RUN_ID, "t")
        yield Hand(store)


def producers(space: Space) -> set[str]:
    names: Any = space.admin.hkeys(space.keys.producers(RUN_ID))
    return {name.decode() for name in names}


async def test_a_repeated_call_gets_the_recorded_answer(hand: Hand) -> None:
    """And it writes nothing."""
    first = await hand.push("p", 1)
    await hand.push("q", 1)
    assert (await hand.push("p", 1), first) == (("OK", "2"), ("OK", "2"))
    assert (await hand.store.snapshot(RUN_ID)).version == 3


async def test_an_older_call_is_dropped(hand: Hand) -> None:
    """A call with a lower number than the last one of its producer changes nothing."""
    await hand.push("p", 5)
    assert await hand.push("p", 4) == ("DROPPED",)
    assert (await hand.store.snapshot(RUN_ID)).version == 2


async def test_pruning_spares_records_of_the_last_ten_minutes(space: Space, hand: Hand) -> None:
    """However many there are."""
    for number in range(MANY):
        await hand.push(f"p{number}", 1)
    assert {f"p{number}" for number in range(MANY)} <= producers(space)


async def test_records_that_are_older_are_removed_when_there_are_many(
    space: Space, hand: Hand
) -> None:
    """A write removes records of more than ten minutes ago."""
    for number in range(MANY):
        await hand.push(f"p{number}", 1)
    old = time.time_ns() // 1_000_000 - 11 * MINUTE_MS
    key = space.keys.producers(RUN_ID)
    for number in range(MANY):
        space.admin.hset(key, f"p{number}", f"1 {old} OK 2")
    await hand.push("new", 1)
    assert "new" in producers(space)
    assert not {f"p{number}" for number in range(MANY)} & producers(space)


async def test_a_caller_whose_clock_is_slow_keeps_its_record(space: Space, hand: Hand) -> None:
    """A repeated call gets its answer: the age of a record goes by the server's clock."""
    for number in range(MANY):
        await hand.push(f"p{number}", 1)
    hand.behind_ms = 11 * MINUTE_MS
    first = await hand.push("slow", 1)
    hand.behind_ms = 0
    await hand.push("another", 1)
    hand.behind_ms = 11 * MINUTE_MS
    assert await hand.push("slow", 1) == first


async def test_pruning_stamps_new_records_with_the_servers_time(space: Space, hand: Hand) -> None:
    """Records get their time when there are many of them, not from the caller."""
    hand.behind_ms = -MANY * MINUTE_MS
    for number in range(MANY):
        await hand.push(f"p{number}", 1)
    records: Any = space.admin.hvals(space.keys.producers(RUN_ID))
    stamps = [record.decode().split()[1] for record in records]
    times = [int(stamp) for stamp in stamps if stamp != "-"]
    assert stamps.count("-") < MANY / 2
    assert all(abs(moment - time.time() * 1000) < MINUTE_MS for moment in times)
