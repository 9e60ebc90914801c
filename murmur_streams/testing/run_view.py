"""One run's part of a history, and what the store has of the run."""

from __future__ import annotations

from dataclasses import dataclass

from murmur_streams.core.model import commands
from murmur_streams.core.model.entries import Fields, JournalEntry
from murmur_streams.testing.history import (
    Call,
    History,
    Outcome,
    ReaderSession,
    ReportedLoss,
    StoredRun,
)

_OF_STORES = frozenset({"attempt", "seal", "late"})
"""Fields that a store adds to an event."""


@dataclass(slots=True)
class RunView:
    """A run's part of a history, and what the store has of the run."""

    run_id: str
    calls: list[Call]
    readers: list[ReaderSession]
    feeds: list[list[JournalEntry]]
    stored: StoredRun
    is_whole: bool
    may_rewind: bool
    losses: list[ReportedLoss]
    seqs_of: dict[frozenset[tuple[str, str]], list[int]]
    """The seqs of each event in the journal, by its own fields."""

    @classmethod
    def of(cls, history: History, run_id: str, stored: StoredRun) -> RunView:
        """Select a run's part of a history."""
        seqs_of: dict[frozenset[tuple[str, str]], list[int]] = {}
        for entry in stored.journal:
            seqs_of.setdefault(own_fields(entry.fields), []).append(entry.seq)
        return cls(
            run_id,
            [call for call in history.calls if call.run_id == run_id],
            [reader for reader in history.readers if reader.run_id == run_id],
            [[each.entry for each in feed if each.run_id == run_id] for feed in history.feeds],
            stored,
            history.is_whole,
            history.may_rewind,
            [loss for loss in history.losses if loss.run_id == run_id],
            seqs_of,
        )

    @property
    def first_seq(self) -> int:
        """The seq of the oldest entry that was not trimmed away."""
        return self.stored.journal[0].seq if self.stored.journal else 1

    @property
    def was_deleted(self) -> bool:
        """Whether a call may have deleted the run."""
        return any(
            isinstance(call.command, commands.Delete) and call.outcome is not Outcome.REFUSED
            for call in self.calls
        )

    def is_reported(self, call: Call) -> bool:
        """Whether the program of an acknowledged call learned later that it may be lost."""
        return any(
            loss.program == call.program and loss.moment >= call.ended for loss in self.losses
        )

    def seqs_of_write(self, command: commands.Command) -> list[list[int]]:
        """The seqs of each event of a command, without events that were trimmed away."""
        seqs = [self.seqs(event) for event in events_of(command)]
        while self.first_seq > 1 and seqs and not seqs[0] and [self.first_seq] in seqs:
            seqs.pop(0)
        return seqs

    def seqs(self, event: Fields) -> list[int]:
        """Where an event is in the journal."""
        return self.seqs_of.get(own_fields(event), [])


def own_fields(fields: Fields) -> frozenset[tuple[str, str]]:
    """The fields of an event without those that a store adds."""
    return frozenset(item for item in fields.items() if item[0] not in _OF_STORES)


def events_of(command: commands.Command) -> tuple[Fields, ...]:
    """The events that a command writes."""
    if isinstance(command, commands.Append):
        return command.events
    if isinstance(command, commands.PushEvent):
        return (command.event,)
    if isinstance(command, commands.Finish) and command.event is not None:
        return (command.event,)
    return ()
