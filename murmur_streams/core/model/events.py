"""The events of a run that its subscribers see."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field, JsonValue, SkipValidation


class RunEventType(StrEnum):
    """What a RunEvent tells. The first five are those of ``murmur.runs``."""

    AGENT_STARTED = "agent_started"
    AGENT_COMPLETED = "agent_completed"
    AGENT_FAILED = "agent_failed"
    GROUP_COMPLETED = "group_completed"
    RUN_CANCELLED = "run_cancelled"
    AGENT_OUTPUT = "agent_output"
    """A delta of output; ``data`` holds it."""
    LOG = "log"
    """A line for people; ``name`` is the level, ``data`` the message and its fields."""
    CUSTOM = "custom"
    """An event of the application's own; ``name`` and ``data`` are its choice."""


class RunEvent(BaseModel):
    """One event of a run's stream."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    type: RunEventType
    run_id: str
    agent: str | None = None
    """The agent's name; None for events of the run as a whole."""
    task_id: str | None = None
    error: str | None = None
    timestamp: datetime = Field(default_factory=lambda: datetime.now(tz=UTC))
    """When it happened, by the emitter's clock; must know its zone."""
    id: str | None = None
    """The cursor of this event, given by the store: resume with ``stream(after=event.id)``."""
    seq: int | None = None
    """The event's place in the journal, given by the store."""
    attempt: int | None = None
    """Which execution of the run told it, given by the store; None outside a worker."""
    name: str | None = None
    data: SkipValidation[JsonValue] = None
    """Any JSON value; checked when the event is written."""


_CLOSING_OF_ONE_AGENT = frozenset({RunEventType.AGENT_COMPLETED, RunEventType.AGENT_FAILED})


def is_closing(event_type: str, agent: str | None, target: str) -> bool:
    """Tell whether an event is the last word of a run on ``target``."""
    if event_type == RunEventType.GROUP_COMPLETED:
        return True
    return event_type in _CLOSING_OF_ONE_AGENT and agent in {None, "", target}
