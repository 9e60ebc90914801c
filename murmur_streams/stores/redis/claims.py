"""What the queue hands to workers and hears from them, as values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from murmur_streams.core.decision import Answer
from murmur_streams.stores.redis.server import pairs


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


def read_groups(flat: Answer) -> Iterator[tuple[str, dict[str, str]]]:
    """Read what the claim script tells: of each group its kind and its fields."""
    place = 0
    while place < len(flat):
        first = place + 2
        end = first + int(flat[place + 1])
        fields = flat[first:end]
        yield flat[place], dict(zip(fields[::2], fields[1::2], strict=True))
        place = end


def read_claim(fields: Mapping[str, str]) -> Claim:
    """Read a claim from the fields that the script told."""
    deadline, left = fields.get("deadline_ms"), fields.get("deadline_left_ms")
    return Claim(
        run_id=fields["run_id"],
        target=fields["target"],
        attempt=int(fields["attempt"]),
        token=fields["claim"],
        version=int(fields["version"]),
        input_json=fields.get("input"),
        failures=int(fields.get("failures", 0)),
        excused=int(fields.get("excused", 0)),
        deadline_ms=None if deadline is None else int(deadline),
        deadline_left_seconds=None if left is None else int(left) / 1000,
        checkpoint_json=fields.get("checkpoint"),
        trace={name: fields[name] for name in ("traceparent", "tracestate") if name in fields},
    )


def read_message(raw: list[Any]) -> ControlMessage:
    """Read an entry of a control stream."""
    fields = pairs(raw)
    return ControlMessage(fields.get("kind", ""), fields.get("run", ""), fields.get("claim", ""))
