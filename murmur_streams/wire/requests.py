"""The bodies of requests, checked strictly: unknown members and wrong types are refused."""

from __future__ import annotations

import re
from typing import Annotated, Any, cast

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    model_validator,
)

from murmur_streams.core.model.identifiers import check_target
from murmur_streams.core.rules.requests import MOST_PRIORITY
from murmur_streams.wire.submit_options import (
    ClientSubmitOptions,
    CommonSubmitOptions,
    check_options,
)

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
