"""What the answers of a server of runs mean, as the library's own values. No I/O."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar, cast

from pydantic import JsonValue

from murmur_streams.client.errors import UnreadableAnswerError
from murmur_streams.client.steps import Answer
from murmur_streams.core.json_values import decode_json, encode_json
from murmur_streams.core.model.cursors import Cursor
from murmur_streams.core.model.entries import JournalEntry
from murmur_streams.core.model.errors import InvalidCursorError, RemoteAgentError
from murmur_streams.core.model.events import RunEvent, RunEventType
from murmur_streams.core.model.feed import FeedEntry
from murmur_streams.core.model.pages import RunPage
from murmur_streams.core.model.result_codec import StoredModel
from murmur_streams.core.model.results import AgentResult, GroupResult, ResultMetadata, RunResult
from murmur_streams.core.model.run import Run
from murmur_streams.core.model.states import RunProgress, RunState, RunStatus
from murmur_streams.core.rules.cancellation import Cancellation, recorded_cancellation

T = TypeVar("T")

EPOCH_UNTOLD = "00000000"
"""The epoch of an entry whose message does not tell it."""
_MOMENTS = {
    "created_at": "created_ms",
    "started_at": "started_ms",
    "ended_at": "ended_ms",
    "due_at": "due_ms",
    "deadline_at": "deadline_ms",
    "cancel_requested_at": "cancel_requested",
    "cancel_delivered_at": "cancel_delivered",
}
_SAME = ("attempt", "failures", "priority", "input_size", "result_size", "checkpoint_size")
_TEXTS = ("worker", "host", "cancel_reason", "tenant")


@dataclass(frozen=True, slots=True)
class RunEventPage:
    """Some events of a run, oldest first."""

    events: tuple[RunEvent, ...]
    cursor: str | None
    """Go on after these events with it."""
    has_ended: bool
    """Whether there will be no more."""


@dataclass(frozen=True, slots=True)
class RunJournalPage:
    """Some entries of a run's journal, oldest first."""

    entries: tuple[JournalEntry, ...]
    cursor: str | None
    """Pass it to get the next page; None when this was the last."""


@dataclass(frozen=True, slots=True)
class Ticket:
    """A way into one run's stream, for a browser's EventSource: ``?ticket=``."""

    ticket: str
    expires_in: int
    """Seconds in which a stream can be opened with it."""

    def __repr__(self) -> str:
        return f"Ticket(expires_in={self.expires_in})"


def read(answer: Answer, reader: Callable[[Any], T]) -> T:
    """The value of an answer's JSON.

    Raises:
        UnreadableAnswerError: it is not what such an answer is.
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


def run_id_of(told: dict[str, Any]) -> str:
    """The run's id."""
    return _text(told["run_id"])


def status_of(told: dict[str, Any]) -> RunStatus:
    """State and progress."""
    return RunStatus.model_validate(told)


def run_of(told: dict[str, Any]) -> Run:
    """A run, as far as a snapshot tells; what it leaves out has its default."""
    cursor = Cursor.parse(told["cursor"])
    values: dict[str, Any] = {name: told.get(name) for name in _TEXTS}
    values |= {name: told[name] for name in _SAME if told.get(name) is not None}
    values |= {field: _ms(told.get(name)) for name, field in _MOMENTS.items()}
    metadata = cast("JsonValue", told.get("metadata"))
    progress = told.get("progress")
    errors = cast("list[str]", told.get("errors") or [])
    return Run(
        run_id=_text(told["run_id"]),
        target=_text(told["target"]),
        epoch=cursor.epoch,
        state=RunState(told["state"]),
        version=int(told["version"]),
        last_ms=cursor.ms,
        progress=None if progress is None else RunProgress.model_validate(progress),
        metadata_json=None if metadata is None else encode_json(metadata, "the metadata"),
        error=_error(told.get("error"), told.get("error_type")),
        errors="\n".join(errors) or None,
        **values,
    )


def place_of(cursor: str) -> Cursor:
    """The place that a cursor in an answer stands for."""
    try:
        return Cursor.parse(cursor)
    except InvalidCursorError as error:
        # The caller's cursors are not to blame.
        raise UnreadableAnswerError(f"the server's answer cannot be read: {error}") from error


def page_of(told: dict[str, Any]) -> RunPage:
    """A page of a listing."""
    return RunPage(tuple(run_of(each) for each in told["runs"]), told.get("next"))


def events_of(told: dict[str, Any]) -> RunEventPage:
    """A page of events; types that this version does not know are left out."""
    found = (event_of(each) for each in told["events"])
    events = tuple(event for event in found if event is not None)
    return RunEventPage(events, told["next"] or None, bool(told["ended"]))


def event_of(told: dict[str, Any]) -> RunEvent | None:
    """One event; None for a type that only newer servers know."""
    if told["type"] not in _EVENT_TYPES:
        return None
    return RunEvent.model_validate(told)


def journal_of(run_id: str, told: dict[str, Any]) -> RunJournalPage:
    """A page of a journal."""
    entries = tuple(_entry(run_id, each) for each in told["entries"])
    return RunJournalPage(entries, told.get("next"))


def feed_entry_of(cursor: str, told: dict[str, Any]) -> FeedEntry:
    """An entry of the feed."""
    return FeedEntry(
        cursor, _text(told["run_id"]), _text(told["target"]), _entry(told["run_id"], told)
    )


def result_of(told: dict[str, Any]) -> RunResult:
    """What a run left."""
    if "outputs" in told:
        outputs = {name: _agent_result(leaf) for name, leaf in told["outputs"].items()}
        return GroupResult(outputs=outputs, metadata=_metadata(told))
    return _agent_result(told)


def cancellation_of(told: dict[str, Any], run: Run) -> Cancellation:
    """How far a cancel has come: the answer says how, the run says when."""
    known = recorded_cancellation(run)
    how = told.get("how")
    return Cancellation(
        known.state, known.requested, known.delivered, known.stopped, how and _text(how)
    )


def names_of(told: list[Any]) -> list[str]:
    """The names in a list of names."""
    return [_text(name) for name in told]


def ticket_of(told: dict[str, Any]) -> Ticket:
    """A ticket."""
    return Ticket(_text(told["ticket"]), int(told["expires_in"]))


_EVENT_TYPES = frozenset(map(str, RunEventType))


def _agent_result(told: dict[str, Any]) -> AgentResult[Any]:
    error = told.get("error")
    output = told.get("output")
    if told.get("model") and isinstance(output, dict):
        output = StoredModel.model_validate(output)
    kind, trace = told.get("error_type") or "RuntimeError", told.get("error_traceback")
    return AgentResult[Any](
        output=output,
        error=None if error is None else RemoteAgentError(kind, _text(error), trace),
        metadata=_metadata(told),
        agent_name=told["agent_name"],
        task_id=told["task_id"],
    )


def _metadata(told: dict[str, Any]) -> ResultMetadata:
    return ResultMetadata.model_validate(told.get("metadata") or {})


def _entry(run_id: str, told: dict[str, Any]) -> JournalEntry:
    fields = {str(name): _text(value) for name, value in told["fields"].items()}
    fields.setdefault("type", _text(told["type"]))
    place = Cursor.parse(told["cursor"]) if told.get("cursor") else None
    epoch = EPOCH_UNTOLD if place is None else place.epoch
    ms = _ms(told["at"]) if place is None else place.ms
    return JournalEntry(run_id, epoch, ms or 0, int(told["seq"]), fields)


def _error(message: str | None, type_name: str | None) -> str | None:
    """The error as a store has it, in one text."""
    return f"{type_name}: {message}" if type_name and message else type_name or message


def _ms(moment: object) -> int | None:
    if moment is None:
        return None
    return round(datetime.fromisoformat(_text(moment)).timestamp() * 1000)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{type(value).__name__} stands where a text should")
    return value
