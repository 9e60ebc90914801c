"""Streams that resume by themselves, as steps that a shell takes; see ``steps``. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

from murmur_streams.client import answers, requests
from murmur_streams.client.errors import (
    ReceivedProblem,
    UnreadableAnswerError,
    error_of,
)
from murmur_streams.client.patience import (
    Patience,
    Retrying,
    lost_for_good,
    wait_after_answer,
)
from murmur_streams.client.steps import (
    Answer,
    Ask,
    Close,
    Deliver,
    LostError,
    Open,
    Read,
    StreamSteps,
    Wait,
)
from murmur_streams.core.model.errors import CursorError, CursorGapError, CursorResetError
from murmur_streams.core.model.events import RunEvent
from murmur_streams.core.model.feed import FeedEntry
from murmur_streams.wire.answers import (
    STREAM_DAMAGED,
    STREAM_END,
    STREAM_GAP,
    STREAM_RESET,
    event_of,
)
from murmur_streams.wire.problems import DAMAGED
from murmur_streams.wire.sse import SseMessage, SseParser, SseTooLargeError

T = TypeVar("T")
R_co = TypeVar("R_co", covariant=True)

OPENED, HAS_ENDED = 200, 204
FIRST_RETRY_SECONDS = 1.0
"""The wait before a reconnect, until the server asks for another."""


def stream(patience: Patience, run_id: str, after: str | None) -> StreamSteps[RunEvent]:
    """The events of a run after a cursor, each once, until it has ended."""
    return _followed(patience, partial(requests.stream, run_id), Events([run_id]), after)


def stream_many(
    patience: Patience, run_ids: Iterable[str], after: str | None
) -> StreamSteps[RunEvent]:
    """The events of several runs, each once, until all have ended."""
    runs = list(dict.fromkeys(run_ids))
    reader = Events(runs, is_many=True)
    return _followed(patience, partial(requests.stream_many, runs), reader, after)


def feed(
    patience: Patience, after: str | None, targets: Iterable[str], types: Iterable[str]
) -> StreamSteps[FeedEntry]:
    """The entries of all runs, without an end."""
    targets, types = tuple(targets), tuple(types)
    ask = partial(requests.feed, targets=targets, types=types)
    return _followed(patience, ask, Entries(), after)


class Events:
    """Reads the messages of runs' streams, and drops those that were read before.

    A server sends each event once, but a proxy that answers from a cache may repeat some.
    """

    def __init__(self, run_ids: Iterable[str], *, is_many: bool = False) -> None:
        self._left = set(run_ids)
        self._is_many = is_many
        self._seen: dict[str, tuple[str, int]] = {}

    def take(self, message: SseMessage) -> RunEvent | None:
        """The event of a message; None for a repeated one, and for an unknown type."""
        event = answers.checked(message.data, event_of)
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
        self._left.discard(answers.checked(message.data, _members).get("run_id"))
        return not (self._is_many and self._left)


class Entries:
    """Reads the messages of the feed."""

    def take(self, message: SseMessage) -> FeedEntry | None:
        """The entry of a message."""
        return answers.checked(message.data, partial(answers.feed_entry_of, message.last_id))

    def is_end(self, message: SseMessage) -> bool:  # noqa: ARG002  # as that of Events
        """The feed does not end."""
        return False


class _Reader(Protocol[R_co]):
    """Turns messages into values."""

    def take(self, message: SseMessage) -> R_co | None:
        """The value of a message; None when the caller gets none for it."""
        ...

    def is_end(self, message: SseMessage) -> bool:
        """Whether the stream ends with this ``end``."""
        ...


@dataclass
class _Position(Generic[T]):
    """The position of a stream, which outlives its connections."""

    patience: Patience
    cursor: str | None
    reader: _Reader[T]
    retry_seconds: float = FIRST_RETRY_SECONDS

    def reconnect_after(self) -> Wait:
        """The wait that the server asks for, and a random part more.

        Without it, all clients of a server that restarts would connect again at the same moment.
        """
        seconds = self.retry_seconds * (1 + self.patience.draw() / 4)
        return Wait(min(seconds, max(self.patience.retry_seconds, FIRST_RETRY_SECONDS)))


def _followed(
    patience: Patience,
    ask_after: Callable[[str | None], Ask],
    reader: _Reader[T],
    after: str | None,
) -> StreamSteps[T]:
    position = _Position(patience, after, reader)
    retrying = Retrying(patience)
    while True:
        ask = ask_after(position.cursor)
        try:
            answer: Answer = yield Open(ask)
        except LostError as lost:
            yield Wait(retrying.wait_after(lost_for_good(lost, is_unclear=False)))
            continue
        if answer.status == HAS_ENDED:
            return
        if answer.status != OPENED:
            yield Wait(wait_after_answer(ask, answer, retrying, also_failures=True))
            continue
        _check_is_stream(answer)
        if (yield from _connection(position)):
            return
        retrying = Retrying(patience)
        yield position.reconnect_after()


def _connection(position: _Position[T]) -> Generator[Read | Close | Deliver[T], Any, bool]:
    """Read one connection to its end; whether the stream ended with it."""
    parser = SseParser(position.patience.max_response_bytes, position.cursor or "")
    try:
        while chunk := (yield Read()):
            for message in _parsed(parser, chunk):
                position.cursor = message.last_id or position.cursor
                if message.event in {STREAM_GAP, STREAM_RESET}:
                    raise _cursor_error(message)
                if message.event == STREAM_DAMAGED:
                    raise _damage(message)
                if message.event != STREAM_END:
                    value = position.reader.take(message)
                    if value is not None:
                        yield Deliver(value)
                elif position.reader.is_end(message):
                    return True
    except LostError:
        # The caller has every whole message. The server sends an incomplete one again, because the
        # cursor stands before it.
        pass
    finally:
        if parser.retry_ms is not None:
            position.retry_seconds = parser.retry_ms / 1000
    position.cursor = parser.last_id or position.cursor
    yield Close()
    return False


def _parsed(parser: SseParser, chunk: bytes) -> list[SseMessage]:
    try:
        return parser.feed(chunk)
    except SseTooLargeError as error:
        raise UnreadableAnswerError(f"{error} (max_response_bytes)") from None


def _cursor_error(message: SseMessage) -> CursorError:
    members = answers.checked(message.data, _members)
    resume = members.get("resume_cursor")
    detail = members.get("detail") or members.get("message")
    kind, meaning = CursorGapError, "what came after the cursor was trimmed away"
    if message.event == STREAM_RESET:
        kind, meaning = CursorResetError, "the cursor is of another stream, or beyond the end"
    return kind(str(detail or meaning), resume if isinstance(resume, str) else None)


def _damage(message: SseMessage) -> BaseException:
    members = answers.checked(message.data, _members)
    return error_of(ReceivedProblem(DAMAGED.status, {**members, "type": DAMAGED.type}))


def _members(members: dict[str, Any]) -> dict[str, Any]:
    return dict(members)


def _check_is_stream(answer: Answer) -> None:
    kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != requests.EVENT_STREAM:
        raise UnreadableAnswerError(
            f"the server answered {kind or 'nothing that has a type'} instead of an event stream",
            answer.status,
            None,
            answer.headers.get("x-request-id"),
        )
