"""The events of a run, as its subscribers see them."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from functools import partial

from pydantic import BaseModel, ConfigDict, Field, JsonValue, SkipValidation


class RunEventType(StrEnum):
    """The kinds of events. The first five are those of ``murmur.runs``."""

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
    """An event of the application, which chooses ``name`` and ``data``."""


class RunEvent(BaseModel):
    """One event of a run's stream."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    type: RunEventType
    run_id: str
    agent: str | None = None
    """The agent's name; None for events of the run as a whole."""
    task_id: str | None = None
    error: str | None = None
    timestamp: datetime = Field(default_factory=partial(datetime.now, UTC))
    """When it happened, by the emitter's clock, with a time zone."""
    id: str | None = None
    """The cursor of this event, set by the store: resume with ``stream(after=event.id)``."""
    seq: int | None = None
    """The event's number in the journal, set by the store."""
    attempt: int | None = None
    """The number of the execution that emitted it, set by the store; None outside a worker."""
    name: str | None = None
    data: SkipValidation[JsonValue] = None
    """Any JSON value; checked when the event is written."""


_CLOSING_OF_ONE_AGENT = frozenset({RunEventType.AGENT_COMPLETED, RunEventType.AGENT_FAILED})


def is_closing(event_type: str, agent: str | None, target: str) -> bool:
    """Whether an event is a closing event of a run of ``target``: nothing comes after it."""
    if event_type == RunEventType.GROUP_COMPLETED:
        return True
    return event_type in _CLOSING_OF_ONE_AGENT and agent in {None, "", target}
