"""The response alone, in the hands of a server that does what the test says."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from murmur_streams import Fleet
from murmur_streams.core.model.errors import StoreUnavailableError
from murmur_streams.server import ServerOptions
from murmur_streams.server.auth import ANYONE
from murmur_streams.server.pod import Pod
from murmur_streams.server.stream_response import ABORT, EventStream
from murmur_streams.wire.problems import ProblemError
from murmur_streams.wire.sse import HEARTBEAT
from tests.stores.faults.waiting import wait_until

FAST = 0.02


class ChosenMessages:
    """Messages of the test's choice."""

    def __init__(self, *messages: bytes, then: BaseException | None = None) -> None:
        self.waiting = list(messages)
        self.then = then
        self.closed = 0
        self.more = asyncio.Event()

    def __aiter__(self) -> ChosenMessages:
        return self

    async def __anext__(self) -> bytes:
        if self.waiting:
            return self.waiting.pop(0)
        if self.then is not None:
            raise self.then
        await self.more.wait()
        raise StopAsyncIteration

    async def aclose(self) -> None:
        self.closed += 1


class Server:
    """An ASGI server that records what it is sent; ``on_send`` may wait or raise."""

    def __init__(self, **options: Any) -> None:
        self.pod = Pod(Fleet("redis://localhost:1"), ServerOptions(**options))
        self.sent: list[dict[str, Any]] = []
        self.gone = asyncio.Event()
        self.on_send: Callable[[], Awaitable[None]] | None = None
        self.aborted = 0
        self.collisions = 0
        """How often it was to send two at a time."""
        self._sending = False

    async def answer(self, messages: ChosenMessages | None) -> None:
        async def source() -> ChosenMessages | None:
            return messages

        scope = {"type": "http", "method": "GET", "extensions": {ABORT: self._abort}}
        await EventStream(self.pod, ANYONE, source)(scope, self._receive, self._send)

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent)

    @property
    def is_complete(self) -> bool:
        return not self.sent[-1].get("more_body", False) and len(self.sent) > 1

    async def _receive(self) -> dict[str, Any]:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        self.collisions += self._sending
        self._sending = True
        try:
            if self.on_send is not None:
                await self.on_send()
            self.sent.append(message)
        finally:
            self._sending = False

    def _abort(self) -> None:
        self.aborted += 1
        self.gone.set()


async def never() -> None:
    await asyncio.Event().wait()


async def refuse() -> None:
    raise ConnectionResetError("gone")


async def test_nothing_more_is_204() -> None:
    """A source without messages gives 204."""
    server = Server()
    await server.answer(None)
    assert server.sent[0]["status"] == 204
    assert not server.pod.streams


async def test_the_answer_is_the_messages_and_ends_with_them() -> None:
    """The bytes are those of the messages."""
    server, messages = Server(), ChosenMessages(b"a", b"b", then=StopAsyncIteration())
    await server.answer(messages)
    assert server.sent[0]["status"] == 200
    assert server.body.endswith(b"ab")
    assert server.is_complete
    assert (messages.closed, server.aborted) == (1, 0)
    assert not server.pod.streams


async def test_a_server_that_refuses_to_send_ends_the_stream() -> None:
    """An OSError of the server releases everything."""
    server, messages = Server(), ChosenMessages(b"a")
    answering = asyncio.create_task(server.answer(messages))
    await wait_until(lambda: server.body.endswith(b"a"), "the message is sent")
    server.on_send = refuse
    messages.waiting.append(b"b")
    messages.then = StopAsyncIteration()
    messages.more.set()
    await answering
    assert messages.closed == 1
    assert not server.pod.streams


async def test_a_heartbeat_that_is_refused_ends_the_stream() -> None:
    """The source is closed."""
    server, messages = Server(heartbeat_seconds=FAST), ChosenMessages()
    answering = asyncio.create_task(server.answer(messages))
    await wait_until(lambda: server.body.endswith(HEARTBEAT), "there is a heartbeat")
    server.on_send = refuse
    await answering
    assert messages.closed == 1


async def test_no_heartbeat_is_sent_while_a_message_is_under_way() -> None:
    """Two sends never overlap."""
    server, messages = Server(heartbeat_seconds=FAST), ChosenMessages()
    for _ in range(20):
        messages.waiting.append(b"a")

    async def slowly() -> None:
        await asyncio.sleep(FAST * 1.2)

    server.on_send = slowly
    messages.then = StopAsyncIteration()
    await server.answer(messages)
    assert (server.body.count(b"a"), server.collisions) == (20, 0)


@pytest.mark.parametrize("first", [[], [b"a"]])
async def test_a_client_that_takes_nothing_is_cut_off(first: list[bytes]) -> None:
    """After send_seconds the connection is aborted."""
    server, messages = Server(send_seconds=FAST, heartbeat_seconds=FAST), ChosenMessages(*first)
    answering = asyncio.create_task(server.answer(messages))
    await wait_until(lambda: len(server.sent) >= 2 + len(first), "it has begun")
    server.on_send = never
    await answering
    assert (server.aborted, messages.closed) == (1, 1)
    assert not server.is_complete
    assert not server.pod.streams


async def test_a_client_that_takes_not_even_the_first_bytes_is_cut_off() -> None:
    """It is cut off although the head was not sent yet."""
    server, messages = Server(send_seconds=FAST), ChosenMessages(b"a")
    server.on_send = never
    await server.answer(messages)
    assert (server.sent, server.aborted, messages.closed) == ([], 1, 1)


async def test_a_client_that_goes_is_sent_nothing_more() -> None:
    """The source is closed without an abort."""
    server, messages = Server(), ChosenMessages(b"a")
    answering = asyncio.create_task(server.answer(messages))
    await wait_until(lambda: server.body.endswith(b"a"), "the message is sent")
    server.gone.set()
    await answering
    assert not server.is_complete
    assert (server.aborted, messages.closed) == (0, 1)


async def test_a_pod_that_drains_while_a_stream_is_opened_lets_it_go() -> None:
    """The stream gets a longer retry time and no message."""
    server, messages = Server(retry_ms=1_000), ChosenMessages(b"a")

    async def source() -> ChosenMessages:
        server.pod.drain.set()
        return messages

    scope = {"type": "http", "method": "GET"}
    await EventStream(server.pod, ANYONE, source)(scope, server._receive, server._send)
    assert server.body.count(b"retry: ") == 2
    assert b"a" not in server.body
    assert server.is_complete
    assert messages.closed == 1
    with pytest.raises(ProblemError):
        await server.answer(messages)


async def test_a_failing_store_ends_the_stream_with_a_retry() -> None:
    """The last line has the time after which the client reconnects."""
    server, messages = Server(), ChosenMessages(b"a", then=StoreUnavailableError("no server"))
    await server.answer(messages)
    assert server.body.count(b"retry: ") == 2
    assert server.is_complete


async def test_a_mistake_of_ours_is_raised_and_everything_released() -> None:
    """The source is closed and no stream is counted."""
    server, messages = Server(), ChosenMessages(b"a", then=ValueError("mistake"))
    with pytest.raises(ValueError, match="mistake"):
        await server.answer(messages)
    assert messages.closed == 1
    assert not server.pod.streams


async def test_a_request_that_is_cancelled_releases_everything() -> None:
    """The cancellation goes on to the server."""
    server, messages = Server(), ChosenMessages(b"a")
    answering = asyncio.create_task(server.answer(messages))
    await wait_until(lambda: server.body.endswith(b"a"), "the message is sent")
    answering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await answering
    assert messages.closed == 1
    assert not server.pod.streams
