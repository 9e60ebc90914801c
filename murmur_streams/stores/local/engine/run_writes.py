"""RunWrites: decides commands by the core, and notes what a group of writes changes.

It runs in the writer's thread. Its changes become visible all at once when the group is committed;
until then they are in ``changes``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace

from murmur_streams.core.model.commands import (
    Append,
    Checkpoint,
    Command,
    Create,
    Delete,
    Finish,
    PushEvent,
    SetResult,
)
from murmur_streams.core.model.entries import EntryType, JournalEntry
from murmur_streams.core.model.run import PayloadKind, Run, changed
from murmur_streams.core.rules.decide import Decision, Now, decide
from murmur_streams.core.rules.evolve import evolve
from murmur_streams.core.rules.requests import LETTER_TEXTS
from murmur_streams.stores.local.engine.bookkeeping import RunDurations, advanced, is_due, keep
from murmur_streams.stores.local.engine.database import Changes, Database, RunChange, Space, Stored

DUE_RUNS = 2
"""Each begin and end of a run also ends so many due runs, so that housekeeping is optional."""
_PLAIN = (Append, PushEvent)


@dataclass(slots=True)
class KnownRows:
    """The writer's knowledge of a database, which it need not read again."""

    runs: dict[str, Stored] = field(default_factory=dict[str, Stored])
    """Runs as they were committed last, the oldest first; any thread may read it."""
    damaged: set[str] = field(default_factory=set[str])
    """Runs that housekeeping could not read."""
    first_due_ms: int = 0
    """Before this moment no run expires or is overdue."""

    def forget(self) -> None:
        """Another process wrote."""
        self.runs.clear()
        self.first_due_ms = 0


@dataclass(slots=True)
class Written:
    """The effect of a write on a run, for subscribers and workers of this process."""

    run_id: str
    before: Stored | None
    after: Stored | None
    """None: the run was removed."""
    entries: tuple[JournalEntry, ...] = ()


@dataclass(slots=True)
class RunWrites:
    """One group of writes.

    Args:
        database: begun; for rows that were committed before.
        known: shared by all groups of a writer.
        durations: of the store.
        now: the group's moment, and the journal's cap.
    """

    database: Database
    known: KnownRows
    durations: RunDurations
    now: Now
    changes: Changes = field(default_factory=Changes)
    written: list[Written] = field(default_factory=lambda: [])
    due_runs: int = 0
    """How many due runs the group ends or removes before its end."""

    _read: dict[str, Stored | None] = field(default_factory=lambda: {})
    """Runs that were not known, as this group read them."""

    @property
    def now_ms(self) -> int:
        """The group's moment, Unix milliseconds."""
        return self.now.server_ms

    def stored(self, run_id: str) -> Stored | None:
        """The run as it is now; None when it does not exist, or has expired."""
        change = self.changes.runs.get(run_id)
        found = self._committed(run_id) if change is None else change.after
        return None if found is None or is_due(found, self.now.server_ms) else found

    def perform(self, run_id: str, command: Command) -> Decision:
        """Decide a command and apply it; a refused one changes nothing."""
        before = self.stored(run_id)
        decision = decide(None if before is None else before.run, run_id, command, self.now)
        if decision.progress is not None and before is not None:
            run = changed(before.run, progress=decision.progress, progress_dirty=True)
            self._put(run_id, keep(before, run, self.now_ms, self.durations))
        if decision.entries:
            self._apply(run_id, before, command, decision)
        return decision

    def lease(self, run_id: str, until_ms: int) -> None:
        """Extend a claimed run's lease after a heartbeat of its worker."""
        before = self.stored(run_id)
        if before is not None and before.run.claim is not None:
            after = keep(before, before.run, self.now_ms, self.durations)
            self._put(run_id, replace(after, lease_until_ms=until_ms))

    def put(self, space: Space, key: str, text: str | None) -> None:
        """Store a text beside the runs; None removes it."""
        self.changes.items[space, key] = text

    def _found(self, run_id: str) -> Stored | None:
        """The stored run, expired or not; None when it does not exist."""
        change = self.changes.runs.get(run_id)
        return self._committed(run_id) if change is None else change.after

    def _committed(self, run_id: str) -> Stored | None:
        """The stored run as it was before the group."""
        known = self.known.runs.get(run_id)
        if known is not None:
            return known
        if run_id not in self._read:
            self._read[run_id] = self.database.stored(run_id)
        return self._read[run_id]

    def _change(self, run_id: str, after: Stored | None) -> RunChange:
        change = self.changes.runs.get(run_id)
        if change is None:
            change = self.changes.runs[run_id] = RunChange(self._committed(run_id), after)
        change.after = after
        change.is_plain = False
        return change

    def _put(self, run_id: str, after: Stored) -> None:
        before = self._found(run_id)
        self._change(run_id, after)
        self.written.append(Written(run_id, before, after))

    def _remove(self, run_id: str, before: Stored) -> None:
        self._change(run_id, None)
        self.written.append(Written(run_id, before, None))

    def _apply(
        self, run_id: str, before: Stored | None, command: Command, decision: Decision
    ) -> None:
        run, feed = None if before is None else before.run, self.changes.feed
        for entry in decision.entries:
            run = evolve(run, entry)
            feed.append((run.target, entry))
        assert run is not None  # noqa: S101  # there are entries
        after: Stored | None = None
        if before is not None and isinstance(command, _PLAIN) and _is_only_longer(before.run, run):
            after = advanced(before, run, self.now.server_ms, self.durations)
        if after is None:
            after = self._apply_more(run_id, before, run, command, decision)
        else:
            change = self.changes.runs.get(run_id)
            if change is None:
                change = self.changes.runs[run_id] = RunChange(before, after)
            change.after = after
            change.entries += decision.entries
        self.written.append(Written(run_id, before, after, decision.entries))

    def _apply_more(
        self, run_id: str, before: Stored | None, run: Run, command: Command, decision: Decision
    ) -> Stored | None:
        """Note the changes beside the version; the bookkeeping afterwards."""
        after = keep(before, run, self.now_ms, self.durations)
        change = self._change(run_id, after)
        if isinstance(command, Create):
            change.is_new_life = change.before is not None
            change.entries, change.payloads = [], {}
        change.entries += decision.entries
        most = self.now.max_events
        if decision.entries[-1].type == EntryType.SNAPSHOT and run.version > most:
            change.keep_from_seq = run.version - most + 1
        self._keep_payloads(change, command, decision.entries)
        if decision.dead is not None:
            self._bury(run, decision.dead)
        if isinstance(command, Create) or run.state.is_terminal:
            self.due_runs += DUE_RUNS
        if isinstance(command, Delete):
            change.after = None
        return change.after

    def _keep_payloads(
        self, change: RunChange, command: Command, entries: tuple[JournalEntry, ...]
    ) -> None:
        if isinstance(command, Create) and command.input is not None:
            change.payloads[PayloadKind.INPUT] = command.input.text
        elif isinstance(command, (SetResult, Finish)) and command.result is not None:
            # A result that the core dropped leaves no entry, and must not be stored.
            if any(entry.type == EntryType.RESULT for entry in entries):
                change.payloads[PayloadKind.RESULT] = command.result.text
        elif isinstance(command, Checkpoint):
            change.payloads[PayloadKind.CHECKPOINT] = command.value.text

    def _bury(self, run: Run, reason: str) -> None:
        letter = {
            **{name: getattr(run, name) for name in LETTER_TEXTS},
            "reason": reason,
            "attempts": str(run.attempt),
            "failures": str(run.failures),
            "input": self._payload(run.run_id, PayloadKind.INPUT),
            "priority": str(run.priority) if run.priority else None,
            "deadline_span": None if run.deadline_span_ms is None else str(run.deadline_span_ms),
            "at": str(run.ended_ms),
        }
        present = {name: text for name, text in letter.items() if text is not None}
        key = f"{run.target}/{run.ended_ms or 0:013d}/{run.run_id}"
        self.put(Space.DEAD, key, json.dumps(present, ensure_ascii=False))
        self.put(Space.DEAD_RUNS, run.run_id, key)

    def _payload(self, run_id: str, kind: PayloadKind) -> str | None:
        change = self.changes.runs.get(run_id)
        if change is not None and (kind in change.payloads or change.is_new_life):
            return change.payloads.get(kind)
        return self.database.payload(run_id, kind)


def _is_only_longer(before: Run, after: Run) -> bool:
    """Whether events changed only the version of a run, and when it was written last."""
    return (
        after.closing == before.closing
        and after.cancel_event == before.cancel_event
        and after.seal == before.seal
        and after.snapshot == before.snapshot
    )
