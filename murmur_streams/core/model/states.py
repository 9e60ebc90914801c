"""The states of a run, and the table of what each change of state does."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from itertools import product
from types import MappingProxyType

from pydantic import BaseModel, ConfigDict


class RunState(StrEnum):
    """The states of a run. The last three are terminal."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_terminal(self) -> bool:
        """True when no command can change the state any more."""
        return self in TERMINAL_STATES


TERMINAL_STATES: frozenset[RunState] = frozenset(
    {RunState.COMPLETED, RunState.FAILED, RunState.CANCELLED}
)


class Change(StrEnum):
    """The effect of ``set_state`` in one cell of the table: nothing, a new state, or the end."""

    NONE = "none"
    ENTER = "enter"
    END = "end"


def _change(current: RunState, wanted: RunState) -> Change:
    if current.is_terminal or current is wanted:
        return Change.NONE
    return Change.END if wanted.is_terminal else Change.ENTER


CHANGES: Mapping[tuple[RunState, RunState], Change] = MappingProxyType(
    {(current, wanted): _change(current, wanted) for current, wanted in product(RunState, RunState)}
)
"""(current, wanted) -> what happens. Lua has the same rules; a property test holds them equal."""


class RunProgress(BaseModel):
    """Counters that a run reports while it works."""

    model_config = ConfigDict(frozen=True)

    total: int = 0
    completed: int = 0
    failed: int = 0
    running: int = 0


PROGRESS_FIELDS = tuple(RunProgress.model_fields)


class RunStatus(BaseModel):
    """A run's state and progress at one moment."""

    model_config = ConfigDict(frozen=True)

    run_id: str
    state: RunState
    progress: RunProgress | None = None
    """None until the first update."""
