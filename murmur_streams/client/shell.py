"""The shell that executes the steps of calls and streams with httpx.

``Shell`` is written once, with coroutines. Over ``BlockingHttp`` its coroutines never wait for an
event loop, so that ``run_now`` takes them to their end at once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from functools import partial
from typing import Any, Protocol, TypeVar

import httpx

from murmur_streams.client.environment import connected
from murmur_streams.client.server import (
    CONNECTION_FAULTS,
    LIMITS,
    Body,
    Server,
    answer_of,
    check_encoding,
    is_stream,
)
from murmur_streams.client.steps import (
    Answer,
    Ask,
    Close,
    Deliver,
    LostError,
    Open,
    Read,
    Steps,
    StreamSteps,
    Wait,
    resume,
)

C = TypeVar("C", httpx.Client, httpx.AsyncClient)
T = TypeVar("T")


class Http(Protocol):
    """The part of httpx that a shell uses."""

    @property
    def client(self) -> httpx.Client | httpx.AsyncClient:
        """The client."""
        ...

    async def send(self, request: httpx.Request) -> httpx.Response:
        """The answer to a request, without its body."""
        ...

    def chunks(self, response: httpx.Response) -> AsyncIterator[bytes]:
        """The body as it comes."""
        ...

    async def end(self, response: httpx.Response) -> None:
        """Release the connection of an answer."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Let time pass."""
        ...

    async def close(self) -> None:
        """Close all connections."""
        ...


class AsyncHttp:
    """httpx's asynchronous client."""

    def __init__(self, server: Server, transport: httpx.AsyncBaseTransport | None) -> None:
        self.client = _client(httpx.AsyncClient, server, transport)

    async def send(self, request: httpx.Request) -> httpx.Response:
        return await self.client.send(request, stream=True)

    def chunks(self, response: httpx.Response) -> AsyncIterator[bytes]:
        return response.aiter_bytes()

    async def end(self, response: httpx.Response) -> None:
        await response.aclose()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def close(self) -> None:
        await self.client.aclose()


class BlockingHttp:
    """httpx's blocking client: its coroutines block, and end at their first step."""

    def __init__(self, server: Server, transport: httpx.BaseTransport | None) -> None:
        self.client = _client(httpx.Client, server, transport)

    async def send(self, request: httpx.Request) -> httpx.Response:
        return self.client.send(request, stream=True)

    async def chunks(self, response: httpx.Response) -> AsyncIterator[bytes]:
        for chunk in response.iter_bytes():
            yield chunk

    async def end(self, response: httpx.Response) -> None:
        response.close()

    async def sleep(self, seconds: float) -> None:
        time.sleep(seconds)  # noqa: ASYNC251  # it has no event loop

    async def close(self) -> None:
        self.client.close()


def _client(kind: type[C], server: Server, transport: Any) -> C:
    make = partial(
        kind,
        base_url=server.url,
        headers=server.headers,
        transport=transport,
        limits=LIMITS,
        trust_env=server.trust_env,
    )
    return connected(make, uses_proxies=server.trust_env and transport is None)


def run_now(work: Coroutine[Any, Any, T]) -> T:
    """The value of a coroutine that does not wait for an event loop."""
    try:
        work.send(None)
    except StopIteration as end:
        return end.value
    work.close()
    raise AssertionError("a blocking call waited for an event loop")


class Shell:
    """One client's connections to one server."""

    def __init__(self, server: Server, http: Http) -> None:
        self.server = server
        self._http = http

    async def close(self) -> None:
        """Close the connections."""
        await self._http.close()

    async def call(self, steps: Steps[T]) -> T:
        """Take a call's steps; its value."""
        outcome: Answer | LostError | None = None
        while True:
            try:
                step = resume(steps, outcome)
            except StopIteration as end:
                return end.value
            outcome = None
            if isinstance(step, Wait):
                await self._http.sleep(step.seconds)
            else:
                outcome = await self._send(step)

    async def follow(self, steps: StreamSteps[T]) -> AsyncGenerator[T]:
        """Take a stream's steps; its values."""
        connection = _StreamConnection(self._http, self.server)
        outcome: Answer | LostError | bytes | None = None
        try:
            while True:
                try:
                    step = resume(steps, outcome)
                except StopIteration:
                    return
                outcome = None
                if isinstance(step, Deliver):
                    yield step.value
                elif isinstance(step, Wait):
                    await self._http.sleep(step.seconds)
                else:
                    outcome = await connection.take(step)
        finally:
            steps.close()
            await connection.close()

    async def _send(self, ask: Ask) -> Answer | LostError:
        try:
            response = await self._http.send(self.server.request(self._http.client, ask))
            return await _whole(self._http, response, self.server)
        except CONNECTION_FAULTS as error:
            return self.server.lost(error)


class _StreamConnection:
    """The connection of one stream."""

    def __init__(self, http: Http, server: Server) -> None:
        self._http = http
        self._server = server
        self._response: httpx.Response | None = None
        self._chunks: AsyncIterator[bytes] | None = None

    async def take(self, step: Open | Read | Close) -> Answer | LostError | bytes | None:
        """Take one step."""
        try:
            if isinstance(step, Open):
                return await self._open(step.ask)
            if isinstance(step, Read) and self._chunks is not None:
                return await anext(self._chunks, b"")
        except CONNECTION_FAULTS as error:
            return self._server.lost(error)
        await self.close()
        return None

    async def close(self) -> None:
        """Release the connection, if there is one."""
        response, self._response, self._chunks = self._response, None, None
        if response is not None:
            await self._http.end(response)

    async def _open(self, ask: Ask) -> Answer:
        await self.close()
        request = self._server.request(self._http.client, ask, is_stream=True)
        response = await self._http.send(request)
        if not is_stream(response):
            return await _whole(self._http, response, self._server)
        self._response = response
        check_encoding(response)
        self._chunks = self._http.chunks(response)
        return answer_of(response)


async def _whole(http: Http, response: httpx.Response, server: Server) -> Answer:
    try:
        check_encoding(response)
        body = Body(response, server.patience)
        async for chunk in http.chunks(response):
            body.add(chunk)
        return answer_of(response, body.whole)
    finally:
        await http.end(response)
