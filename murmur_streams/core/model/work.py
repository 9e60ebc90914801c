"""Values that a queue and its workers exchange: claims, heartbeats, notices and worker records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

MAX_REPORTED_RUNS = 100
"""A worker lists the ids of at most this many of its runs."""
MAX_SILENT_BEATS = 4
"""After this many missed heartbeats a worker leaves the list of live workers."""


@dataclass(frozen=True, slots=True)
class TargetRule:
    """A target that a worker executes, and its limits that the claim applies."""

    name: str
    max_attempts: int = 0
    """How many executions of a run may begin, excused ones not counted; 0 for no limit."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A run that a worker holds, with what it needs to execute it."""

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
    """The last checkpoint of an earlier execution; None without one."""
    trace: Mapping[str, str] = field(default_factory=dict[str, str], hash=False)
    """The W3C trace headers that the submitter passed."""
    deadline_left_seconds: float | None = None
    """Seconds from the claim to ``deadline_ms``, by the server's clock."""


@dataclass(frozen=True, slots=True)
class Claimed:
    """The answer to one claim call: the runs, and when to call again."""

    claims: list[Claim]
    next_due_seconds: float | None
    """Seconds until the next delayed run of the targets is due. 0: call again at once. None: the
    targets have no delayed run. A delayed run that is submitted later wakes a worker."""


@dataclass(frozen=True, slots=True)
class Beat:
    """A claim that its worker still holds."""

    claim: Claim
    silent_after_seconds: float | None = None
    """After this long without a write the run is recorded as silent; None for never."""


class NoticeKind(StrEnum):
    """The kinds of notices about a claim."""

    LOST = "lost"
    """The worker no longer holds the claim."""
    CANCEL = "cancel"
    """A cancel was requested; repeated with every heartbeat until the run ends."""
    SILENT = "silent"
    """The execution has written nothing for too long; reported once per silence."""


@dataclass(frozen=True, slots=True)
class ClaimNotice:
    """A notice about one claim, part of the answer to a heartbeat."""

    claim: Claim
    kind: NoticeKind


@dataclass(frozen=True, slots=True)
class Housekeeping:
    """The result of one round of housekeeping: the ids of the runs that it changed."""

    requeued: list[str]
    """Their leases expired; they are pending again."""
    ended: list[str]
    """Ended by the round: cancelled, overdue, or without an owner."""


@dataclass(frozen=True, slots=True)
class ControlMessage:
    """A message on a worker's control stream, which wakes the worker."""

    kind: str
    """``cancel``; ignore other kinds, which later versions may send."""
    run_id: str
    claim: str
    """The fencing token of the claim that the message is about."""


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """The record of a live worker, which it renews with every heartbeat."""

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
    """``working``, ``draining``, or ``blocked``: all its slots wait for other runs."""
    held: int
    """How many runs it executes."""
    runs: Sequence[str]
    """The ids of those runs, up to 100."""
    last_beat_ms: int = 0
    """When it was heard of last, Unix milliseconds by the server's clock."""
