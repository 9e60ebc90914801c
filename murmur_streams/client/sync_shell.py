"""Takes the steps of calls and streams with httpx's blocking client."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
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


class SyncShell:
    """One client's connections to one server."""

    def __init__(self, server: Server, transport: httpx.BaseTransport | None) -> None:
        self.server = server
        make = partial(
            httpx.Client,
            base_url=server.url,
            headers=server.headers,
            transport=transport,
            limits=LIMITS,
            trust_env=server.trust_env,
        )
        self._http = connected(make, uses_proxies=server.trust_env and transport is None)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def call(self, steps: Steps[T]) -> T:
        """Take a call's steps; its value."""
        outcome: Answer | LostError | None = None
        while True:
            try:
                step = resume(steps, outcome)
            except StopIteration as end:
                return end.value
            outcome = None
            if isinstance(step, Wait):
                time.sleep(step.seconds)
            else:
                outcome = self._send(step)

    def follow(self, steps: StreamSteps[T]) -> Generator[T]:
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
                    time.sleep(step.seconds)
                else:
                    outcome = line.do(step)
        finally:
            steps.close()
            line.close()

    def _send(self, ask: Ask) -> Answer | LostError:
        try:
            response = self._http.send(self.server.request(self._http, ask), stream=True)
            return _whole(response, self.server)
        except CONNECTION_FAULTS as error:
            return self.server.lost(error)


class _Line:
    """The connection of one follower."""

    def __init__(self, http: httpx.Client, server: Server) -> None:
        self._http = http
        self._server = server
        self._response: httpx.Response | None = None
        self._chunks: Iterator[bytes] | None = None

    def do(self, step: Open | Read | Close) -> Answer | LostError | bytes | None:
        """Take one step."""
        try:
            if isinstance(step, Open):
                return self._open(step.ask)
            if isinstance(step, Read) and self._chunks is not None:
                return next(self._chunks, b"")
        except CONNECTION_FAULTS as error:
            return self._server.lost(error)
        self.close()
        return None

    def close(self) -> None:
        """Let go of the connection, if there is one."""
        response, self._response, self._chunks = self._response, None, None
        if response is not None:
            response.close()

    def _open(self, ask: Ask) -> Answer:
        self.close()
        request = self._server.request(self._http, ask, is_stream=True)
        response = self._http.send(request, stream=True)
        if not is_stream(response):
            return _whole(response, self._server)
        self._response = response
        check_encoding(response)
        self._chunks = response.iter_bytes()
        return answer_of(response)


def _whole(response: httpx.Response, server: Server) -> Answer:
    try:
        check_encoding(response)
        body = Body(response, server.patience)
        for chunk in response.iter_bytes():
            body.add(chunk)
        return answer_of(response, body.whole)
    finally:
        response.close()
