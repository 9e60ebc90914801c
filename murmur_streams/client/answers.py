"""Turns the answers of a server into the library's own values. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from murmur_streams.client.errors import UnreadableAnswerError
from murmur_streams.core.json_values import decode_json
from murmur_streams.core.model.cursors import Cursor
from murmur_streams.core.model.entries import JournalEntry
from murmur_streams.core.model.errors import InvalidCursorError
from murmur_streams.core.model.events import RunEvent
from murmur_streams.core.model.feed import FeedEntry
from murmur_streams.core.model.pages import RunPage
from murmur_streams.core.model.run import Run
from murmur_streams.core.rules.cancellation import Cancellation, recorded_cancellation
from murmur_streams.wire.answers import entry_of, event_of
from murmur_streams.wire.run_json import run_of, text_of

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a request."""

    status: int
    headers: Mapping[str, str]
    """By their names in lower case."""
    body: bytes = b""


class LostError(Exception):
    """The connection failed before the whole answer arrived."""

    def __init__(self, message: str, *, may_have_arrived: bool) -> None:
        super().__init__(message)
        self.may_have_arrived = may_have_arrived
        """False when the server cannot have seen the request."""


@dataclass(frozen=True, slots=True)
class RunEventPage:
    """Some events of a run, oldest first."""

    events: tuple[RunEvent, ...]
    cursor: str | None
    """Pass it to read on after these events."""
    has_ended: bool
    """Whether there will be no more."""


@dataclass(frozen=True, slots=True)
class RunJournalPage:
    """Some entries of a run's journal, oldest first."""

    entries: tuple[JournalEntry, ...]
    cursor: str | None
    """Pass it to get the next page; None when this was the last."""


def read(answer: Answer, reader: Callable[[Any], T]) -> T:
    """The value of an answer's JSON.

    Raises:
        UnreadableAnswerError: the answer is not JSON, or not of the expected form.
    """
    return checked(answer.body, reader, answer.headers.get("x-request-id"), answer.status)


def checked(
    text: str | bytes,
    reader: Callable[[Any], T],
    request_id: str | None = None,
    status: int | None = None,
) -> T:
    """The value of some JSON text; UnreadableAnswerError as for ``read``."""
    try:
        return reader(decode_json(text))
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise UnreadableAnswerError(
            f"the server's answer cannot be read ({type(error).__name__}): "
            "is this the address of a murmur-streams server?",
            status,
            None,
            request_id,
        ) from error


def position_of(cursor: str) -> Cursor:
    """The position that a cursor in an answer stands for."""
    try:
        return Cursor.parse(cursor)
    except InvalidCursorError as error:
        # The server sent this cursor: InvalidCursorError would blame one of the caller's.
        raise UnreadableAnswerError(f"the server's answer cannot be read: {error}") from error


def page_of(members: dict[str, Any]) -> RunPage:
    """A page of a listing."""
    return RunPage(tuple(run_of(each) for each in members["runs"]), members.get("next"))


def events_of(members: dict[str, Any]) -> RunEventPage:
    """A page of events; types that this version does not know are left out."""
    found = (event_of(each) for each in members["events"])
    events = tuple(event for event in found if event is not None)
    return RunEventPage(events, members["next"] or None, bool(members["ended"]))


def journal_of(run_id: str, members: dict[str, Any]) -> RunJournalPage:
    """A page of a journal."""
    entries = tuple(entry_of(run_id, each) for each in members["entries"])
    return RunJournalPage(entries, members.get("next"))


def feed_entry_of(cursor: str, members: dict[str, Any]) -> FeedEntry:
    """An entry of the feed."""
    return FeedEntry(
        cursor,
        text_of(members["run_id"]),
        text_of(members["target"]),
        entry_of(members["run_id"], members),
    )


def cancellation_of(members: dict[str, Any], run: Run) -> Cancellation:
    """How far a cancel has come: the answer says how, the run says when."""
    how = members.get("how")
    return replace(recorded_cancellation(run), how=how and text_of(how))


def names_of(members: list[Any]) -> list[str]:
    """The names in a list of names."""
    return [text_of(name) for name in members]
