"""What can be asked of a run, as data."""

from __future__ import annotations

from dataclasses import dataclass

from murmur_streams.core.entries import Fields
from murmur_streams.core.states import RunProgress, RunState


@dataclass(frozen=True, slots=True)
class Payload:
    """A stored JSON text, told in the journal by its size and hash."""

    text: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Create:
    """Begin a run."""

    target: str
    epoch: str
    input: Payload | None = None
    metadata_json: str | None = None


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
    """Hand a pending run to a worker."""

    worker: str
    claim: str


@dataclass(frozen=True, slots=True)
class Release:
    """Take a running run back from its worker: it waits again.

    ``claim`` None is the reclaim of an expired lease.
    """

    reason: str
    claim: str | None = None


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
    | Delete
)
