"""Executes calls and streams with a clock and a server that the test makes up."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Coroutine, Iterable, Iterator
from typing import Any, cast

from murmur_streams.client.answers import Answer, LostError
from murmur_streams.client.async_client import AsyncClient, AsyncHandle
from murmur_streams.client.requests import Ask, Patience
from murmur_streams.client.shell import Connection, Shell, run_now

Outcome = Answer | LostError | bytes
HEAD = Answer(200, {"content-type": "text/event-stream; charset=utf-8"})
GONE = LostError("cut", may_have_arrived=True)
NEVER_SENT = LostError("refused", may_have_arrived=False)


class Play(Shell):
    """A shell whose requests and reads meet the outcomes of a test, by a clock of its own.

    Its dice always show the same.
    """

    def __init__(self, **options: Any) -> None:
        self.patience = Patience(now=lambda: self.now, draw=lambda: 0.0, **options)
        self.now = 0.0
        self.asks: list[Ask] = []
        self.waits: list[float] = []
        self.delivered: list[Any] = []
        self.closed = 0
        self.client = AsyncClient.over(self)
        self.handle = AsyncHandle("r-1", self)
        self._outcomes: Iterator[Outcome] = iter(())

    def act(self, work: Coroutine[Any, Any, Any], outcomes: Iterable[Outcome]) -> Any:
        """Do the work; each request and each read meets the next outcome, and all are met."""
        self._outcomes = iter(outcomes)
        found = run_now(work)
        assert next(self._outcomes, None) is None, "the work ended before its outcomes"
        return found

    def follow(self, values: AsyncGenerator[Any], outcomes: Iterable[Outcome]) -> None:
        """The same for a stream, to its end."""
        self.act(self._take_all(values), outcomes)

    def drive(self, values: AsyncGenerator[Any], outcomes: Iterator[Outcome]) -> None:
        """Follow a stream to its end, whatever is left of the outcomes."""
        self._outcomes = outcomes
        run_now(self._take_all(values))

    async def _take_all(self, values: AsyncGenerator[Any]) -> None:
        async for value in values:
            self.delivered.append(value)

    def connection(self) -> Connection:
        return cast("Connection", _PlayedConnection(self))

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.waits.append(seconds)

    async def send(self, ask: Ask) -> Answer:
        self.asks.append(ask)
        answer = self.meet(ask)
        assert isinstance(answer, Answer)
        return answer

    def meet(self, step: object) -> Answer | bytes:
        """The next outcome, which is raised when it is an exception."""
        outcome = next(self._outcomes, None)
        assert outcome is not None, f"nothing was expected any more, but: {step}"
        if isinstance(outcome, LostError):
            raise outcome
        return outcome


class _PlayedConnection:
    """The connection of a stream."""

    def __init__(self, play: Play) -> None:
        self._play = play
        self._is_open = False

    async def open(self, ask: Ask) -> Answer:
        assert not self._is_open, "the connection before was not closed"
        answer = await self._play.send(ask)
        self._is_open = answer.status == HEAD.status
        return answer

    async def read(self) -> bytes:
        chunk = self._play.meet("read")
        assert isinstance(chunk, bytes)
        return chunk

    async def close(self) -> None:
        self._play.closed += self._is_open
        self._is_open = False


def answer(status: int, document: object = None, **headers: str) -> Answer:
    """An answer with a JSON body."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status, sent, b"" if document is None else json.dumps(document).encode())


def problem(slug: str, status: int, **members: Any) -> Answer:
    """A problem document."""
    document = {"type": f"urn:murmur-streams:problem:{slug}", "status": status, "detail": slug}
    return answer(status, {**document, **members}, x_request_id="req-1")
