"""The results of runs: typed envelopes around an agent's output or error."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any, Generic, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

T = TypeVar("T")


class TaskSpec(BaseModel):
    """One piece of work for an agent."""

    model_config = ConfigDict(frozen=True)

    id: str = Field(default_factory=lambda: str(uuid.uuid4()))
    request_id: str = Field(default_factory=lambda: str(uuid.uuid4()))
    input: str
    """A plain string, or JSON text of a structure."""
    metadata: Mapping[str, str] = Field(default_factory=dict[str, str])


class ResultMetadata(BaseModel):
    """The cost of a result and the backend that made it."""

    model_config = ConfigDict(frozen=True)

    duration_ms: int = 0
    tokens_used: int = 0
    cost_usd: float = 0.0
    backend: str = ""
    trace_id: str | None = None


class AgentResult(BaseModel, Generic[T]):
    """The outcome of one agent: either ``output`` or ``error`` is set."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    output: T | None = None
    """A pydantic model or any JSON value."""
    error: BaseException | None = None
    metadata: ResultMetadata = Field(default_factory=ResultMetadata)
    agent_name: str
    task_id: str

    def is_ok(self) -> bool:
        """Whether there is an output and no error."""
        return self.error is None and self.output is not None


class GroupResult(BaseModel):
    """The outcomes of a group's terminal agents, by agent name."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    outputs: Mapping[str, AgentResult[Any]]
    metadata: ResultMetadata = Field(default_factory=ResultMetadata)

    @model_validator(mode="after")
    def _own_the_mapping(self) -> Self:
        # The caller may change its dict later, and the result must not change with it.
        object.__setattr__(self, "outputs", dict(self.outputs))
        return self

    @property
    def terminal(self) -> AgentResult[Any]:
        """The only outcome; ValueError when there are several or none."""
        if len(self.outputs) != 1:
            raise ValueError(
                f"this GroupResult has {len(self.outputs)} outcomes, not 1; "
                "pick one by name from .outputs"
            )
        return next(iter(self.outputs.values()))


RunResult = AgentResult[Any] | GroupResult
