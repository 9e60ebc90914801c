"""What can be asked of a run, as data."""

from __future__ import annotations

from dataclasses import dataclass

from murmur_streams.core.model.entries import Fields
from murmur_streams.core.model.states import RunProgress, RunState


@dataclass(frozen=True, slots=True)
class Payload:
    """A stored JSON text, told in the journal by its size and hash."""

    text: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Create:
    """Begin a run. What it holds from ``queued`` on is only of use to one that is."""

    target: str
    epoch: str
    input: Payload | None = None
    metadata_json: str | None = None
    tenant: str | None = None
    """Whose run it is."""
    queued: bool = False
    """Whether it waits in its target's queue for a worker."""
    priority: int = 0
    delay_ms: int = 0
    """How long from now on nobody may start it."""
    due_ms: int | None = None
    """Before when nobody may start it, instead of a delay."""
    deadline_ms: int = 0
    """How long after it is due it fails if it has not ended; 0 for never."""
    traceparent: str | None = None
    tracestate: str | None = None
    request_sha256: str | None = None
    """The digest of what the submitter sent with its idempotency key."""


@dataclass(frozen=True, slots=True)
class Append:
    """Add events to a run that has not ended, all or none."""

    events: tuple[Fields, ...]
    expected_version: int | None = None
    claim: str | None = None


@dataclass(frozen=True, slots=True)
class PushEvent:
    """Add one event, also after the end."""

    event: Fields


@dataclass(frozen=True, slots=True)
class SetState:
    """Change the state as the table allows."""

    state: RunState


@dataclass(frozen=True, slots=True)
class Finish:
    """End a run in one step: result, last event, terminal state, seal."""

    state: RunState
    result: Payload | None = None
    event: Fields | None = None
    error: str | None = None
    claim: str | None = None
    dead: str | None = None
    """Why the run goes to the dead letters."""
    stopped: str | None = None
    """What made a cancelled execution stop."""


@dataclass(frozen=True, slots=True)
class UpdateProgress:
    """Replace the counters."""

    progress: RunProgress
    claim: str | None = None


@dataclass(frozen=True, slots=True)
class SetResult:
    """Store the result without ending the run."""

    result: Payload


@dataclass(frozen=True, slots=True)
class Seal:
    """End the stream of a run that became terminal without a closing event, once it is time."""


@dataclass(frozen=True, slots=True)
class Start:
    """Hand a pending run to a worker, or end one that may not be started any more."""

    worker: str
    claim: str
    host: str | None = None
    max_attempts: int = 0
    """How many executions may begin that are not excused; 0 for any number."""


@dataclass(frozen=True, slots=True)
class Release:
    """Hand a running run back: it waits again, or ends if its cancel was requested."""

    reason: str
    claim: str
    delay_ms: int = 0
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Reclaim:
    """Take a run back from a worker whose lease has run out."""


@dataclass(frozen=True, slots=True)
class RequestCancel:
    """Ask that a run end cancelled: at once when it waits, else by the hand of its worker."""

    reason: str | None = None
    host: str | None = None
    """Where it is asked for."""


@dataclass(frozen=True, slots=True)
class DeliverCancel:
    """Tell that the execution has learnt of the request."""

    claim: str


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Keep a value for the next execution."""

    value: Payload
    claim: str


@dataclass(frozen=True, slots=True)
class NoteSilence:
    """Tell that an execution whose worker lives has written nothing for this long."""

    claim: str
    silent_ms: int


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove a run; one that has not ended only with ``force``."""

    force: bool = False


Command = (
    Create
    | Append
    | PushEvent
    | SetState
    | Finish
    | UpdateProgress
    | SetResult
    | Seal
    | Start
    | Release
    | Reclaim
    | RequestCancel
    | DeliverCancel
    | Checkpoint
    | NoteSilence
    | Delete
)
