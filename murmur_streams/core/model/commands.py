"""The commands on a run, as data."""

from __future__ import annotations

from dataclasses import dataclass, fields

from murmur_streams.core.model.entries import Fields
from murmur_streams.core.model.states import RunProgress, RunState


@dataclass(frozen=True, slots=True)
class Payload:
    """A JSON text that is stored beside the journal, which has its size and hash."""

    text: str
    size: int
    sha256: str

    def fields(self, prefix: str = "") -> dict[str, str]:
        """Size and hash as fields of an entry."""
        return {f"{prefix}size": str(self.size), f"{prefix}sha256": self.sha256}


class Command:
    """A change of one run."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Create(Command):
    """Begin a run. The fields from ``queued`` on only matter to a queued run."""

    target: str
    epoch: str
    input: Payload | None = None
    metadata_json: str | None = None
    tenant: str | None = None
    """The tenant that owns the run."""
    queued: bool = False
    """Whether it waits in its target's queue for a worker."""
    priority: int = 0
    delay_ms: int = 0
    """How long from now the run waits before it may be started."""
    due_ms: int | None = None
    """The time from which the run may be started; instead of a delay."""
    deadline_ms: int = 0
    """A run that has not ended this long after it was due fails; 0 for never."""
    traceparent: str | None = None
    tracestate: str | None = None
    request_sha256: str | None = None
    """The digest of the request that came with an idempotency key."""


CREATED_TEXTS = tuple(each.name for each in fields(Create) if each.type == "str | None")
"""The texts that ``Create``, the ``run.created`` entry and the run have under one name."""


@dataclass(frozen=True, slots=True)
class Append(Command):
    """Add events to a run that has not ended, all or none."""

    events: tuple[Fields, ...]
    expected_version: int | None = None
    claim: str | None = None


@dataclass(frozen=True, slots=True)
class PushEvent(Command):
    """Add one event; it may come after the end."""

    event: Fields


@dataclass(frozen=True, slots=True)
class SetState(Command):
    """Change the state as the table allows."""

    state: RunState


@dataclass(frozen=True, slots=True)
class Finish(Command):
    """End a run in one step: result, last event, terminal state, seal."""

    state: RunState
    result: Payload | None = None
    event: Fields | None = None
    error: str | None = None
    claim: str | None = None
    dead: str | None = None
    """Why the run goes to the dead letters; None when it does not."""
    stopped: str | None = None
    """How a cancelled execution stopped: ``handler``, ``grace``, and so on."""


@dataclass(frozen=True, slots=True)
class UpdateProgress(Command):
    """Replace the counters."""

    progress: RunProgress
    claim: str | None = None


@dataclass(frozen=True, slots=True)
class SetResult(Command):
    """Store the result without ending the run."""

    result: Payload


@dataclass(frozen=True, slots=True)
class Seal(Command):
    """End the stream of a run that ended without a closing event, once its time has come."""


@dataclass(frozen=True, slots=True)
class Start(Command):
    """Start a pending run on a worker, or end a run that may not be started any more."""

    worker: str
    claim: str
    host: str | None = None
    max_attempts: int = 0
    """How many executions may begin, excused ones not counted; 0 for no limit."""


@dataclass(frozen=True, slots=True)
class Release(Command):
    """Give a running run back: it is pending again, or ends if its cancel was requested."""

    reason: str
    claim: str
    delay_ms: int = 0
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Reclaim(Command):
    """Take a run back from a worker whose lease has expired."""


@dataclass(frozen=True, slots=True)
class RequestCancel(Command):
    """Request that a run ends cancelled: at once when it is pending, else through its worker."""

    reason: str | None = None
    host: str | None = None
    """The host that the request comes from."""


@dataclass(frozen=True, slots=True)
class DeliverCancel(Command):
    """Record that the cancel request has reached the execution."""

    claim: str


@dataclass(frozen=True, slots=True)
class Checkpoint(Command):
    """Store a value for the next execution."""

    value: Payload
    claim: str


@dataclass(frozen=True, slots=True)
class NoteSilence(Command):
    """Record that an execution has written nothing for this long, although its worker lives."""

    claim: str
    silent_ms: int


@dataclass(frozen=True, slots=True)
class Delete(Command):
    """Remove a run; one that has not ended only with ``force``."""

    force: bool = False
