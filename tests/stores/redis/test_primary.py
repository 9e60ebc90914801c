"""The primary that Sentinels name: whose answer counts, and what a change of it closes."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from redis.asyncio import Connection, Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from murmur_streams.stores.redis.connection import sentinel
from murmur_streams.stores.redis.connection.connections import Connections
from murmur_streams.stores.redis.connection.maker import ConnectionMaker
from murmur_streams.stores.redis.connection.sentinel import Address, Primary

OLD, NEW = ("127.0.0.1", 1), ("127.0.0.1", 2)
Answers = list[tuple[int, Address] | None]
"""The epoch and the address that each Sentinel names; None for one that does not answer."""


@pytest.fixture
def answers() -> Answers:
    return [(1, OLD), (1, OLD), (1, OLD)]


@pytest.fixture
def primary(answers: Answers, monkeypatch: pytest.MonkeyPatch) -> Primary:
    """A service of three Sentinels with these answers."""

    async def answer(_: Primary, maker: ConnectionMaker) -> object:
        found = answers[maker.settings["port"]]
        if found is None:
            raise RedisConnectionError("gone")
        return sentinel._Seen(*found)

    monkeypatch.setattr(Primary, "_answer", answer)
    return Primary("runs", [ConnectionMaker.by(Connection, {"port": port}) for port in range(3)])


async def test_the_highest_epoch_counts(answers: Answers, primary: Primary) -> None:
    """One Sentinel knows of the failover, two do not yet."""
    answers[0] = (2, NEW)
    assert await primary.address() == NEW


@pytest.mark.fault("F15")
async def test_a_lower_epoch_does_not_count(answers: Answers, primary: Primary) -> None:
    """The Sentinel that knew the newer primary is gone; the old one does not come back."""
    answers[0] = (2, NEW)
    await primary.address()
    answers[0] = None
    primary.doubt()
    for _ in range(2):
        with pytest.raises(RedisConnectionError, match="older primary"):
            await primary.address()


async def test_sentinels_that_were_set_up_anew_count_again(
    answers: Answers, primary: Primary, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Most of them have named the lower epoch for long enough; one of them alone is not enough."""
    monkeypatch.setattr(sentinel, "ANEW_SECONDS", -1.0)
    answers[:] = [(7, OLD)] * 3
    await primary.address()
    answers[:] = [(1, NEW), None, None]
    primary.doubt()
    with pytest.raises(RedisConnectionError, match="older primary"):
        await primary.address()
    answers[1] = (1, NEW)
    assert await primary.address() == NEW


async def test_a_try_that_has_run_out_does_not_stop_the_closing() -> None:
    """Its time was over just before the failover: the other connections close all the same."""
    connections = Connections(ConnectionMaker.of(Redis(port=1)), size=1, deadline_seconds=1.0)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0) as limit:
            connections._connecting.add(limit)
            await asyncio.sleep(1)
    await connections.drop_all()
