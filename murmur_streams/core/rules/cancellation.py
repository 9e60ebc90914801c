"""What became of a request to cancel a run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from murmur_streams.core.model.entries import EntryType, JournalEntry
from murmur_streams.core.model.run import Run
from murmur_streams.core.model.states import RunState

TELLING = frozenset({EntryType.CANCEL_REQUESTED, EntryType.CANCEL_DELIVERED, EntryType.STATE})
"""The types of the entries that tell of a cancel."""


@dataclass(frozen=True, slots=True)
class Cancellation:
    """How far a cancel has come. Times are UTC, by the server's clock."""

    state: RunState
    """The run's. ``running``: its handler is being told, and the run will end cancelled."""
    requested: datetime | None = None
    """When it was first asked for; None when the run had ended before."""
    delivered: datetime | None = None
    """When a worker last told it to a handler; None when none had to be told, or none yet was."""
    stopped: datetime | None = None
    """When the run ended cancelled; None when it has not, or ended otherwise."""
    how: str | None = None
    """What stopped it: ``handler`` (it ended), ``grace`` (it did not, and was left behind),
    ``pending`` (it never ran), ``worker_lost``; None when it has not stopped, or nobody told."""


def known_of(run: Run) -> Cancellation:
    """What the run itself knows."""
    ended = run.ended_ms if run.state is RunState.CANCELLED else None
    return Cancellation(
        run.state, _moment(run.cancel_requested), _moment(run.cancel_delivered), _moment(ended)
    )


def told_by(entries: Iterable[JournalEntry], before: Cancellation) -> Cancellation:
    """What the journal's entries add to what was known before them."""
    found = before
    for entry in entries:
        at = _moment(int(entry.fields.get("at") or entry.ms))
        if entry.type == EntryType.CANCEL_REQUESTED:
            found = replace(found, requested=at)
        elif entry.type == EntryType.CANCEL_DELIVERED:
            found = replace(found, delivered=at)
        elif entry.type == EntryType.STATE:
            found = replace(found, state=RunState(entry.fields["state"]))
            if found.state is RunState.CANCELLED:
                found = replace(found, stopped=at, how=entry.fields.get("stopped"))
    return found


def _moment(ms: int | None) -> datetime | None:
    return None if ms is None else datetime.fromtimestamp(ms / 1000, UTC)
