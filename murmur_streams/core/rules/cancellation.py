"""How far a request to cancel a run has come, read from the run and its journal."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime

from murmur_streams.core.model.entries import EntryType, JournalEntry
from murmur_streams.core.model.run import Run, moment_of
from murmur_streams.core.model.states import RunState

CANCEL_ENTRY_TYPES = {EntryType.CANCEL_REQUESTED, EntryType.CANCEL_DELIVERED, EntryType.STATE}
"""The types of the entries that record the steps of a cancel."""


@dataclass(frozen=True, slots=True)
class Cancellation:
    """How far a cancel has come. Times are UTC, by the server's clock."""

    state: RunState
    """The run's state. ``running``: the handler is being notified, the run will end cancelled."""
    requested: datetime | None = None
    """When the cancel was first requested; None when the run had ended before."""
    delivered: datetime | None = None
    """When a worker last delivered it to a handler; None while none has, or when no handler ran."""
    stopped: datetime | None = None
    """When the run ended cancelled; None when it has not, or ended otherwise."""
    how: str | None = None
    """How the run stopped: ``handler`` (the handler ended), ``grace`` (it did not end within its
    grace time and was abandoned), ``pending`` (it never ran), ``worker_lost``. None when the run
    has not stopped, or the reason was not recorded."""


def recorded_cancellation(run: Run) -> Cancellation:
    """The part that is stored in the run itself."""
    ended = run.ended_ms if run.state is RunState.CANCELLED else None
    return Cancellation(
        run.state,
        moment_of(run.cancel_requested),
        moment_of(run.cancel_delivered),
        moment_of(ended),
    )


def cancellation_after(entries: Iterable[JournalEntry], before: Cancellation) -> Cancellation:
    """A cancellation as it stands after further entries of the journal."""
    found = before
    for entry in entries:
        at = moment_of(int(entry.fields.get("at") or entry.ms))
        if entry.type == EntryType.CANCEL_REQUESTED:
            found = replace(found, requested=at)
        elif entry.type == EntryType.CANCEL_DELIVERED:
            found = replace(found, delivered=at)
        elif entry.type == EntryType.STATE:
            found = replace(found, state=RunState(entry.fields["state"]))
            if found.state is RunState.CANCELLED:
                found = replace(found, stopped=at, how=entry.fields.get("stopped"))
    return found
