"""What requests and answers look like: the models behind the OpenAPI document."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Any, Self, cast

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    model_validator,
)

from murmur_streams.core.exception_text import error_message, error_type_name
from murmur_streams.core.model.entries import JournalEntry
from murmur_streams.core.model.errors import RunDamagedError
from murmur_streams.core.model.events import RunEvent
from murmur_streams.core.model.result_codec import dump_output
from murmur_streams.core.model.results import AgentResult, GroupResult, ResultMetadata
from murmur_streams.core.model.run import Run
from murmur_streams.core.model.states import RunProgress, RunState

MOST_TASKS = 1_000
_OF_MEMBERS = ("title", "description", "default")
"""What a schema says of a member, and not of its values."""
_RFC_3339 = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}.*")


class Problem(BaseModel):
    """An answer that is no success: RFC 9457, and the error fields of ``murmur-runtime``."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(description="A URN that names the sort of problem.")
    title: str
    status: int
    detail: str
    request_id: str = Field(description="As in the X-Request-Id header and in the server's log.")
    error: str
    message: str
    agent: str | None
    task_id: str | None


def _nullable(schema: dict[str, Any]) -> None:
    """Let a model's schema say that each optional member may be null."""
    for name, rule in schema["properties"].items():
        if name in schema.get("required", ()) or not ({"type", "$ref"} & rule.keys()):
            continue
        kept = {word: rule.pop(word) for word in _OF_MEMBERS if word in rule}
        schema["properties"][name] = {"anyOf": [rule, {"type": "null"}], **kept}


class _Given(BaseModel):
    """Taken from strangers: nothing unknown, and no value made of another type's.

    A null for a member that may be left out is the same as leaving it out.
    """

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        allow_inf_nan=False,
        json_schema_extra=_nullable,
    )

    @model_validator(mode="before")
    @classmethod
    def _leave_out_nulls(cls, given: object) -> object:
        if not isinstance(given, dict):
            return given
        members = cast("dict[str, object]", given)
        optional = {name for name, field in cls.model_fields.items() if not field.is_required()}
        return {
            name: value
            for name, value in members.items()
            if value is not None or name not in optional
        }


def _as_text(value: object) -> object:
    # Numbers would count as seconds since 1970.
    if isinstance(value, str) and _RFC_3339.fullmatch(value):
        return value
    raise ValueError("must be a date and time of RFC 3339 with its zone")


Moment = Annotated[AwareDatetime, Field(strict=False), BeforeValidator(_as_text)]


class Task(_Given):
    """One piece of work."""

    id: str | None = Field(None, description="The client's own name for it; not kept.")
    request_id: str | None = Field(None, description="The client's own; not kept.")
    input: JsonValue = Field(
        None,
        description="The agent's input. Text is decoded for an agent whose input is no text.",
    )
    metadata: dict[str, JsonValue] | None = Field(None, description="Kept with the run.")


class SubmitRequest(_Given):
    """Work to be queued."""

    target: str = Field(description="The name of an agent.")
    is_group: bool = False
    task: Task
    request_id: str | None = Field(None, description="The client's own; not kept.")
    run_id: str | None = Field(None, description="Left out: one is drawn.")
    delay: float | None = Field(None, ge=0, description="Seconds from now until it may start.")
    at: Moment | None = Field(None, description="When it may start; instead of a delay.")
    priority: int = Field(0, ge=-100, le=100)
    deadline: float | None = Field(
        None, gt=0, description="Seconds after it was due in which it must end."
    )


class RunRequest(_Given):
    """Work whose end the answer waits for."""

    task: Task
    request_id: str | None = Field(None, description="The client's own; not kept.")


class GatherRequest(_Given):
    """Several pieces of work for one agent."""

    tasks: Annotated[list[Task], Field(max_length=MOST_TASKS)]
    max_concurrency: int = Field(100, ge=1, le=MOST_TASKS)
    request_id: str | None = Field(None, description="The client's own; not kept.")


class CancelRequest(_Given):
    """Why a run is cancelled."""

    reason: str | None = Field(None, description="A line for people, kept with the run.")


class AgentOutcome(BaseModel):
    """What an agent returned, or why it did not."""

    agent_name: str
    task_id: str
    success: bool
    output: JsonValue = None
    error: str | None
    error_type: str | None = Field(None, description="The name of the error's type.")
    metadata: ResultMetadata

    @classmethod
    def of(cls, result: AgentResult[Any]) -> Self:
        """As it is told of a result; of an error its type's name and its message alone."""
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
        """As it is told of a result."""
        outputs = {name: AgentOutcome.of(leaf) for name, leaf in result.outputs.items()}
        success = all(leaf.success for leaf in outputs.values())
        return cls(outputs=outputs, success=success, metadata=result.metadata)


Outcome = AgentOutcome | GroupOutcome


class Submitted(BaseModel):
    """A run that waits for a worker; with ``Prefer: wait``, how far it has come."""

    run_id: str
    state: RunState | None = None
    result: Outcome | None = None


class Cancelled(BaseModel):
    """How far a cancel has come."""

    state: RunState
    how: str | None = Field(
        None, description="What stopped it: handler, grace, pending or worker_lost."
    )


class RunSnapshot(BaseModel):
    """Everything that is told of a run."""

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
    error: str | None = Field(description="The text that its result has, too.")
    error_type: str | None = Field(
        None, description="The name of the type of an agent's error; null for other ends."
    )
    failures: int = Field(description="How many executions failed.")
    errors: list[str] = Field(
        description="Of the first that failed: the attempt's number, a space, the error."
    )
    cancel_requested_at: datetime | None
    cancel_delivered_at: datetime | None = Field(description="When its execution learnt of that.")
    cancel_reason: str | None
    worker: str | None
    host: str | None
    priority: int
    metadata: JsonValue
    tenant: str | None
    input_size: int | None = Field(description="In bytes, as are the other two.")
    result_size: int | None = Field(description="Null: it has left no result of its own.")
    checkpoint_size: int | None
    cursor: str = Field(description="Read on after what this snapshot knows of.")

    @classmethod
    def of(cls, run: Run) -> Self:
        """As it is told of a run. Who has the fencing token can write as the worker: not told.

        Raises:
            RunDamagedError: a time of it is none.
        """
        try:
            return cls._of(run)
        except (ValueError, OverflowError, OSError) as error:
            raise RunDamagedError(run.run_id, f"a value of it is none: {error}") from error

    @classmethod
    def _of(cls, run: Run) -> Self:
        error, error_type = _error_of(run)
        return cls(
            run_id=run.run_id,
            target=run.target,
            state=run.state,
            version=run.version,
            attempt=run.attempt,
            progress=run.progress,
            created_at=run.created_at,
            started_at=run.started_at,
            ended_at=run.ended_at,
            due_at=_moment(run.due_ms),
            deadline_at=_moment(run.deadline_ms),
            error=error,
            error_type=error_type,
            failures=run.failures,
            errors=run.errors.split("\n") if run.errors else [],
            cancel_requested_at=_moment(run.cancel_requested),
            cancel_delivered_at=_moment(run.cancel_delivered),
            cancel_reason=run.cancel_reason,
            worker=run.worker,
            host=run.host,
            priority=run.priority,
            metadata=run.metadata,
            tenant=run.tenant,
            input_size=run.input_size,
            result_size=run.result_size,
            checkpoint_size=run.checkpoint_size,
            cursor=run.cursor,
        )


class RunList(BaseModel):
    """A page of runs, newest first."""

    runs: list[RunSnapshot]
    next: str | None = Field(description="The cursor of the next page; null on the last.")


class EventPage(BaseModel):
    """Some events of a run, oldest first."""

    events: list[RunEvent]
    next: str = Field(description="Go on after this cursor.")
    ended: bool = Field(description="Whether nothing comes after them.")


class Entry(BaseModel):
    """One entry of a run's journal."""

    cursor: str
    seq: int
    at: datetime
    type: str
    attempt: int | None
    late: bool = Field(description="It came after the seal, and is streamed to nobody.")
    fields: dict[str, str]

    @classmethod
    def of(cls, entry: JournalEntry) -> Self:
        """As it is told; without the fencing token."""
        return cls(
            cursor=entry.cursor,
            seq=entry.seq,
            at=datetime.fromtimestamp(entry.ms / 1000, UTC),
            type=entry.type,
            attempt=entry.attempt,
            late=entry.is_late,
            fields={name: text for name, text in entry.fields.items() if name != "claim"},
        )


class JournalPage(BaseModel):
    """Some entries of a run's journal, oldest first."""

    entries: list[Entry]
    next: str | None = Field(description="Go on after this cursor; null: there is no more yet.")


class AgentSchema(BaseModel):
    """What an agent takes and returns, as JSON Schemas."""

    name: str
    input_type: dict[str, JsonValue] | None = Field(description="Null: it takes no input.")
    output_type: dict[str, JsonValue]


class Health(BaseModel):
    """How the pod is."""

    status: str


class Readiness(Health):
    """Whether the pod may be sent requests."""

    warning: str | None = None
    """What to mend on the store though the pod serves, such as the server's eviction policy."""


def _error_of(run: Run) -> tuple[str | None, str | None]:
    """The message and the type's name of an agent's error; the text of another end, and None.

    A worker ends a failed run with a result and with one text of both, ``ValueError: no``.
    """
    if run.error is None or run.state is not RunState.FAILED or run.result_size is None:
        return run.error, None
    name, _, message = run.error.partition(": ")
    return (message, name) if name.isidentifier() else (run.error, None)


def _moment(ms: int | None) -> datetime | None:
    return None if ms is None else datetime.fromtimestamp(ms / 1000, UTC)
