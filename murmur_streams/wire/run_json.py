"""A run as JSON, written and read: HTTP answers, the client and ``--json`` use this one mapping."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Self, cast

from pydantic import BaseModel, Field, JsonValue

from murmur_streams.core.json_values import encode_json
from murmur_streams.core.model.cursors import Cursor
from murmur_streams.core.model.errors import RunDamagedError
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
