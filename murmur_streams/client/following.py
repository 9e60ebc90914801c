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
from murmur_streams.wire.answers import event_of
from murmur_streams.wire.problems import DAMAGED
from murmur_streams.wire.sse import SseMessage, SseParser, SseTooLargeError

T = TypeVar("T")
R_co = TypeVar("R_co", covariant=True)

OPENED, HAS_ENDED = 200, 204
FIRST_RETRY_SECONDS = 1.0
"""The wait before a reconnect until the server has told another."""


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
    """Reads the messages of runs' streams, and drops what came before.

    A server sends nothing twice; a proxy that answers from a cache would.
    """

    def __init__(self, run_ids: Iterable[str], *, is_many: bool = False) -> None:
        self._left = set(run_ids)
        self._is_many = is_many
        self._seen: dict[str, tuple[str, int]] = {}

    def take(self, message: SseMessage) -> RunEvent | None:
        """The event of a message; None for one that is known or of an unknown type."""
        event = answers.checked(message.data, event_of)
        if event is None or event.id is None:
            return event
        place = answers.position_of(event.id)
        epoch, seq = self._seen.get(event.run_id, (place.epoch, 0))
        if place.epoch == epoch and place.seq <= seq:
            return None
        self._seen[event.run_id] = (place.epoch, place.seq)
        # Of several runs, only the message's id says where their reader is.
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
        """The feed has none."""
        return False


class _Reader(Protocol[R_co]):
    """What messages mean."""

    def take(self, message: SseMessage) -> R_co | None:
        """The value of a message; None for one that is not told."""
        ...

    def is_end(self, message: SseMessage) -> bool:
        """Whether nothing comes after an ``end``."""
        ...


@dataclass
class _Place(Generic[T]):
    """Where a stream is, over all its connections."""

    patience: Patience
    cursor: str | None
    reader: _Reader[T]
    retry_seconds: float = FIRST_RETRY_SECONDS

    def reconnect_after(self) -> Wait:
        """The wait that the server asks for, and a little more: not all come back at once."""
        seconds = self.retry_seconds * (1 + self.patience.draw() / 4)
        return Wait(min(seconds, max(self.patience.retry_seconds, FIRST_RETRY_SECONDS)))


def _followed(
    patience: Patience,
    ask_after: Callable[[str | None], Ask],
    reader: _Reader[T],
    after: str | None,
) -> StreamSteps[T]:
    place = _Place(patience, after, reader)
    retrying = Retrying(patience)
    while True:
        ask = ask_after(place.cursor)
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
        if (yield from _connection(place)):
            return
        retrying = Retrying(patience)
        yield place.reconnect_after()


def _connection(place: _Place[T]) -> Generator[Read | Close | Deliver[T], Any, bool]:
    """Read one connection to its end; whether the stream ended with it."""
    parser = SseParser(place.patience.max_response_bytes, place.cursor or "")
    try:
        while chunk := (yield Read()):
            for message in _parsed(parser, chunk):
                place.cursor = message.last_id or place.cursor
                if message.event in {"gap", "reset"}:
                    raise _cursor_error(message)
                if message.event == "damaged":
                    raise _damage(message)
                if message.event != "end":
                    value = place.reader.take(message)
                    if value is not None:
                        yield Deliver(value)
                elif place.reader.is_end(message):
                    return True
    except LostError:
        # What came whole was told; what did not comes again after the cursor.
        pass
    finally:
        if parser.retry_ms is not None:
            place.retry_seconds = parser.retry_ms / 1000
    place.cursor = parser.last_id or place.cursor
    yield Close()
    return False


def _parsed(parser: SseParser, chunk: bytes) -> list[SseMessage]:
    try:
        return parser.feed(chunk)
    except SseTooLargeError as error:
        raise UnreadableAnswerError(f"{error} (max_response_bytes)") from None


def _cursor_error(message: SseMessage) -> CursorError:
    told = answers.checked(message.data, _members)
    resume = told.get("resume_cursor")
    detail = told.get("detail") or told.get("message")
    kind, words = CursorGapError, "what came after the cursor was trimmed away"
    if message.event == "reset":
        kind, words = CursorResetError, "the cursor is of another stream, or beyond the end"
    return kind(str(detail or words), resume if isinstance(resume, str) else None)


def _damage(message: SseMessage) -> BaseException:
    told = answers.checked(message.data, _members)
    return error_of(ReceivedProblem(DAMAGED.status, {**told, "type": DAMAGED.type}))


def _members(told: dict[str, Any]) -> dict[str, Any]:
    return dict(told)


def _check_is_stream(answer: Answer) -> None:
    kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != requests.EVENT_STREAM:
        raise UnreadableAnswerError(
            f"the server answered {kind or 'nothing that has a type'} where a stream should be",
            answer.status,
            None,
            answer.headers.get("x-request-id"),
        )
