"""Takes the steps of calls and streams with httpx's asynchronous client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from functools import partial
from typing import TypeVar

import httpx

from murmur_streams.client.environment import connected
from murmur_streams.client.steps import (
    Answer,
    Ask,
    Close,
    LostError,
    Open,
    Read,
    Steps,
    StreamSteps,
    Tell,
    Wait,
    resume,
)
from murmur_streams.client.wire import (
    CONNECTION_FAULTS,
    LIMITS,
    Body,
    Server,
    answer_of,
    check_encoding,
    is_stream,
)

T = TypeVar("T")


class AsyncShell:
    """One client's connections to one server."""

    def __init__(self, server: Server, transport: httpx.AsyncBaseTransport | None) -> None:
        self.server = server
        make = partial(
            httpx.AsyncClient,
            base_url=server.url,
            headers=server.headers,
            transport=transport,
            limits=LIMITS,
            trust_env=server.trust_env,
        )
        self._http = connected(make, uses_proxies=server.trust_env and transport is None)

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

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
                await asyncio.sleep(step.seconds)
            else:
                outcome = await self._send(step)

    async def follow(self, steps: StreamSteps[T]) -> AsyncGenerator[T]:
        """Take a stream's steps; its values."""
        line = _Line(self._http, self.server)
        outcome: Answer | LostError | bytes | None = None
        try:
            while True:
                try:
                    step = resume(steps, outcome)
                except StopIteration:
                    return
                outcome = None
                if isinstance(step, Tell):
                    yield step.value
                elif isinstance(step, Wait):
                    await asyncio.sleep(step.seconds)
                else:
                    outcome = await line.do(step)
        finally:
            steps.close()
            await line.close()

    async def _send(self, ask: Ask) -> Answer | LostError:
        try:
            response = await self._http.send(self.server.request(self._http, ask), stream=True)
            return await _whole(response, self.server)
        except CONNECTION_FAULTS as error:
            return self.server.lost(error)


class _Line:
    """The connection of one follower."""

    def __init__(self, http: httpx.AsyncClient, server: Server) -> None:
        self._http = http
        self._server = server
        self._response: httpx.Response | None = None
        self._chunks: AsyncIterator[bytes] | None = None

    async def do(self, step: Open | Read | Close) -> Answer | LostError | bytes | None:
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
        """Let go of the connection, if there is one."""
        response, self._response, self._chunks = self._response, None, None
        if response is not None:
            await response.aclose()

    async def _open(self, ask: Ask) -> Answer:
        await self.close()
        request = self._server.request(self._http, ask, is_stream=True)
        response = await self._http.send(request, stream=True)
        if not is_stream(response):
            return await _whole(response, self._server)
        self._response = response
        check_encoding(response)
        self._chunks = response.aiter_bytes()
        return answer_of(response)


async def _whole(response: httpx.Response, server: Server) -> Answer:
    try:
        check_encoding(response)
        body = Body(response, server.patience)
        async for chunk in response.aiter_bytes():
            body.add(chunk)
        return answer_of(response, body.whole)
    finally:
        await response.aclose()
