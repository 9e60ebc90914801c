"""The shell that sends the requests of calls and streams with httpx.

``Shell`` is written once, with coroutines. Over ``BlockingHttp`` its coroutines never wait for an
event loop, so that ``run_now`` takes them to their end at once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import httpx

from murmur_streams.client.answers import Answer, LostError, UnreadableAnswerError, read
from murmur_streams.client.endpoint import CONNECTION_FAULTS, Endpoint
from murmur_streams.client.requests import EVENT_STREAM, Ask, Retrying

T = TypeVar("T")

_OPENED, _NO_SUCCESS = 200, 300


class AsyncHttp:
    """httpx's asynchronous client."""

    def __init__(self, endpoint: Endpoint, transport: httpx.AsyncBaseTransport | None) -> None:
        self.client = endpoint.client(httpx.AsyncClient, transport)

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

    def __init__(self, endpoint: Endpoint, transport: httpx.BaseTransport | None) -> None:
        self.client = endpoint.client(httpx.Client, transport)

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


def run_now(work: Coroutine[Any, Any, T]) -> T:
    """The value of a coroutine that does not wait for an event loop."""
    try:
        work.send(None)
    except StopIteration as end:
        return end.value
    work.close()
    raise AssertionError("a blocking call waited for an event loop")


Http = AsyncHttp | BlockingHttp


class Shell:
    """One client's connections to one server."""

    def __init__(self, endpoint: Endpoint, http: Http) -> None:
        self.url = endpoint.url
        self.patience = endpoint.patience
        self._endpoint = endpoint
        self._http = http
        self.close, self.sleep = http.close, http.sleep

    async def send(self, ask: Ask) -> Answer:
        """Send a request once; LostError when its answer does not arrive."""
        connection = self.connection()
        try:
            return await connection.open(ask, may_stream=False)
        finally:
            await connection.close()

    def connection(self) -> Connection:
        """The connection of one stream, which is opened later."""
        return Connection(self._http, self._endpoint)

    async def answered(
        self,
        ask: Ask,
        retrying: Retrying,
        send: Callable[[Ask], Awaitable[Answer]] | None = None,
        *,
        also_failures: bool = False,
    ) -> Answer:
        """Send the request until another try would not change the answer.

        Raises:
            StoreUnavailableError: no connection, for as long as was tried.
            OutcomeUnknownError: no answer, to a request that may have been done.
            MurmurError: the exception for an answer other than success.
        """
        while True:
            try:
                answer = await (send or self.send)(ask)
            except LostError as lost:
                wait = retrying.wait_after_loss(ask, lost)
            else:
                if answer.status < _NO_SUCCESS:
                    return answer
                wait = retrying.wait_after_answer(ask, answer, also_failures=also_failures)
            await self.sleep(wait)

    async def read(self, ask: Ask, reader: Callable[[Any], T], until: float | None = None) -> T:
        """The value of the answer's JSON; errors as ``answered``, and UnreadableAnswerError."""
        return read(await self.answered(ask, Retrying(self.patience, until)), reader)


class Connection:
    """The connection of one stream, or of one request."""

    def __init__(self, http: Http, endpoint: Endpoint) -> None:
        self._http = http
        self._endpoint = endpoint
        self._response: httpx.Response | None = None
        self._chunks: AsyncIterator[bytes] | None = None

    async def open(self, ask: Ask, *, may_stream: bool = True) -> Answer:
        """Send a request; the answer has a body only when it is not a stream."""
        await self.close()
        request = self._endpoint.request(self._http.client, ask, is_stream=may_stream)
        try:
            self._response = await self._http.send(request)
            _check_encoding(self._response)
            kind = self._response.headers.get("content-type", "").lower()
            is_opened = self._response.status_code == _OPENED and kind.startswith(EVENT_STREAM)
            if may_stream and is_opened:
                self._chunks = self._http.chunks(self._response)
                return _answer_of(self._response)
            answer = _answer_of(self._response, await self._whole(self._response))
        except CONNECTION_FAULTS as error:
            raise self._endpoint.lost(error) from None
        await self.close()
        return answer

    async def read(self) -> bytes:
        """The next bytes of the open stream; none at its end. LostError when they are cut off."""
        try:
            return b"" if self._chunks is None else await anext(self._chunks, b"")
        except CONNECTION_FAULTS as error:
            raise self._endpoint.lost(error) from None

    async def close(self) -> None:
        """Release the connection, if there is one."""
        response, self._response, self._chunks = self._response, None, None
        if response is not None:
            await self._http.end(response)

    async def _whole(self, response: httpx.Response) -> bytes:
        most, body = self._endpoint.patience.max_response_bytes, bytearray()
        announced = response.headers.get("content-length", "")
        if announced.isascii() and announced.isdigit():
            _check_size(int(announced[:18]), most)
        async for chunk in self._http.chunks(response):
            _check_size(len(body) + len(chunk), most)
            body += chunk
        return bytes(body)


def _answer_of(response: httpx.Response, body: bytes = b"") -> Answer:
    """The answer in a response of httpx."""
    # httpx lists the names of headers in lower case.
    return Answer(response.status_code, dict(response.headers.items()), body)


def _check_size(size: int, most: int) -> None:
    """Refuse the body of an answer that is too large."""
    if size > most:
        raise UnreadableAnswerError(f"the answer is over {most:,} bytes (max_response_bytes)")


def _check_encoding(response: httpx.Response) -> None:
    """Refuse a compressed body: the request asked for a plain one."""
    coding = response.headers.get("content-encoding", "identity").strip().lower()
    if coding != "identity":
        raise UnreadableAnswerError(
            f"the answer is packed as {ascii(coding)[:40]}, which was not asked for",
            response.status_code,
        )
