"""Transaction: the pure core over the rows of a database, for one group of writes.

It runs in the writer's thread. Its changes become visible all at once when the group is committed;
until then they are in ``changes``.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from itertools import pairwise

from murmur_streams.core.archive.run_archive import RunArchive, check_same_life
from murmur_streams.core.model.commands import Finish, Reclaim
from murmur_streams.core.model.entries import JournalEntry, copied_entry
from murmur_streams.core.model.errors import RunDamagedError, RunNotFoundError
from murmur_streams.core.model.run import PayloadKind, Run
from murmur_streams.core.model.states import RunState
from murmur_streams.core.rules.evolve import fold
from murmur_streams.core.rules.executions import DEADLINE_EXCEEDED, DEADLINE_TEXT, NEGLECTED_TEXT
from murmur_streams.stores.local.engine.bookkeeping import is_due, keep, ready_position
from murmur_streams.stores.local.engine.database import Due, RunChange, Stored
from murmur_streams.stores.local.engine.run_writes import RunWrites, Written

logger = logging.getLogger("murmur_streams.store")

PAGE = 500
NEVER_MS = 1 << 62


@dataclass(slots=True)
class Transaction(RunWrites):
    """One group of writes, with housekeeping, restores and repairs; arguments as RunWrites."""

    def promote_due(self, target: str, limit: int) -> None:
        """Move delayed runs of a target that are due to the ready ones."""
        limit += len(self.known.damaged)
        for due_ms, run_id in self.database.queue(target, is_ready=False, limit=limit):
            before = self._readable(run_id) if due_ms <= self.now_ms else None
            if before is not None and before.queue is not None:
                self._put(run_id, replace(before, queue=ready_position(before.run)))

    def do_housekeeping(self, limit: int) -> int:
        """Remove ended runs whose time is over, fail live ones that are overdue; how many.

        A run that cannot be read is passed over, or removed when its time is over: it must not
        keep the housekeeping from the runs behind it.
        """
        now_ms, damaged, count = self.now_ms, self.known.damaged, 0
        for run_id in self.database.due(Due.EXPIRE, now_ms, limit):
            found = self._readable(run_id)
            if run_id in damaged:
                self.replace_damaged(run_id, None)
                count += 1
            elif found is not None and is_due(found, now_ms):
                self._remove(run_id, found)
                count += 1
        for run_id in self.database.due(Due.OVERDUE, now_ms, limit + len(damaged)):
            if self._readable(run_id) is not None:
                count += self._fail_overdue(run_id, now_ms)
        return count

    def replace_damaged(self, run_id: str, after: Stored | None) -> None:
        """Remove all rows of a run that cannot be read, and write it anew unless it is to go."""
        self.known.damaged.discard(run_id)
        self.changes.runs[run_id] = RunChange(None, after, is_repair=True, is_plain=False)
        self.written.append(Written(run_id, None, after))

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
            oldest = self.database.stored_entries(archive.run_id, 0, 1)
            found = self.database.stored_entries(archive.run_id, last.seq - 1, 1)
            check_same_life(
                archive,
                epoch=before.run.epoch,
                oldest_seq=oldest[0].seq if oldest else 0,
                has_last=bool(found) and found[0].id == last.id,
            )
            return False
        after = keep(None, run, self.now_ms, self.durations)
        if run.claim is not None:
            # The worker that held it belongs to the store it was archived from.
            after = replace(after, lease_until_ms=self.now_ms)
        change = self._change(archive.run_id, after)
        change.is_new_life = change.before is not None
        change.entries = [copied_entry(entry) for entry in archive.entries]
        texts = {kind: getattr(archive, f"{kind}_json") for kind in PayloadKind}
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
        entries: list[JournalEntry] = []
        while page := self.database.stored_entries(run_id, entries[-1].seq if entries else 0, PAGE):
            entries += page
        run = _folded(run_id, entries, before)
        after = keep(before, run, self.now_ms, self.durations)
        if run.claim is not None and after.lease_until_ms is None:
            after = replace(after, lease_until_ms=self.now_ms)
        if is_repair:
            self.replace_damaged(run_id, after)
        else:
            self._put(run_id, after)

    def finish(self) -> None:
        """Remove some due runs if runs began or ended; the last step of a group."""
        known = self.known
        if (
            self.due_runs
            and self.now_ms >= known.first_due_ms
            and not self.do_housekeeping(self.due_runs)
        ):
            known.first_due_ms = self._first_due_ms()
        # Before the commit: when its outcome is unknown, its rows may be there.
        for change in self.changes.runs.values():
            if not change.is_plain and change.after is not None:
                known.first_due_ms = min(known.first_due_ms, _first_moment_ms(change.after))

    def _first_due_ms(self) -> int:
        """The first moment of a committed run; 0 when a run that has one cannot be read."""
        first_ms = NEVER_MS
        for what in (Due.EXPIRE, Due.OVERDUE):
            for run_id in self.database.due(what, NEVER_MS, 1):
                try:
                    stored = self._committed(run_id)
                except RunDamagedError:
                    return 0
                if stored is not None:
                    first_ms = min(first_ms, _first_moment_ms(stored))
        return first_ms

    def _readable(self, run_id: str) -> Stored | None:
        """The stored run, expired or not; None also when it is damaged, which is noted."""
        try:
            return self._found(run_id)
        except RunDamagedError as error:
            if run_id not in self.known.damaged:
                logger.error("%s", error)  # noqa: TRY400  # damaged rows, not a bug: no traceback
            self.known.damaged.add(run_id)
            return None

    def _fail_overdue(self, run_id: str, now_ms: int) -> int:
        stored = self.stored(run_id)
        if stored is None or stored.overdue_ms is None or stored.overdue_ms > now_ms:
            return 0
        run, live_ttl_ms = stored.run, self.durations.live_ttl_ms
        waits = run.state is RunState.PENDING
        if waits and run.deadline_ms is not None and run.deadline_ms <= now_ms:
            error, reason = DEADLINE_TEXT, DEADLINE_EXCEEDED
        elif live_ttl_ms and max(run.last_ms, run.due_ms or 0) + live_ttl_ms > now_ms:
            # Most writes do not move the row of the moment, so it may be too early.
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


def _first_moment_ms(stored: Stored) -> int:
    """When the run expires or is to be checked whether it is overdue, whichever comes first."""
    expire_ms, overdue_ms = stored.expire_at_ms, stored.overdue_ms
    first_ms = NEVER_MS if expire_ms is None else expire_ms
    return first_ms if overdue_ms is None else min(first_ms, overdue_ms)


def _folded(run_id: str, entries: list[JournalEntry], before: Stored | None) -> Run:
    """The fold of a whole journal; RunDamagedError when it has holes, or cannot be folded."""
    for one, next_one in pairwise(entries):
        if next_one.seq != one.seq + 1:
            what = f"entry {one.seq + 1} of its journal is missing or cannot be read"
            raise RunDamagedError(run_id, what, can_rebuild=False)
    try:
        run = fold(entries)
    except (ValueError, KeyError, RunDamagedError) as error:
        what = f"its journal cannot be folded: {ascii(str(error))[:80]}"
        raise RunDamagedError(run_id, what, can_rebuild=False) from error
    if run is None or (before is not None and run.version < before.run.version):
        raise RunDamagedError(run_id, "its journal is not whole", can_rebuild=False)
    return run
