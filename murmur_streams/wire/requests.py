"""The bodies of requests, checked strictly, and the options of a submission."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Annotated, Any, TypedDict, cast

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    model_validator,
)

from murmur_streams.core.json_values import copy_json
from murmur_streams.core.model.errors import InvalidInputError
from murmur_streams.core.model.limits import check_run_id, check_seconds, check_target
from murmur_streams.core.rules.requests import MOST_PRIORITY, check_priority, due_milliseconds

LONGEST_KEY = 1_024
"""Characters of an idempotency key."""
LONGEST_HEADER_KEY = 255
"""Characters of an idempotency key that travels by HTTP, in the header Idempotency-Key."""


class CommonSubmitOptions(TypedDict, total=False):
    """The options that every way to submit has; ``Fleet.submit`` explains them."""

    run_id: str | None
    metadata: Mapping[str, JsonValue] | None
    idempotency_key: str | None
    delay: float | timedelta | None
    at: datetime | None
    priority: int
    deadline: float | timedelta | None
    trace: Mapping[str, str] | None


class SubmitOptions(CommonSubmitOptions, total=False):
    """The keywords of ``Fleet.submit``."""

    tenant: str | None


class ClientSubmitOptions(CommonSubmitOptions, total=False):
    """The keywords of a client's ``submit``."""

    wait: float | None


class CheckedOptions(TypedDict, total=False):
    """The options that say what a request asks for, as ``WorkStore.submit`` takes them."""

    metadata: Mapping[str, JsonValue] | None
    priority: int
    delay_seconds: float
    at: datetime | None
    deadline_seconds: float | None


def check_options(options: CommonSubmitOptions, kind: type = CommonSubmitOptions) -> CheckedOptions:
    """Check all options whose rules need neither a store nor a server.

    The metadata is copied: the caller may change its values while the submission is awaited.

    Args:
        options: the caller's.
        kind: the TypedDict that has them.

    Raises:
        TypeError: an option does not exist.
        InvalidInputError: an option breaks a rule, or two exclude each other; the text names it.
    """
    if unknown := options.keys() - kind.__annotations__.keys():
        raise TypeError(f"a submission has no option {', '.join(sorted(unknown))}")
    run_id, key = options.get("run_id"), options.get("idempotency_key")
    metadata, at = options.get("metadata"), options.get("at")
    delay, deadline = options.get("delay"), options.get("deadline")
    if run_id is not None and key is not None:
        raise InvalidInputError("pass run_id or idempotency_key, not both: the key makes the id")
    if run_id is not None:
        check_run_id(run_id)
    if delay is not None and at is not None:
        raise InvalidInputError("pass delay or at, not both")
    if at is not None:
        due_milliseconds(at)
    if metadata is not None and not isinstance(cast("object", metadata), Mapping):
        raise InvalidInputError(f"metadata is {metadata!r}, but must be a mapping of names to JSON")
    copied = None if metadata is None else copy_json(dict(metadata), "the metadata")
    return CheckedOptions(
        metadata=cast("dict[str, JsonValue] | None", copied),
        priority=check_priority(options.get("priority", 0)),
        delay_seconds=0.0 if delay is None else _seconds("delay", delay, least=0),
        at=at,
        deadline_seconds=None if deadline is None else _seconds("deadline", deadline, least=0.001),
    )


def _seconds(name: str, given: float | timedelta, *, least: float) -> float:
    seconds = given.total_seconds() if isinstance(given, timedelta) else given
    return check_seconds(name, seconds, least=least)


MOST_TASKS = 1_000
_MEMBER_NAMES = ("title", "description", "default")
"""The parts of a schema that describe a member, and not its values."""
_RFC_3339 = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}.*")


def _nullable(schema: dict[str, Any]) -> None:
    """Let a model's schema allow null for each optional member."""
    for name, rule in schema["properties"].items():
        if name in schema.get("required", ()) or not ({"type", "$ref"} & rule.keys()):
            continue
        described = {part: rule.pop(part) for part in _MEMBER_NAMES if part in rule}
        schema["properties"][name] = {"anyOf": [rule, {"type": "null"}], **described}


class RequestBody(BaseModel):
    """A body from outside. A null for an optional member is the same as leaving it out."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, allow_inf_nan=False, json_schema_extra=_nullable
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
    # Without this check, pydantic would take a number as seconds since 1970.
    if isinstance(value, str) and _RFC_3339.fullmatch(value):
        return value
    raise ValueError("must be a date and time of RFC 3339 with its zone")


Moment = Annotated[AwareDatetime, Field(strict=False), BeforeValidator(_as_text)]


class Task(RequestBody):
    """One piece of work."""

    id: str | None = Field(None, description="The client's own name for it; not stored.")
    request_id: str | None = Field(None, description="The client's own; not stored.")
    input: JsonValue = Field(
        None, description="The agent's input. Text is decoded for an agent whose input is not text."
    )
    metadata: dict[str, JsonValue] | None = Field(None, description="Stored with the run.")


class SubmitRequest(RequestBody):
    """Work to be queued."""

    target: str = Field(description="The name of an agent.")
    is_group: bool = False
    task: Task
    request_id: str | None = Field(None, description="The client's own; not stored.")
    run_id: str | None = Field(None, description="Left out: the server draws one.")
    delay: float | None = Field(None, ge=0, description="Seconds from now until it may start.")
    at: Moment | None = Field(None, description="When it may start; instead of a delay.")
    priority: int = Field(0, ge=-MOST_PRIORITY, le=MOST_PRIORITY)
    deadline: float | None = Field(
        None, gt=0, description="The run must end within so many seconds after it was due."
    )

    @property
    def options(self) -> CommonSubmitOptions:
        """The options, as ``Fleet.submit`` takes them."""
        return CommonSubmitOptions(
            run_id=self.run_id,
            metadata=self.task.metadata,
            delay=self.delay,
            at=self.at,
            priority=self.priority,
            deadline=self.deadline,
        )


def submit_body(target: str, given: object, options: ClientSubmitOptions) -> dict[str, Any]:
    """The JSON of a SubmitRequest; members that have their defaults are left out.

    Raises:
        InvalidInputError: the target or an option breaks a rule.
    """
    checked = check_options(options, ClientSubmitOptions)
    at = checked.get("at")
    return _present(
        target=check_target(target),
        task=_present(input=given, metadata=checked.get("metadata")),
        run_id=options.get("run_id"),
        delay=checked.get("delay_seconds") or None,
        at=None if at is None else at.isoformat(),
        priority=checked.get("priority") or None,
        deadline=checked.get("deadline_seconds"),
    )


def _present(**values: object) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


class RunRequest(RequestBody):
    """Work whose end the answer waits for."""

    task: Task
    request_id: str | None = Field(None, description="The client's own; not stored.")


class GatherRequest(RequestBody):
    """Several pieces of work for one agent."""

    tasks: Annotated[list[Task], Field(max_length=MOST_TASKS)]
    max_concurrency: int = Field(100, ge=1, le=MOST_TASKS)
    request_id: str | None = Field(None, description="The client's own; not stored.")


class CancelRequest(RequestBody):
    """A reason to cancel a run."""

    reason: str | None = Field(None, description="A line for people, stored with the run.")
