"""The bodies of answers, written and read: runs, results, events, entries, problems, health."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Self, cast

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from murmur_streams.core.exception_text import error_message, error_type_name
from murmur_streams.core.json_values import encode_json
from murmur_streams.core.model import results
from murmur_streams.core.model.entries import Cursor, JournalEntry
from murmur_streams.core.model.errors import RunDamagedError
from murmur_streams.core.model.events import RunEvent, RunEventType
from murmur_streams.core.model.run import Run, moment_of
from murmur_streams.core.model.states import RunProgress, RunState


class RunSnapshot(BaseModel):
    """Everything that a client may read of a run."""

    run_id: str
    target: str
    state: RunState
    version: int
    attempt: int
    progress: RunProgress | None
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    due_at: datetime | None
    deadline_at: datetime | None
    error: str | None = Field(description="The same text as in its result.")
    error_type: str | None = Field(
        None, description="The name of the type of an agent's error; null for other ends."
    )
    failures: int = Field(description="How many executions failed.")
    errors: list[str] = Field(
        description="Of the first executions that failed: the attempt's number, a space, the error."
    )
    cancel_requested_at: datetime | None
    cancel_delivered_at: datetime | None = Field(
        description="When its execution received the request."
    )
    cancel_reason: str | None
    worker: str | None
    host: str | None
    priority: int
    metadata: JsonValue
    tenant: str | None
    input_size: int | None = Field(description="In bytes, as are the other two.")
    result_size: int | None = Field(description="Null: the run has no result of its own.")
    checkpoint_size: int | None
    cursor: str = Field(description="The position after everything that this snapshot includes.")

    @classmethod
    def of(cls, run: Run) -> Self:
        """Write a run. The fencing token is left out: it would let a reader write as the worker.

        Raises:
            RunDamagedError: a stored time is out of range.
        """
        values: dict[str, Any] = {name: getattr(run, name) for name in _SAME}
        values["error"], values["error_type"] = _error_of(run)
        try:
            values |= {name: moment_of(getattr(run, field)) for name, field in _MOMENTS.items()}
            return cls(
                errors=run.errors.split("\n") if run.errors else [],
                metadata=run.metadata,
                cursor=run.cursor,
                **values,
            )
        except (ValueError, OverflowError, OSError) as error:
            raise RunDamagedError(run.run_id, f"a stored time is out of range: {error}") from error


class RunList(BaseModel):
    """A page of runs, newest first."""

    runs: list[RunSnapshot]
    next: str | None = Field(description="The cursor of the next page; null on the last.")


_MOMENTS = {
    "created_at": "created_ms",
    "started_at": "started_ms",
    "ended_at": "ended_ms",
    "due_at": "due_ms",
    "deadline_at": "deadline_ms",
    "cancel_requested_at": "cancel_requested",
    "cancel_delivered_at": "cancel_delivered",
}
"""The member of each time, and the field of the run that holds it in milliseconds."""
_SAME = (RunSnapshot.model_fields.keys() & Run.__dataclass_fields__.keys()) - {"error", "errors"}
"""The members that are a field of the run, under its name and unchanged."""


def run_of(members: Mapping[str, Any]) -> Run:
    """Read a run. A member that an older server leaves out gets its default.

    Raises:
        ValueError, TypeError, LookupError: the members are not those of a run.
    """
    cursor = Cursor.parse(members["cursor"])
    values: dict[str, Any] = {
        name: members[name] for name in _SAME if members.get(name) is not None
    }
    values |= {field: milliseconds_of(members.get(name)) for name, field in _MOMENTS.items()}
    metadata = cast("JsonValue", members.get("metadata"))
    progress = members.get("progress")
    values |= {
        "run_id": text_of(members["run_id"]),
        "target": text_of(members["target"]),
        "state": RunState(members["state"]),
        "version": int(members["version"]),
        "progress": None if progress is None else RunProgress.model_validate(progress),
        "metadata_json": None if metadata is None else encode_json(metadata, "the metadata"),
        "error": _stored_error(members.get("error"), members.get("error_type")),
        "errors": "\n".join(members.get("errors") or ()) or None,
    }
    return Run(epoch=cursor.epoch, last_ms=cursor.ms, **values)


def milliseconds_of(moment: object) -> int | None:
    """The milliseconds of a time in ISO 8601."""
    if moment is None:
        return None
    return round(datetime.fromisoformat(text_of(moment)).timestamp() * 1000)


def text_of(value: object) -> str:
    """The value, or TypeError when it is not text."""
    if not isinstance(value, str):
        raise TypeError(f"{type(value).__name__} stands where a text should")
    return value


def _error_of(run: Run) -> tuple[str | None, str | None]:
    """The message and the type's name of an agent's error; the text of another end, and None.

    A worker ends a failed run with a result, and with both in one text, ``ValueError: no``.
    """
    if run.error is None or run.state is not RunState.FAILED or run.result_size is None:
        return run.error, None
    name, _, message = run.error.partition(": ")
    return (message, name) if name.isidentifier() else (run.error, None)


def _stored_error(message: str | None, type_name: str | None) -> str | None:
    """The error as a store holds it, in one text."""
    return f"{type_name}: {message}" if type_name and message else type_name or message


UNKNOWN_EPOCH = "00000000"
"""The epoch of an entry whose JSON has no cursor."""
_EVENT_TYPES = frozenset(map(str, RunEventType))


class Problem(BaseModel):
    """An answer other than success: RFC 9457, with the error fields of ``murmur-runtime``."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(description="A URN that names the kind of problem.")
    title: str
    status: int
    detail: str
    request_id: str = Field(
        description="The same as in the X-Request-Id header and in the server's log."
    )
    error: str
    message: str
    agent: str | None
    task_id: str | None


class AgentOutcome(BaseModel):
    """The output of an agent, or its error."""

    agent_name: str
    task_id: str
    success: bool
    output: JsonValue = None
    error: str | None
    error_type: str | None = Field(None, description="The name of the error's type.")
    metadata: results.ResultMetadata

    @classmethod
    def of(cls, result: results.AgentResult[Any]) -> Self:
        """Write a result; of an error only its message and the name of its type."""
        error = result.error
        return cls(
            agent_name=result.agent_name,
            task_id=result.task_id,
            success=error is None,
            output=results.dump_output(result.output),
            error=None if error is None else error_message(error),
            error_type=None if error is None else error_type_name(error),
            metadata=result.metadata,
        )


class GroupOutcome(BaseModel):
    """The outcomes of a group's last agents."""

    group: bool = True
    outputs: dict[str, AgentOutcome]
    success: bool
    metadata: results.ResultMetadata

    @classmethod
    def of(cls, result: results.GroupResult) -> Self:
        """Write a result."""
        outputs = {name: AgentOutcome.of(leaf) for name, leaf in result.outputs.items()}
        success = all(leaf.success for leaf in outputs.values())
        return cls(outputs=outputs, success=success, metadata=result.metadata)


AnyOutcome = AgentOutcome | GroupOutcome


def result_of(members: Mapping[str, Any]) -> results.RunResult:
    """Read the result of an agent or of a group."""
    return results.read_result(members, is_group="outputs" in members, model=None)


class Submitted(BaseModel):
    """A run that waits for a worker; with ``Prefer: wait``, how far it has come."""

    run_id: str
    state: RunState | None = None
    result: AnyOutcome | None = None


class Cancelled(BaseModel):
    """How far a cancel has come."""

    state: RunState
    how: str | None = Field(
        None, description="What stopped it: handler, grace, pending or worker_lost."
    )


class EventPage(BaseModel):
    """Some events of a run, oldest first."""

    events: list[RunEvent]
    next: str = Field(description="Read on after this cursor.")
    ended: bool = Field(description="Whether these events are the last.")


def event_of(members: Mapping[str, Any]) -> RunEvent | None:
    """Read an event; None for a type that only newer servers know."""
    return RunEvent.model_validate(members) if members["type"] in _EVENT_TYPES else None


STREAM_GAP, STREAM_RESET, STREAM_END, STREAM_DAMAGED = "gap", "reset", "end", "damaged"
"""The messages of event streams with ``?control=1`` that are not events of a run."""


class Entry(BaseModel):
    """One entry of a run's journal."""

    cursor: str
    seq: int
    at: datetime
    type: str
    attempt: int | None
    late: bool = Field(description="It came after the seal; event streams leave it out.")
    fields: dict[str, str]

    @classmethod
    def of(cls, entry: JournalEntry) -> Self:
        """Write an entry, without the fencing token."""
        return cls.model_validate(
            {
                "cursor": entry.cursor,
                "seq": entry.seq,
                "at": moment_of(entry.ms),
                "type": entry.type,
                "attempt": entry.attempt,
                "late": entry.is_late,
                "fields": {name: text for name, text in entry.fields.items() if name != "claim"},
            }
        )


class JournalPage(BaseModel):
    """Some entries of a run's journal, oldest first."""

    entries: list[Entry]
    next: str | None = Field(
        description="Read on after this cursor; null: the journal has no more entries yet."
    )


def entry_of(run_id: str, members: Mapping[str, Any]) -> JournalEntry:
    """Read an entry of a journal or of the feed."""
    fields = {str(name): text_of(value) for name, value in members["fields"].items()}
    fields.setdefault("type", text_of(members["type"]))
    cursor = Cursor.parse(members["cursor"]) if members.get("cursor") else None
    epoch = UNKNOWN_EPOCH if cursor is None else cursor.epoch
    ms = milliseconds_of(members["at"]) if cursor is None else cursor.ms
    return JournalEntry(run_id, epoch, ms or 0, int(members["seq"]), fields)


class Ticket(BaseModel):
    """Good for opening the stream of one run, for as long as it says."""

    ticket: str = Field(
        repr=False, description="To be sent as ?ticket= with GET /runs/{run_id}/stream."
    )
    expires_in: int = Field(description="Seconds in which a stream can be opened with it.", ge=0)


class AgentSchema(BaseModel):
    """The JSON Schemas of an agent's input and output."""

    name: str
    input_type: dict[str, JsonValue] | None = Field(description="Null: the agent takes no input.")
    output_type: dict[str, JsonValue]


class Health(BaseModel):
    """The state of the pod."""

    status: str


class Readiness(Health):
    """Whether the pod may be sent requests."""

    warning: str | None = None
    """A fault of the store that an operator should mend, such as its eviction policy."""
