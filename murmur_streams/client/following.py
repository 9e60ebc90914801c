"""Streams that resume by themselves after a lost connection."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

from murmur_streams.client import answers, requests
from murmur_streams.client.shell import Connection, Shell
from murmur_streams.core.model.errors import CursorError, CursorGapError, CursorResetError
from murmur_streams.core.model.events import RunEvent
from murmur_streams.core.model.feed import FeedEntry
from murmur_streams.wire import answers as messages
from murmur_streams.wire.problems import DAMAGED
from murmur_streams.wire.sse import SseMessage, SseParser, SseTooLargeError

T = TypeVar("T")

OPENED, HAS_ENDED = 200, 204
FIRST_RETRY_SECONDS = 1.0
"""The wait before a reconnect, until the server asks for another."""


def feed_entry(message: SseMessage) -> FeedEntry:
    """The entry in a message of the feed."""
    return answers.checked(message.data, partial(answers.feed_entry_of, message.last_id))


class RunEvents:
    """Reads the messages of runs' streams, and drops those that were read before.

    A server sends each event once, but a proxy that answers from a cache may repeat some.
    """

    def __init__(self, run_ids: Iterable[str], *, is_many: bool = False) -> None:
        self._left = set(run_ids)
        self._is_many = is_many
        self._seen: dict[str, tuple[str, int]] = {}

    def take(self, message: SseMessage) -> RunEvent | None:
        """The event of a message; None for a repeated one, and for an unknown type."""
        event = answers.checked(message.data, messages.event_of)
        if event is None or event.id is None:
            return event
        position = answers.position_of(event.id)
        epoch, seq = self._seen.get(event.run_id, (position.epoch, 0))
        if position.epoch == epoch and position.seq <= seq:
            return None
        self._seen[event.run_id] = (position.epoch, position.seq)
        # With several runs, only the message's id is a position in all of them.
        return event.model_copy(update={"id": message.last_id}) if self._is_many else event

    def is_end(self, message: SseMessage) -> bool:
        """Whether it is the end of the last run."""
        self._left.discard(answers.checked(message.data, dict[str, Any]).get("run_id"))
        return not (self._is_many and self._left)


@dataclass
class FollowedStream(Generic[T]):
    """One stream. Its position outlives its connections."""

    _shell: Shell
    _ask_after: Callable[[str | None], requests.Ask]
    _take: Callable[[SseMessage], T | None]
    """The value of a message; None when the caller gets none for it."""
    _is_end: Callable[[SseMessage], bool]
    """Whether the stream ends with this ``end``."""
    _cursor: str | None
    _retry_seconds: float = FIRST_RETRY_SECONDS
    _has_ended: bool = False

    async def values(self) -> AsyncGenerator[T]:
        """The values of the messages, over as many connections as it takes."""
        connection = self._shell.connection()
        try:
            while await self._open(connection):
                parser = SseParser(self._shell.patience.max_response_bytes, self._cursor or "")
                while chunk := await _next_chunk(connection):
                    for value in self._values(_parsed(parser, chunk)):
                        yield value
                    if self._has_ended:
                        return
                self._cursor = parser.last_id or self._cursor
                if parser.retry_ms is not None:
                    self._retry_seconds = parser.retry_ms / 1000
                await connection.close()
                await self._shell.sleep(self._reconnect_after())
        finally:
            await connection.close()

    async def _open(self, connection: Connection) -> bool:
        """Open the stream after the cursor; False when nothing comes after it."""
        answer = await self._shell.answered(
            self._ask_after(self._cursor),
            requests.Retrying(self._shell.patience),
            connection.open,
            also_failures=True,
        )
        if answer.status == HAS_ENDED:
            return False
        _check_is_stream(answer)
        return True

    def _values(self, parsed: Iterable[SseMessage]) -> Iterator[T]:
        for message in parsed:
            self._cursor = message.last_id or self._cursor
            if message.event in {messages.STREAM_GAP, messages.STREAM_RESET}:
                raise _cursor_error(message)
            if message.event == messages.STREAM_DAMAGED:
                raise _damage(message)
            if message.event != messages.STREAM_END:
                value = self._take(message)
                if value is not None:
                    yield value
            elif self._is_end(message):
                self._has_ended = True
                return

    def _reconnect_after(self) -> float:
        """The wait that the server asks for, and a random part more.

        Without it, all clients of a server that restarts would connect again at the same moment.
        """
        patience = self._shell.patience
        seconds = self._retry_seconds * (1 + patience.draw() / 4)
        return min(seconds, max(patience.retry_seconds, FIRST_RETRY_SECONDS))


async def _next_chunk(connection: Connection) -> bytes:
    # After a loss, the caller has every whole message. The server sends an incomplete one again,
    # because the cursor is before it.
    with contextlib.suppress(answers.LostError):
        return await connection.read()
    return b""


def _parsed(parser: SseParser, chunk: bytes) -> list[SseMessage]:
    try:
        return parser.feed(chunk)
    except SseTooLargeError as error:
        raise answers.UnreadableAnswerError(f"{error} (max_response_bytes)") from None


def _cursor_error(message: SseMessage) -> CursorError:
    members = answers.checked(message.data, dict[str, Any])
    resume = members.get("resume_cursor")
    detail = members.get("detail") or members.get("message")
    kind, meaning = CursorGapError, "what came after the cursor was trimmed away"
    if message.event == messages.STREAM_RESET:
        kind, meaning = CursorResetError, "the cursor is of another stream, or beyond the end"
    return kind(str(detail or meaning), resume if isinstance(resume, str) else None)


def _damage(message: SseMessage) -> BaseException:
    members = {**answers.checked(message.data, dict[str, Any]), "type": DAMAGED.type}
    return answers.error_of(answers.ReceivedProblem(DAMAGED.status, members))


def _check_is_stream(answer: answers.Answer) -> None:
    kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
    if answer.status != OPENED or kind != requests.EVENT_STREAM:
        raise answers.UnreadableAnswerError(
            f"the server answered {kind or 'nothing that has a type'} instead of an event stream",
            answer.status,
            None,
            answer.headers.get("x-request-id"),
        )
