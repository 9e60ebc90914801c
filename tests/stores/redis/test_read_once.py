"""One read of the live source: its entries are handed over where the reply arrives."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from murmur_streams.stores.redis.connection.lane import Lane
from murmur_streams.stores.redis.live.sources import read_once


class StubLane:
    """A lane whose reply the test gives."""

    def __init__(self) -> None:
        self.command: tuple[object, ...] = ()
        self.reply: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.notify: Callable[[], None] = lambda: None

    def call(self, *command: object, notify: Callable[[], None]) -> asyncio.Future[Any]:
        self.command, self.notify = command, notify
        return self.reply


async def started(
    take: Callable[[Any], None],
) -> tuple[StubLane, asyncio.Task[None]]:
    lane = StubLane()
    reading = asyncio.create_task(read_once(cast("Lane", lane), {"j": "1-1"}, 7, take))
    await asyncio.sleep(0)
    return lane, reading


async def test_entries_are_taken_before_the_reader_runs() -> None:
    """A subscriber that is woken by them waits for one turn of the event loop, and not for two."""
    taken: list[Any] = []
    lane, reading = await started(taken.append)
    assert lane.command[:3] == ("XREAD", "COUNT", 7)
    assert lane.command[-3:] == ("STREAMS", "j", "1-1")
    lane.reply.set_result(["entries"])
    lane.notify()
    assert taken == [["entries"]]
    await reading


async def test_a_lost_connection_hands_over_nothing() -> None:
    """The reader gets the error."""
    taken: list[Any] = []
    lane, reading = await started(taken.append)
    lane.reply.set_exception(RedisConnectionError("lost"))
    lane.notify()
    with pytest.raises(RedisConnectionError, match="lost"):
        await reading
    assert not taken


async def test_a_reply_to_a_stopped_reader_is_dropped() -> None:
    """The lane notifies of it all the same."""
    taken: list[Any] = []
    lane, reading = await started(taken.append)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    lane.notify()
    assert not taken


async def test_a_fault_of_the_taker_is_raised_by_the_reader() -> None:
    """It does not break the lane."""

    def take(_: Any) -> None:
        raise LookupError("a fault")

    lane, reading = await started(take)
    lane.reply.set_result([])
    lane.notify()
    with pytest.raises(LookupError):
        await reading
