"""Ways to break the engine on purpose: the simulation has to find each of them.

``python -m tests.simulation.mutations`` prints how many of 200 seeds find each.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from murmur_streams.core.model.commands import Append
from murmur_streams.core.model.entries import Cursor
from murmur_streams.core.model.errors import OutcomeUnknownError
from murmur_streams.core.model.states import RunState
from murmur_streams.core.rules import decide, executions
from murmur_streams.core.rules.reading import Reading
from murmur_streams.fleet.worker.loops import WorkerLoops
from murmur_streams.stores.local.engine import bookkeeping, work, writer
from murmur_streams.stores.local.engine.claiming import Signals
from murmur_streams.stores.local.engine.run_writes import RunWrites
from murmur_streams.stores.local.engine.tails import LocalTails, RecentEntries
from murmur_streams.stores.local.engine.transaction import Transaction
from murmur_streams.testing.simulation.store import SimulatedRunStore
from tests.simulation.__main__ import quiet
from tests.simulation.scenario import findings_of

SEEDS = 200


def claims_are_not_checked(patch: pytest.MonkeyPatch) -> None:
    """A worker whose lease was lost may go on to write."""
    patch.setattr(decide, "_FENCED", ())


def a_running_run_is_claimed_again(patch: pytest.MonkeyPatch) -> None:
    """A started run stays in its queue, and a start takes it whatever its state is."""
    position, start = bookkeeping._queue_position, executions.start

    def queue_position(before: Any, run: Any, now_ms: int) -> Any:
        seen = replace(run, state=RunState.PENDING) if run.state is RunState.RUNNING else run
        return position(before, seen, now_ms)

    def lenient(run: Any, command: Any, now: Any) -> Any:
        return start(replace(run, state=RunState.PENDING), command, now)

    patch.setattr(bookkeeping, "_queue_position", queue_position)
    patch.setitem(decide._RULES, decide.commands.Start, lenient)


def leases_end_early(patch: pytest.MonkeyPatch) -> None:
    """Housekeeping takes runs back whose leases are valid for some time yet."""
    do_housekeeping = work._do_housekeeping

    def early(group: Transaction, worker: str, interval_ms: int) -> Any:
        due = group.database.due
        found = [*due(work.Due.LEASE, group.now_ms + 900, 20)]
        for run_id in found:
            work._requeue(group, run_id)
        return do_housekeeping(group, worker, interval_ms)

    patch.setattr(work, "_do_housekeeping", early)


def heartbeats_extend_no_lease(patch: pytest.MonkeyPatch) -> None:
    """A lease lasts as long as it did at the claim."""
    lease = RunWrites.lease

    def at_claims_alone(self: RunWrites, run_id: str, until_ms: int) -> None:
        stored = self.stored(run_id)
        if stored is not None and stored.lease_until_ms is None:
            lease(self, run_id, until_ms)

    patch.setattr(RunWrites, "lease", at_claims_alone)


def lost_runs_are_not_requeued(patch: pytest.MonkeyPatch) -> None:
    """The runs of dead workers stay theirs."""
    patch.setattr(work, "_requeue", lambda group, run_id: False)


def a_cursor_skips_one(patch: pytest.MonkeyPatch) -> None:
    """A reader that resumes misses the first entry after its cursor."""
    start_after = Reading.start_after

    def off_by_one(self: Reading, cursor: Cursor) -> None:
        start_after(self, Cursor(cursor.epoch, cursor.ms, cursor.seq + 1))

    patch.setattr(Reading, "start_after", off_by_one)


def a_cursor_repeats_one(patch: pytest.MonkeyPatch) -> None:
    """A reader that resumes gets the entry of its cursor once more."""
    start_after = Reading.start_after

    def off_by_one(self: Reading, cursor: Cursor) -> None:
        start_after(self, Cursor(cursor.epoch, cursor.ms, max(0, cursor.seq - 1)))

    patch.setattr(Reading, "start_after", off_by_one)


def readers_are_not_woken(patch: pytest.MonkeyPatch) -> None:
    """A write of another process wakes no reader of the run."""
    patch.setattr(LocalTails, "look", lambda self, run_ids=None: None)


def the_buffer_is_always_sure(patch: pytest.MonkeyPatch) -> None:
    """A process believes that it has seen the last entry, though another one wrote."""
    take = RecentEntries.take

    def sure(self: RecentEntries, written: Any) -> None:
        take(self, written)
        self.is_sure = True

    patch.setattr(RecentEntries, "take", sure)
    patch.setattr(LocalTails, "look", _wake_only)


def _wake_only(self: LocalTails, run_ids: Any = None) -> None:
    for followed in self._followed.values():
        followed.wake()


def a_write_is_sent_again(patch: pytest.MonkeyPatch) -> None:
    """An append whose outcome is unknown is repeated as if it had failed."""
    execute = SimulatedRunStore._execute

    async def twice(self: SimulatedRunStore, run_id: str, command: Any, result: Any = None) -> Any:
        try:
            return await execute(self, run_id, command, result)
        except OutcomeUnknownError:
            if not isinstance(command, Append):
                raise
            return await execute(self, run_id, command, result)

    patch.setattr(SimulatedRunStore, "_execute", twice)


def a_group_without_confirmation_is_repeated(patch: pytest.MonkeyPatch) -> None:
    """The writer took an unknown outcome for a failure: a bug that the simulation found."""
    patch.setattr(writer, "OutcomeUnknownError", type("NeverRaised", (Exception,), {}))


def a_cancel_is_forgotten_with_its_worker(patch: pytest.MonkeyPatch) -> None:
    """A run whose cancel was requested is queued again when its worker dies."""
    requeued = executions._requeued

    def forgetful(run: Any, *rest: Any) -> Any:
        return requeued(replace(run, cancel_requested=None), *rest)

    patch.setattr(executions, "_requeued", forgetful)


def a_finish_overtakes_a_cancel(patch: pytest.MonkeyPatch) -> None:
    """A worker's end counts although a cancel was accepted before."""
    rule = decide._RULES[decide.commands.Finish]

    def late(run: Any, command: Any, now: Any) -> Any:
        return rule(replace(run, cancel_requested=None), command, now)

    patch.setitem(decide._RULES, decide.commands.Finish, late)


def workers_send_no_heartbeats(patch: pytest.MonkeyPatch) -> None:
    """The loop of heartbeats has ended."""

    async def nothing(self: WorkerLoops, *_: Any) -> None:
        await asyncio.Event().wait()

    patch.setattr(WorkerLoops, "heartbeats", nothing)


def idle_workers_do_not_look(patch: pytest.MonkeyPatch) -> None:
    """A worker that waits for runs is woken by nothing, and never looks."""

    async def queued(self: Signals, targets: Any, seconds: float) -> None:
        await asyncio.Event().wait()

    patch.setattr(Signals, "queued", queued)


def submissions_wake_no_worker(patch: pytest.MonkeyPatch) -> None:
    """A run that is queued is found when an idle worker looks, seconds later."""
    patch.setattr(Signals, "_wake", lambda self, target: None)


MUTATIONS = (
    claims_are_not_checked,
    a_running_run_is_claimed_again,
    leases_end_early,
    heartbeats_extend_no_lease,
    lost_runs_are_not_requeued,
    a_cursor_skips_one,
    a_cursor_repeats_one,
    readers_are_not_woken,
    the_buffer_is_always_sure,
    a_write_is_sent_again,
    a_group_without_confirmation_is_repeated,
    a_cancel_is_forgotten_with_its_worker,
    a_finish_overtakes_a_cancel,
    workers_send_no_heartbeats,
    idle_workers_do_not_look,
    submissions_wake_no_worker,
)


def main() -> None:
    """Print for each how many of the seeds find it, and the first of them."""
    quiet()
    for mutate in MUTATIONS:
        with pytest.MonkeyPatch.context() as patch:
            mutate(patch)
            found = {seed: each for seed in range(SEEDS) if (each := findings_of(seed)[0])}
        first, texts = next(iter(found.items()), (None, [""]))
        print(f"{mutate.__name__:40} {len(found):4} of {SEEDS}, first {first}: {texts[0][:90]}")


if __name__ == "__main__":
    main()
