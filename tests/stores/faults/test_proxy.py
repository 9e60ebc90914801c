"""The fault proxy does what its faults say."""

from __future__ import annotations

import asyncio

import pytest
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as LostError
from redis.exceptions import RedisError

from murmur_streams.testing.faults import CUTS, Fault, FaultProxy, commands, once
from murmur_streams.testing.faults.resp import frame_end, parts_of, take_frame
from tests.stores.faults.waiting import wait_until

KEY = "faults:proxy"
pytestmark = pytest.mark.leaves(KEY)
EXECUTED = {Fault.DROP_REPLY, Fault.CUT_REPLY}


@pytest.fixture
async def client(proxy: FaultProxy, admin: Redis):
    await admin.delete(KEY)
    async with Redis.from_url(proxy.url, retry=Retry(NoBackoff(), 0), protocol=2) as client:
        yield client


@pytest.mark.parametrize("fault", CUTS)
async def test_each_cut_does_what_its_name_says(
    fault: Fault, proxy: FaultProxy, client: Redis, admin: Redis
) -> None:
    """It loses one answer, and the server executes the request or does not."""
    proxy.plan = once(fault, commands("INCRBY"))
    with pytest.raises(LostError):
        await client.incr(KEY)
    assert await admin.get(KEY) == ("1" if fault in EXECUTED else None)
    assert await client.incr(KEY) == (2 if fault in EXECUTED else 1)


async def test_a_stalled_request_is_executed_once_its_caller_has_gone(
    proxy: FaultProxy, client: Redis, admin: Redis
) -> None:
    """The fault STALL holds a request until its connection is closed."""
    proxy.plan = once(Fault.STALL, commands("INCRBY"))
    call = asyncio.ensure_future(client.incr(KEY))
    await wait_until(lambda: proxy.seen == ["STALL"], "the request is stalled")
    assert await admin.get(KEY) is None
    call.cancel()

    async def executed() -> bool:
        return await admin.get(KEY) == "1"

    await wait_until(executed, "the request is executed")


async def test_a_late_request_waits_for_the_test(
    proxy: FaultProxy, client: Redis, admin: Redis
) -> None:
    """The fault STALL_LATE holds a request until the test executes it."""
    proxy.plan = once(Fault.STALL_LATE, commands("INCRBY"))
    call = asyncio.ensure_future(client.incr(KEY))
    await wait_until(lambda: bool(proxy.seen), "the request is stalled")
    call.cancel()
    await wait_until(lambda: proxy.stalled == 1, "its caller has gone")
    assert await client.incr(KEY) == 1
    assert await proxy.execute_stalled() == [b":2\r\n"]


@pytest.mark.parametrize("fault", [Fault.BYTE_BY_BYTE, Fault.DELAY])
@pytest.mark.fault("F5")
async def test_slow_frames_arrive_whole(fault: Fault, proxy: FaultProxy, client: Redis) -> None:
    """Frames in single bytes, or delayed, are complete."""
    proxy.plan = once(fault, commands("ECHO"))
    assert await client.echo("slow and steady") == b"slow and steady"
    assert proxy.seen == [fault.name]


async def test_garbage_is_no_reply(proxy: FaultProxy, client: Redis, admin: Redis) -> None:
    """The request is executed, and its caller gets an error of the driver."""
    proxy.plan = once(Fault.GARBAGE, commands("INCRBY"))
    with pytest.raises(RedisError):
        await client.incr(KEY)
    assert await admin.get(KEY) == "1"


@pytest.mark.parametrize(
    "frame",
    [
        b"+OK\r\n",
        b"-ERR no\r\n",
        b":12\r\n",
        b"$-1\r\n",
        b"$0\r\n\r\n",
        b"$4\r\na\r\nb\r\n",
        b"*-1\r\n",
        b"*0\r\n",
        b"*2\r\n$1\r\na\r\n*1\r\n:3\r\n",
    ],
)
def test_a_frame_ends_where_it_ends_and_not_before(frame: bytes) -> None:
    """For each kind of RESP frame the parser finds its exact end."""
    assert [frame_end(frame[:size]) for size in range(1, len(frame))] == [None] * (len(frame) - 1)
    buffer = bytearray(frame + b":1\r\n")
    assert take_frame(buffer) == frame
    assert buffer == b":1\r\n"


def test_a_requests_parts_may_hold_any_bytes() -> None:
    """A part may contain newlines, or be empty."""
    assert parts_of(b"*3\r\n$3\r\nSET\r\n$2\r\n\r\n\r\n$0\r\n\r\n") == [b"SET", b"\r\n", b""]
