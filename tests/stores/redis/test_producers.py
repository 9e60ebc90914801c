"""A call is executed once and in its order: its producer's record says so, for ten minutes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from murmur_streams.core.model.commands import Finish, PushEvent
from murmur_streams.core.model.states import RunState
from murmur_streams.core.rules.decide import Answer
from murmur_streams.stores.redis.durations import Durations
from murmur_streams.stores.redis.store import RedisRunStore
from murmur_streams.stores.redis.writes import NumberedCall
from tests.servers import Space
from tests.stores.redis.hand import HandWriter, calls_by_hand

RUN_ID = "run"
EVENT = {"type": "log", "ts": "2026-01-01T00:00:00+00:00"}


class Hand:
    """Pushes events under any producer, number and knowledge of earlier calls."""

    def __init__(self, space: Space, store: RedisRunStore) -> None:
        self.space = space
        self.store = store
        durations = Durations(0, 0, 0, 1000)
        self.writer = HandWriter(store, durations, lambda: time.time_ns() // 1_000_000)
        self.calls = calls_by_hand(self.writer, durations)

    async def push(
        self, producer: str, n: int, *, settled: int | None = None, known: int = 0
    ) -> Answer:
        self.writer.producer, self.writer.n = producer, n
        self.writer.settled, self.writer.known = settled, known
        return await self.calls.execute(RUN_ID, PushEvent(EVENT))

    async def version(self) -> int:
        return (await self.store.snapshot(RUN_ID)).version


@pytest.fixture
async def hand(space: Space) -> AsyncIterator[Hand]:
    async with space.store() as store:
        await store.create(RUN_ID, "t")
        yield Hand(space, store)


async def test_a_repeated_call_gets_the_recorded_answer(hand: Hand) -> None:
    """And it writes nothing."""
    first = await hand.push("p", 1)
    await hand.push("q", 1)
    assert (await hand.push("p", 1), first) == (("OK", "2"), ("OK", "2"))
    assert await hand.version() == 3


async def test_the_call_before_the_last_one_is_recorded_too(hand: Hand) -> None:
    """Two calls can be in flight, and both replies be lost."""
    answers = [await hand.push("p", n) for n in (1, 2)]
    assert [await hand.push("p", n) for n in (1, 2, 1)] == [*answers, answers[0]]
    assert await hand.version() == 3


async def test_an_older_call_is_dropped(hand: Hand) -> None:
    """A call that is older than both recorded ones changes nothing."""
    for n in (5, 6, 7):
        await hand.push("p", n)
    assert await hand.push("p", 5) == ("DROPPED",)
    assert await hand.version() == 4


async def test_a_call_is_not_executed_before_its_predecessor(hand: Hand) -> None:
    """The predecessor was lost on its way, and its caller still waits for it."""
    await hand.push("p", 1)
    assert await hand.push("p", 3, settled=1) == ("GAP",)
    assert await hand.push("p", 2, settled=1) == ("OK", "3")
    assert await hand.push("p", 3, settled=1) == ("OK", "4")


async def test_a_call_follows_one_that_was_given_up(hand: Hand) -> None:
    """And the one that was given up does not come after it."""
    await hand.push("p", 1)
    assert await hand.push("p", 3, settled=2) == ("OK", "3")
    assert await hand.push("p", 2) == ("DROPPED",)
    assert await hand.version() == 3


@pytest.mark.parametrize("left", ["nothing", "an older record"])
@pytest.mark.fault("F16")
async def test_a_server_that_lost_answered_calls_is_noticed(hand: Hand, left: str) -> None:
    """After a failover its record is behind what the producer knows: the call writes nothing."""
    await hand.push("p", 1)
    last = "0" if left == "nothing" else "1"
    key = hand.space.keys.producer("p", 0)
    before = hand.space.admin.get(key)
    await hand.push("p", 2)
    hand.space.admin.delete(key)
    if left != "nothing":
        hand.space.admin.set(key, cast("bytes", before), px=60_000)
    await hand.push("p", 3, known=2)
    assert hand.writer.reply == ["REWOUND", last]
    assert await hand.version() == 3


async def test_a_store_goes_on_when_the_server_lost_its_record(hand: Hand) -> None:
    """Its writer begins with a new producer, and its next write is applied once."""
    await hand.store.create("other", "t")
    producer = hand.store._writer._routes.at(0)._calls.producer
    hand.space.admin.delete(hand.space.keys.producer(producer, 0))
    await hand.store.create("third", "t")
    assert hand.store._writer._routes.at(0)._calls.producer != producer
    assert (await hand.store.snapshot("third")).version == 1


async def test_a_record_can_be_asked_for_without_a_write(hand: Hand) -> None:
    """So a writer learns the outcome of a call while the server's memory is full."""
    await hand.push("p", 1)
    for n, wanted in ((1, ["OK", "OK 2"]), (2, ["UNKNOWN"])):
        hand.writer.n = n
        call = NumberedCall(n, [], 0, 0, mode="recorded")
        reply = await hand.writer._reply_to(call, RUN_ID)
        assert [text.decode() for text in reply] == wanted
    assert await hand.version() == 2


async def test_a_record_expires_ten_minutes_after_the_last_call(hand: Hand) -> None:
    """A repeat counts as a call."""
    await hand.push("p", 1)
    key = hand.space.keys.producer("p", 0)
    hand.space.admin.pexpire(key, 1_000)
    await hand.push("p", 1)
    left: Any = hand.space.admin.pttl(key)
    assert 590_000 < left <= 600_000


async def test_an_idle_store_takes_a_new_producer(hand: Hand) -> None:
    """After four minutes: its record could be gone before the next call."""
    store = hand.store
    writer = store._writer._routes.at(0)._calls
    producer, writer.last_used = writer.producer, writer.last_used - 241
    await store.set_state(RUN_ID, RunState.RUNNING)
    assert writer.producer != producer


async def test_one_command_fails_and_the_others_do_not(hand: Hand) -> None:
    """The answers of a call are those of its commands, each its own, also when it is repeated."""
    store, admin = hand.store, hand.space.admin
    for run_id in ("a", "b"):
        await store.create(run_id, "t")
    admin.delete(hand.space.keys.journal("a"))
    admin.set(hand.space.keys.journal("a"), "a string")
    hand.writer.producer, hand.writer.n = "p", 1
    found = await asyncio.gather(
        hand.calls.execute("a", PushEvent(EVENT)),
        hand.calls.execute("b", PushEvent(EVENT)),
        hand.calls.execute("none", PushEvent(EVENT)),
        hand.calls.execute("b", Finish(RunState.COMPLETED)),
        return_exceptions=True,
    )
    first = hand.writer.reply
    assert str(found[0]).startswith("WRONGTYPE")
    assert found[1:] == [("OK", "2"), ("NOT_FOUND",), ("OK", "3")]
    await hand.push("p", 1)
    assert hand.writer.reply == first
    admin.delete(hand.space.keys.journal("a"), hand.space.keys.run("a"))
