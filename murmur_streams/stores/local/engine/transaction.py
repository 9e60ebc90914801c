"""Transaction: the pure core over the rows of a database, for one group of writes.

It runs in the writer's thread. Its changes become visible all at once when the group is committed;
until then they are in ``changes``.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field, replace

from murmur_streams.core.archive.run_archive import RunArchive, check_same_life
from murmur_streams.core.model.commands import (
    Append,
    Checkpoint,
    Command,
    Create,
    Delete,
    Finish,
    PushEvent,
    Reclaim,
    SetResult,
)
from murmur_streams.core.model.dead_letters import LETTER_TEXTS
from murmur_streams.core.model.entries import EntryType, JournalEntry, copied_entry
from murmur_streams.core.model.errors import RunDamagedError, RunNotFoundError
from murmur_streams.core.model.run import PayloadKind, Run, changed
from murmur_streams.core.model.states import RunState
from murmur_streams.core.rules.decide import Decision, Now, decide
from murmur_streams.core.rules.evolve import evolve
from murmur_streams.core.rules.executions import DEADLINE_EXCEEDED
from murmur_streams.core.rules.failure_texts import DEADLINE_TEXT, NEGLECTED_TEXT
from murmur_streams.stores.local.engine.bookkeeping import (
    RunDurations,
    advanced,
    is_due,
    keep,
    with_ready_position,
)
from murmur_streams.stores.local.engine.database import (
    Changes,
    Database,
    Due,
    RunChange,
    Space,
    Stored,
)
from murmur_streams.stores.local.engine.folding import folded

logger = logging.getLogger("murmur_streams.store")

PAGE = 500
SWEPT_BY_A_WRITE = 2
"""Each begin and end of a run removes so many due runs, so that calling sweep is optional."""
_PLAIN = (Append, PushEvent)


@dataclass(slots=True)
class Written:
    """The effect of a write on a run, for subscribers and workers of this process."""

    run_id: str
    before: Stored | None
    after: Stored | None
    """None: the run was removed."""
    entries: tuple[JournalEntry, ...] = ()


@dataclass(slots=True)
class Transaction:
    """One group of writes.

    Args:
        database: begun; for rows that were committed before.
        known: stored runs that are known without a read, by id; never changed here.
        durations: of the store.
        max_events: the journal's cap; 0 for none.
        now_ms: the group's moment, Unix milliseconds.
    """

    database: Database
    known: dict[str, Stored]
    durations: RunDurations
    max_events: int
    now_ms: int
    changes: Changes = field(default_factory=Changes)
    written: list[Written] = field(default_factory=list[Written])
    damaged: set[str] = field(default_factory=set[str])
    """Runs that a sweep could not read; the set is shared by all groups."""
    sweeps: int = 0
    """How many due runs to remove before the end."""

    _now: Now = field(init=False)

    def __post_init__(self) -> None:
        self._now = Now(self.now_ms, self.now_ms, self.durations.late_event_ms, self.max_events)

    def stored(self, run_id: str) -> Stored | None:
        """The run as it is now; None when it does not exist, or has expired."""
        found = self._found(run_id)
        return None if found is None or is_due(found, self.now_ms) else found

    def perform(self, run_id: str, command: Command) -> Decision:
        """Decide a command and apply it; a refused one changes nothing."""
        before = self.stored(run_id)
        decision = decide(None if before is None else before.run, run_id, command, self._now)
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

    def promote_due(self, target: str, limit: int) -> None:
        """Move delayed runs of a target that are due to the ready ones."""
        limit += len(self.damaged)
        for due_ms, run_id in self.database.queue(target, is_ready=False, limit=limit):
            before = self._readable(run_id) if due_ms <= self.now_ms else None
            if before is not None and before.queue is not None:
                self._put(run_id, with_ready_position(before))

    def sweep(self, limit: int) -> int:
        """Remove ended runs whose time is over, fail live ones that are overdue; how many.

        A run that cannot be read is passed over, or removed when its time is over: it must not
        keep the sweep from the runs behind it.
        """
        now_ms, count = self.now_ms, 0
        for run_id in self.database.due(Due.EXPIRE, now_ms, limit):
            found = self._readable(run_id)
            if run_id in self.damaged:
                self.discard(run_id)
                count += 1
            elif found is not None and is_due(found, now_ms):
                self._remove(run_id, found)
                count += 1
        for run_id in self.database.due(Due.OVERDUE, now_ms, limit + len(self.damaged)):
            if self._readable(run_id) is not None:
                count += self._fail_overdue(run_id, now_ms)
        return count

    def discard(self, run_id: str) -> None:
        """Remove all rows of a run that cannot be read."""
        self.damaged.discard(run_id)
        self.changes.runs[run_id] = RunChange(None, None, is_repair=True, is_plain=False)
        self.written.append(Written(run_id, None, None))

    def restore(self, archive: RunArchive, run: Run) -> bool:
        """Write an archived run whole; False when this very run is stored already.

        Args:
            archive: the run.
            run: the fold of its journal.

        Raises:
            RunExistsError: the id has another run, or an older copy of this one.
        """
        before = self.stored(archive.run_id)
        if before is not None:
            last = archive.entries[-1]
            oldest = self._page(archive.run_id, 0, 1)
            check_same_life(
                archive,
                epoch=before.run.epoch,
                oldest_seq=oldest[0].seq if oldest else 0,
                has_last=[each.id for each in self._page(archive.run_id, last.seq - 1, 1)]
                == [last.id],
            )
            return False
        after = keep(None, run, self.now_ms, self.durations)
        if run.claim is not None:
            # The worker that held it belongs to the store it was archived from.
            after = replace(after, lease_until_ms=self.now_ms)
        change = self._change(archive.run_id, after)
        change.is_new_life = change.before is not None
        change.entries = [copied_entry(entry) for entry in archive.entries]
        texts = {
            PayloadKind.INPUT: archive.input_json,
            PayloadKind.RESULT: archive.result_json,
            PayloadKind.CHECKPOINT: archive.checkpoint_json,
        }
        change.payloads = {kind: text for kind, text in texts.items() if text is not None}
        self.written.append(Written(archive.run_id, None, after, tuple(change.entries)))
        return True

    def rebuild(self, run_id: str) -> None:
        """Write a run anew from the fold of its journal.

        Raises:
            RunNotFoundError: the run does not exist.
            RunDamagedError: its journal cannot be folded.
        """
        try:
            before, is_repair = self.stored(run_id), False
        except RunDamagedError:
            before, is_repair = None, True
        if before is None and not is_repair:
            raise RunNotFoundError(run_id)
        run = folded(run_id, self._journal(run_id), before)
        after = keep(before, run, self.now_ms, self.durations)
        if run.claim is not None and after.lease_until_ms is None:
            after = replace(after, lease_until_ms=self.now_ms)
        if is_repair:
            self.damaged.discard(run_id)
            self.changes.runs[run_id] = RunChange(None, after, is_repair=True, is_plain=False)
            self.written.append(Written(run_id, None, after))
        else:
            self._put(run_id, after)

    def finish(self) -> None:
        """Remove some due runs if runs began or ended; the last step of a group."""
        if self.sweeps:
            self.sweep(self.sweeps)

    def _page(self, run_id: str, after_seq: int, limit: int) -> list[JournalEntry]:
        return self.database.stored_entries(run_id, after_seq, limit)

    def _journal(self, run_id: str) -> list[JournalEntry]:
        entries: list[JournalEntry] = []
        while page := self._page(run_id, entries[-1].seq if entries else 0, PAGE):
            entries += page
        return entries

    def _readable(self, run_id: str) -> Stored | None:
        """The stored run, expired or not; None also when it is damaged, which is noted."""
        try:
            return self._found(run_id)
        except RunDamagedError as error:
            if run_id not in self.damaged:
                logger.error("%s", error)  # noqa: TRY400  # damaged rows, not a bug: no traceback
            self.damaged.add(run_id)
            return None

    def _found(self, run_id: str) -> Stored | None:
        """The stored run, expired or not; None when it does not exist."""
        change = self.changes.runs.get(run_id)
        if change is not None:
            return change.after
        known = self.known.get(run_id)
        return self.database.stored(run_id) if known is None else known

    def _change(self, run_id: str, after: Stored | None) -> RunChange:
        change = self.changes.runs.get(run_id)
        if change is None:
            known = self.known.get(run_id)
            before = self.database.stored(run_id) if known is None else known
            change = self.changes.runs[run_id] = RunChange(before, after)
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
        run = None if before is None else before.run
        for entry in decision.entries:
            run = evolve(run, entry)
        assert run is not None  # noqa: S101  # there are entries
        self.changes.feed += [(run.target, entry) for entry in decision.entries]
        after = self._advanced(before, run) if isinstance(command, _PLAIN) else None
        if after is None:
            after = self._apply_more(run_id, before, run, command, decision)
        else:
            change = self.changes.runs.get(run_id)
            if change is None:
                change = self.changes.runs[run_id] = RunChange(before, after)
            change.after = after
            change.entries += decision.entries
        self.written.append(Written(run_id, before, after, decision.entries))

    def _advanced(self, before: Stored | None, run: Run) -> Stored | None:
        """The bookkeeping after events that changed only the version; None if more changes."""
        assert before is not None  # noqa: S101  # events are written to runs that are there
        was = before.run
        is_plain = (run.closing, run.cancel_event, run.seal, run.snapshot) == (
            was.closing,
            was.cancel_event,
            was.seal,
            was.snapshot,
        )
        return advanced(before, run, self.now_ms, self.durations) if is_plain else None

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
        if decision.entries[-1].type == EntryType.SNAPSHOT and run.version > self.max_events:
            change.keep_from_seq = run.version - self.max_events + 1
        self._keep_payloads(change, command, decision.entries)
        if decision.dead is not None:
            self._bury(run, decision.dead)
        if isinstance(command, Create) or run.state.is_terminal:
            self.sweeps += SWEPT_BY_A_WRITE
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

    def _fail_overdue(self, run_id: str, now_ms: int) -> int:
        stored = self.stored(run_id)
        if stored is None or stored.overdue_ms is None or stored.overdue_ms > now_ms:
            return 0
        run, live_ttl_ms = stored.run, self.durations.live_ttl_ms
        waits = run.state is RunState.PENDING
        if waits and run.deadline_ms is not None and run.deadline_ms <= now_ms:
            error, reason = DEADLINE_TEXT, DEADLINE_EXCEEDED
        elif live_ttl_ms and max(run.last_ms, run.due_ms or 0) + live_ttl_ms > now_ms:
            # Most writes do not move the row of the moment: it is early.
            self._put(
                run_id, keep(replace(stored, live_until_ms=None), run, now_ms, self.durations)
            )
            return 0
        else:
            silent = max(0, now_ms - run.last_ms) // 1000
            error = NEGLECTED_TEXT.format(seconds=silent)
            reason = "overdue"
        if run.cancel_requested is not None and run.claim is not None:
            self.perform(run_id, Reclaim())
        else:
            dead = reason if run.queued else None
            self.perform(run_id, Finish(RunState.FAILED, error=error, dead=dead))
        return 1

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
