"""What a queue hands to workers, hears from them and tells them, as values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

MOST_RUNS_TOLD = 100
"""Of how many of its runs a worker tells the ids."""
BEATS_KEPT = 4
"""A worker that was silent for so many beats is no longer listed."""


@dataclass(frozen=True, slots=True)
class TargetRule:
    """A target that a worker executes, and what the claim script must know of it."""

    name: str
    max_attempts: int = 0
    """How many executions of a run may begin that are not excused; 0 for any number."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A run that a worker holds."""

    run_id: str
    target: str
    attempt: int
    token: str
    """The fencing token: every write of this execution carries it."""
    version: int
    input_json: str | None
    failures: int = 0
    """How many executions failed before this one."""
    excused: int = 0
    """How many executions before this one do not count against the most attempts."""
    deadline_ms: int | None = None
    """When the run fails if it has not ended, Unix milliseconds."""
    checkpoint_json: str | None = None
    """What an execution before this one kept."""
    trace: Mapping[str, str] = field(default_factory=dict[str, str], hash=False)
    """The W3C headers that the submitter passed."""
    deadline_left_seconds: float | None = None
    """How long it was to ``deadline_ms`` at the moment of the claim, by the server's clock."""


@dataclass(frozen=True, slots=True)
class Claimed:
    """What a worker got, and when it should ask again."""

    claims: list[Claim]
    next_due_seconds: float | None
    """How long until the next delayed run of the targets is due; 0: ask again at once; None: there
    is none that was asked for. A delayed run that is submitted meanwhile wakes a worker."""


@dataclass(frozen=True, slots=True)
class Beat:
    """A claim that its worker still holds."""

    claim: Claim
    silent_after_seconds: float | None = None
    """How long it may write nothing before the run is told to be silent; None for ever."""


class Word(StrEnum):
    """What a worker is told of a claim."""

    LOST = "lost"
    """The claim is over."""
    CANCEL = "cancel"
    """The run is to end cancelled; told again with every heartbeat."""
    SILENT = "silent"
    """The execution has written nothing for long; told once a silence."""


@dataclass(frozen=True, slots=True)
class Told:
    """A word on one claim."""

    claim: Claim
    what: Word


@dataclass(frozen=True, slots=True)
class Tended:
    """What became of the runs that nobody cared for: their ids."""

    handed_on: list[str]
    """Their leases ran out; they wait again."""
    ended: list[str]
    """Ended: cancelled, overdue, or without an owner."""


@dataclass(frozen=True, slots=True)
class ControlMessage:
    """What a worker is woken with."""

    kind: str
    """``cancel``; others may come."""
    run_id: str
    claim: str
    """The fencing token of the claim that it is about."""


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """What a worker tells of itself."""

    id: str
    host: str
    pid: int
    version: str
    """Of this package."""
    python: str
    targets: Sequence[str]
    concurrency: int
    started_ms: int
    """Unix milliseconds, by the worker's clock."""
    state: str
    """``working``, ``draining``, or ``blocked``: its slots wait for runs that it should begin."""
    held: int
    """How many runs it executes."""
    runs: Sequence[str]
    """The ids of those runs, up to 100."""
    last_beat_ms: int = 0
    """When it was heard of last, Unix milliseconds by the server's clock."""
