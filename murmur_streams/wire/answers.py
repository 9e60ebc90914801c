"""The bodies of the other answers, written and read: results, events, entries, problems, health."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from murmur_streams.core.exception_text import error_message, error_type_name
from murmur_streams.core.model.cursors import Cursor
from murmur_streams.core.model.entries import JournalEntry
from murmur_streams.core.model.events import RunEvent, RunEventType
from murmur_streams.core.model.result_codec import dump_output, read_result
from murmur_streams.core.model.results import AgentResult, GroupResult, ResultMetadata, RunResult
from murmur_streams.core.model.run import moment_of
from murmur_streams.core.model.states import RunState
from murmur_streams.wire.run_json import milliseconds_of, text_of

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
    metadata: ResultMetadata

    @classmethod
    def of(cls, result: AgentResult[Any]) -> Self:
        """Write a result; of an error only its message and the name of its type."""
        error = result.error
        return cls(
            agent_name=result.agent_name,
            task_id=result.task_id,
            success=error is None,
            output=dump_output(result.output),
            error=None if error is None else error_message(error),
            error_type=None if error is None else error_type_name(error),
            metadata=result.metadata,
        )


class GroupOutcome(BaseModel):
    """The outcomes of a group's last agents."""

    group: bool = True
    outputs: dict[str, AgentOutcome]
    success: bool
    metadata: ResultMetadata

    @classmethod
    def of(cls, result: GroupResult) -> Self:
        """Write a result."""
        outputs = {name: AgentOutcome.of(leaf) for name, leaf in result.outputs.items()}
        success = all(leaf.success for leaf in outputs.values())
        return cls(outputs=outputs, success=success, metadata=result.metadata)


AnyOutcome = AgentOutcome | GroupOutcome


def result_of(members: Mapping[str, Any]) -> RunResult:
    """Read the result of an agent or of a group."""
    return read_result(members, is_group="outputs" in members, model=None)


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
