"""The parts of the public fault kit do what they say: the network, the server, the schedule."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from murmur_streams.core.model.errors import InvalidInputError
from murmur_streams.testing.faults import (
    Act,
    Direction,
    FaultProxy,
    FaultSchedule,
    ServerHandle,
    TcpProxy,
)
from tests.server_choice import server_binary
from tests.stores.faults.waiting import wait_until

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Echo:
    """A server that sends back what it gets, and says how many connections it has."""

    def __init__(self) -> None:
        self.connections = 0
        self.received = b""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        while data := await reader.read(1_000):
            self.received += data
            writer.write(data)
        self.connections -= 1
        writer.close()


@pytest.fixture
async def echo(nothing_is_left: None) -> AsyncIterator[tuple[Echo, int]]:
    echo = Echo()
    async with await asyncio.start_server(echo.serve, "127.0.0.1", 0) as server:
        yield echo, server.sockets[0].getsockname()[1]


async def asked(streams: Streams, text: bytes) -> bytes:
    """What the echo answers, one byte at least."""
    streams[1].write(text)
    found = b""
    while len(found) < len(text):
        found += await asyncio.wait_for(streams[0].read(1_000), 10)
    return found


async def test_bytes_pass_in_pieces_and_late(echo: tuple[Echo, int]) -> None:
    """Everything arrives, whatever the network is like."""
    async with TcpProxy(("127.0.0.1", echo[1])) as proxy:
        streams = await asyncio.open_connection("127.0.0.1", proxy.port)
        proxy.piece_bytes, proxy.delay_seconds = 3, 0.001
        assert await asked(streams, b"0123456789") == b"0123456789"
        streams[1].close()
        await wait_until(lambda: echo[0].connections == 0, "the close arrives, too")


@pytest.mark.parametrize("direction", Direction)
async def test_a_black_hole_swallows_one_direction(
    direction: Direction, echo: tuple[Echo, int]
) -> None:
    """Nothing is closed; the other direction works, and so do new connections."""
    async with TcpProxy(("127.0.0.1", echo[1])) as proxy:
        streams = await asyncio.open_connection("127.0.0.1", proxy.port)
        assert await asked(streams, b"before") == b"before"
        proxy.black_hole(direction)
        streams[1].write(b"in it")
        other = await asyncio.open_connection("127.0.0.1", proxy.port)
        assert await asked(other, b"other") == b"other"
        arrives = direction is Direction.TO_CLIENT
        await wait_until(lambda: (b"in it" in echo[0].received) is arrives, "as it should be")
        other[1].close()
        streams[1].close()
        if arrives:
            await wait_until(lambda: echo[0].connections == 0, "both are closed")
        else:
            await wait_until(lambda: proxy.half_open == 1, "the server learns of no close")
            assert echo[0].connections >= 1


async def test_new_connections_vanish_until_the_end(echo: tuple[Echo, int]) -> None:
    """They are accepted and get no answer; those after the end of the black hole do."""
    async with TcpProxy(("127.0.0.1", echo[1])) as proxy:
        proxy.black_hole(also_new=True)
        deaf = await asyncio.open_connection("127.0.0.1", proxy.port)
        deaf[1].write(b"lost")
        await wait_until(lambda: proxy.connections == 1, "it is accepted")
        proxy.end_black_hole()
        good = await asyncio.open_connection("127.0.0.1", proxy.port)
        assert await asked(good, b"heard") == b"heard"
        assert echo[0].received == b"heard"
        for _, writer in (deaf, good):
            writer.close()


async def test_bytes_that_are_held_back_come_later(echo: tuple[Echo, int]) -> None:
    """In their order, once the network goes on."""
    async with TcpProxy(("127.0.0.1", echo[1])) as proxy:
        streams = await asyncio.open_connection("127.0.0.1", proxy.port)
        assert await asked(streams, b"before") == b"before"
        proxy.stall()
        streams[1].write(b"one ")
        other = await asyncio.open_connection("127.0.0.1", echo[1])
        assert await asked(other, b"straight") == b"straight"
        assert b"one" not in echo[0].received
        proxy.resume()
        assert await asked(streams, b"two ") in {b"one ", b"one two "}
        for _, writer in (streams, other):
            writer.close()


async def test_a_proxy_that_was_not_started_says_so() -> None:
    """The error says how to use it."""
    with pytest.raises(InvalidInputError, match="async with"):
        TcpProxy(("127.0.0.1", 1)).shut()


async def message(heard: Any) -> dict[str, Any]:
    """The next one."""
    found = await heard.get_message(timeout=10)
    assert found is not None
    return found


async def test_subscribers_get_messages_through_a_fault_proxy(
    proxy: FaultProxy, admin: Any
) -> None:
    """From a SUBSCRIBE on, bytes are passed on as they come."""
    from redis.asyncio import Redis

    async with Redis.from_url(proxy.url, protocol=2) as client, client.pubsub() as heard:
        await heard.subscribe("faults:news")
        assert (await message(heard))["type"] == "subscribe"
        for text in (b"one", b"two"):
            await admin.publish("faults:news", text)
            assert (await message(heard))["data"] == text


async def test_what_happens_to_a_server(tmp_path: Path, nothing_is_left: None) -> None:
    """With its data after a kill, without after ``restart_empty``, read-only while demoted."""
    settings = ["appendonly yes", "appendfsync always"]
    binary = server_binary()
    async with ServerHandle(tmp_path, settings, password="p", binary=binary) as server:
        async with server.client() as client:
            await client.set("key", "value")
        for act in (server.kill, server.stop):
            await act()
            assert not server.node.runs
            await server.start()
            async with server.client() as client:
                assert await client.get("key") == b"value"
        await server.demote()
        async with server.client() as client:
            assert (await client.role())[0] == b"slave"
        await server.promote()
        server.freeze()
        async with server.client() as client:
            waits = asyncio.ensure_future(client.ping())
            await asyncio.sleep(0)
            server.thaw()
            assert await waits
        await server.restart_empty()
        async with server.client() as client:
            assert await client.get("key") is None


def counting(names: str, made: list[str]) -> dict[str, Act]:
    """Faults that note their names; "x" cannot be made."""

    def of(name: str) -> Act:
        async def act() -> None:
            made.append(name)
            if name == "x":
                raise ConnectionError("another fault")

        return act

    return {name: of(name) for name in names}


async def test_a_seed_makes_the_same_faults() -> None:
    """In each lane in the same order, each kind once before one comes again."""
    runs: list[list[str]] = []
    for seed in (7, 7, 8):
        made: list[str] = []
        report = await FaultSchedule({"lane": counting("abcd", made)}, seed, (0, 0)).run(20)
        assert report.total == len(made) == 20
        assert sorted(made[:4]) == ["a", "b", "c", "d"]
        runs.append(made)
    assert runs[0] == runs[1] != runs[2]


async def test_a_fault_that_cannot_be_made_is_reported() -> None:
    """It does not count, and the others go on."""
    made: list[str] = []
    lanes = {"one": counting("abx", made), "other": counting("cd", made)}
    report = await FaultSchedule(lanes, 7, (0, 0.001)).run(30)
    assert report.total == 30
    assert set(report.happened) == {"a", "b", "c", "d"}
    assert report.failed["x"] == made.count("x") > 0
    assert report.reasons["x"] == "ConnectionError: another fault"


async def test_a_stopped_schedule_ends_its_faults() -> None:
    """No pause is waited for, no further fault begins, and one that happens comes to its end."""
    happens, may_end, ended = asyncio.Event(), asyncio.Event(), list[str]()

    async def act() -> None:
        happens.set()
        await may_end.wait()
        ended.append("act")

    async def short() -> None:
        pass

    schedule = FaultSchedule({"long": {"act": act}, "short": {"short": short}}, 7, (3_600, 3_600))
    running = asyncio.create_task(schedule.run(1_000))
    await happens.wait()
    schedule.stop()
    may_end.set()
    report = await running
    assert ended == ["act"]
    assert report.happened["act"] == 1
    assert report.happened["short"] <= 1
