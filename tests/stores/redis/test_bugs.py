"""A bug is raised at once: only what a connection can raise is tried again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import uvloop
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import InvalidResponse

from murmur_streams.core.model.events import RunEvent, RunEventType
from murmur_streams.core.model.work import Beat, Claim, TargetRule, WorkerInfo
from murmur_streams.stores.bell import Bell
from murmur_streams.stores.redis import partition_calls
from murmur_streams.stores.redis.connection import lane
from murmur_streams.stores.redis.connection.failures import Fate, fate_of
from murmur_streams.stores.redis.connection.lane import Lane
from murmur_streams.stores.redis.connection.reply_protocol import (
    OnReply,
    ReplyProtocol,
    take_over,
)
from murmur_streams.stores.redis.server import Server
from murmur_streams.stores.redis.store import RedisRunStore
from tests.servers import Space
from tests.stores.faults.waiting import wait_until

Call = Callable[[RedisRunStore], Awaitable[object]]
AT_ONCE_SECONDS = 20
"""Far below the minute for which a write is tried again, far above what any call takes."""
CLAIM = Claim("there", "t", 1, "token", 1, None)
INFO = WorkerInfo(
    id="w", host="h", pid=1, version="0", python="3", targets=["t"],
    concurrency=1, started_ms=1, state="working", held=0, runs=[],
)  # fmt: skip


def broken_take_over(connection: Any, on_reply: OnReply) -> tuple[Any, ReplyProtocol] | None:
    """``take_over``, with the bugs of ``Buggy`` in what the lane writes and reads."""

    def received(reply: Any) -> None:
        if Buggy.broken == "read":
            _takes_nothing(reply)  # pyright: ignore[reportCallIssue]
        on_reply(7 if Buggy.broken == "reply" else reply)

    taken = take_over(connection, received)
    return None if taken is None else (BuggyTransport(taken[0]), taken[1])


class BuggyTransport:
    """A transport of a lane; ``write`` may have a bug."""

    def __init__(self, transport: Any) -> None:
        self._transport = transport

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        if Buggy.broken == "send":
            _takes_nothing(data)  # pyright: ignore[reportCallIssue]
        self._transport.write(data)


class Buggy:
    """A connection class of the caller's, one method of which has a bug."""

    broken: ClassVar[str] = ""
    """The method that is broken now."""

    async def send_packed_command(self, command: Any, *given: Any, **options: Any) -> None:
        if self.broken == "send":
            _takes_nothing(command)  # pyright: ignore[reportCallIssue]
        await super().send_packed_command(command, *given, **options)  # type: ignore[misc]

    async def read_response(self, *given: Any, **options: Any) -> Any:
        reply = await super().read_response(*given, **options)  # type: ignore[misc]
        if self.broken == "read":
            _takes_nothing(reply)  # pyright: ignore[reportCallIssue]
        return reply

    async def _connect(self) -> None:
        if self.broken == "connect":
            _takes_nothing(self)  # pyright: ignore[reportCallIssue]
        await super()._connect()  # type: ignore[misc]


def _takes_nothing() -> None:
    """Called with an argument, as one half of a program that the other half has outgrown."""


@pytest.fixture
async def store(space: Space, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[RedisRunStore]:
    """A store that has run ``there``, over a client whose connections may get a bug."""
    monkeypatch.setattr(Buggy, "broken", "")
    monkeypatch.setattr(lane, "take_over", broken_take_over)
    async with Redis.from_url(space.server_url) as client:
        pool: Any = client.connection_pool
        pool.connection_class = type("Theirs", (Buggy, pool.connection_class), {})
        async with RedisRunStore(client=client, key_prefix=space.prefix) as store:
            await store.submit("there", "t")
            yield store
            Buggy.broken = ""


async def follow(store: RedisRunStore) -> None:
    async for _ in store.stream("there"):
        pass


async def follow_the_feed(store: RedisRunStore) -> None:
    async for _ in store.feed():
        pass


def write(store: RedisRunStore) -> Awaitable[object]:
    event = RunEvent(type=RunEventType.LOG, run_id="there", data="x")
    return store.append("there", event)


CALLS: dict[str, Call] = {
    "write": write,
    "read": lambda store: store.snapshot("there"),
    "listing": lambda store: store.list_runs(),
    "sweep": lambda store: store.sweep(),
    "claim": lambda store: store.queue(15).claim("w", [TargetRule("t")], 1),
    "heartbeat": lambda store: store.queue(15).heartbeat([Beat(CLAIM)]),
    "tend": lambda store: store.queue(15).tend("w", ["t"], 1),
    "wait": lambda store: store.queue(15).wait(["t"], 0.01),
    "wait_and_claim": lambda store: store.queue(15).wait_and_claim(
        "w", [TargetRule("t")], 1, seconds=0.01, bell=Bell()
    ),
    "control": lambda store: store.queue(15).control("w", "", 0.01),
    "registration": lambda store: store.workers().beat(INFO),
    "stream": follow,
    "feed": follow_the_feed,
}


BROKEN = ("send", "read", "connect")
# A write uses the driver's connection only to connect; the next test is about the rest of its way.
CASES = [(call, how) for call in CALLS for how in BROKEN if call != "write" or how == "connect"]


@pytest.mark.parametrize(("call", "broken"), CASES)
async def test_a_bug_is_raised_at_once(
    store: RedisRunStore,
    space: Space,
    monkeypatch: pytest.MonkeyPatch,
    call: str,
    broken: str,
) -> None:
    """A TypeError of the client is raised as it is, and no call waits for it to pass."""
    if call.startswith("wait"):
        await store.queue(15).prepare(["t"])
    if broken == "connect":
        # Connections that are there hide it; those of the pool would be found broken one by one.
        for connection in (
            *store._server.nodes.all[0].commands._idle,
            *store._server.nodes.all[0].blocking._idle,
        ):
            await connection.disconnect()
        space.admin.client_kill_filter(_type="normal", skipme=True)
    pauses: list[int] = []

    async def recover(self: Server, attempt: int) -> None:
        pauses.append(attempt)

    monkeypatch.setattr(Server, "recover", recover)
    Buggy.broken = broken
    async with asyncio.timeout(AT_ONCE_SECONDS):
        with pytest.raises(TypeError, match="_takes_nothing"):
            await CALLS[call](store)
    # A connection that was cut before it is one failure, and is tried again once.
    assert len(pauses) <= (1 if broken == "connect" else 0)


@pytest.mark.parametrize("broken", ["write", "gets"])
async def test_a_bug_on_the_way_of_a_write_is_raised_at_once(
    store: RedisRunStore, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    """A TypeError where a write's bytes leave, or where those of its reply arrive."""
    await write(store)
    [lane] = store._writer._lanes._lanes.values()

    def takes_nothing(*_: object) -> None:
        raise TypeError("_takes_nothing")

    if broken == "write":
        lane._transport = SimpleNamespace(
            write=takes_nothing,
            is_closing=lambda: False,
            get_extra_info=lane._transport.get_extra_info,
        )
    else:
        protocol: Any = lane._protocol
        protocol._reader = SimpleNamespace(feed=lambda _: None, gets=takes_nothing)
    async with asyncio.timeout(AT_ONCE_SECONDS):
        with pytest.raises(TypeError, match="_takes_nothing"):
            await write(store)
    await write(store)


def _are_blocked(space: Space) -> int:
    return space.admin.info("clients")["blocked_clients"]


async def test_open_subscribers_learn_of_a_bug(store: RedisRunStore, space: Space) -> None:
    """A bug that comes while a stream and a feed are open ends both."""
    readers = [asyncio.create_task(follow(store)), asyncio.create_task(follow_the_feed(store))]
    await wait_until(
        lambda: store._tails.followers == 1 and _are_blocked(space) == 2, "both wait for news"
    )
    Buggy.broken = "read"
    space.admin.client_kill_filter(_type="normal", skipme=True)
    async with asyncio.timeout(AT_ONCE_SECONDS):
        for reader in readers:
            with pytest.raises(TypeError, match="_takes_nothing"):
                await reader


async def test_an_answer_of_no_known_form_settles(
    store: RedisRunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All writes of a call whose reply cannot be read get the error; the next ones are taken."""
    with monkeypatch.context() as patch:
        read = partition_calls.read_reply
        patch.setattr(partition_calls, "read_reply", lambda call, _: read(call, 7))
        async with asyncio.timeout(AT_ONCE_SECONDS):
            ends = await asyncio.gather(*(write(store) for _ in range(3)), return_exceptions=True)
    assert [type(end) for end in ends] == [TypeError] * 3
    async with asyncio.timeout(AT_ONCE_SECONDS):
        await write(store)


class Chatty:
    """A connection whose server speaks when the test wants it to."""

    _writer = None

    def __init__(self) -> None:
        self.replies: asyncio.Queue[bytes] = asyncio.Queue()

    async def send_packed_command(self, command: object) -> None:
        pass

    async def read_response(self) -> bytes:
        return await self.replies.get()

    async def disconnect(self, nowait: bool) -> None:
        pass


async def test_a_reply_that_no_call_asked_for() -> None:
    """It breaks the connection, like any other reply that is not of the protocol."""
    connection = Chatty()

    async def connect(again: bool) -> Chatty:
        return connection

    chatting = Lane(connect, deadline_seconds=60)
    asked = chatting.call("PING")
    connection.replies.put_nowait(b"PONG")
    assert await asked == b"PONG"
    connection.replies.put_nowait(b"nobody asked for this")
    with pytest.raises(InvalidResponse) as raised:
        await chatting.call("PING")
    assert fate_of(raised.value) is Fate.UNKNOWN


async def test_a_call_without_a_reply_breaks_the_lane_at_its_deadline() -> None:
    """The caller gets a TimeoutError: the server may have executed the call."""
    loop = asyncio.get_running_loop()

    async def connect(again: bool) -> Chatty:
        return Chatty()

    silent = Lane(connect, deadline_seconds=0.2)
    began = loop.time()
    with pytest.raises(TimeoutError) as raised:
        await silent.call("PING")
    assert loop.time() - began >= 0.2
    assert fate_of(raised.value) is Fate.UNKNOWN


class LetGo(asyncio.Transport):
    """A transport as CPython 3.12.1 leaves it when the peer has closed: without its loop."""

    _loop: Any = None

    def __init__(self, *, closing: bool) -> None:
        super().__init__()
        self._closing = closing

    def is_closing(self) -> bool:
        return self._closing

    def writelines(self, list_of_data: Any) -> None:
        self._loop._add_writer(1, list_of_data)


@pytest.mark.parametrize("closing", [True, False])
def test_asyncios_closed_transport_is_a_broken_connection(closing: bool) -> None:
    """The AttributeError of a transport that is closing is the peer's; of any other it is a bug."""
    with pytest.raises(AttributeError) as raised:
        LetGo(closing=closing).writelines([b"x"])
    assert fate_of(raised.value) is (Fate.UNKNOWN if closing else Fate.BUG)


def test_uvloops_closed_transport_is_a_broken_connection() -> None:
    """uvloop raises a RuntimeError for a write to a connection that was closed."""

    async def write_after_the_end() -> None:
        server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
        async with server:
            _, writer = await asyncio.open_connection(*server.sockets[0].getsockname()[:2])
            writer.transport.abort()
            while True:
                await asyncio.sleep(0)
                writer.write(b"x")

    with (
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
        pytest.raises(RuntimeError, match="is closed") as raised,
    ):
        runner.run(write_after_the_end())
    assert fate_of(raised.value) is Fate.UNKNOWN


@pytest.mark.parametrize(
    "error", [TypeError("x"), AttributeError("x"), RuntimeError("x"), KeyError("x"), ValueError()]
)
def test_other_errors_are_bugs(error: Exception) -> None:
    """Nothing but a closed transport makes one of these a broken connection."""
    with pytest.raises(type(error)) as raised:
        raise error
    assert fate_of(raised.value) is Fate.BUG


@pytest.mark.parametrize("error", [RedisConnectionError(), OSError(), TimeoutError()])
def test_what_a_connection_raises_is_tried_again(error: Exception) -> None:
    """Of these the outcome is unknown, and another try may learn it."""
    assert fate_of(error) is Fate.UNKNOWN
