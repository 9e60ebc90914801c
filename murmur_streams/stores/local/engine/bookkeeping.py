"""Bookkeeping of a run beside its fold: position in a queue, lease, and moments. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from murmur_streams.core.model.run import Run
from murmur_streams.core.model.states import RunState
from murmur_streams.stores.local.engine.database import QueuePosition, Stored

PRIORITY_STEP_MS = 60_000
"""A step of priority is a minute's head start (decision 0010)."""


@dataclass(frozen=True, slots=True)
class RunDurations:
    """How long runs stay in a store, in milliseconds; 0: for ever."""

    ttl_ms: int
    """After the end."""
    live_ttl_ms: int
    """From the last write to a run that has not ended, until housekeeping fails it."""
    late_event_ms: int


def keep(before: Stored | None, run: Run, now_ms: int, durations: RunDurations) -> Stored:
    """Make the bookkeeping of a run after a write.

    Args:
        before: the bookkeeping before it; None for a new run.
        run: the run after it.
        now_ms: the moment of the write.
        durations: of the store.
    """
    if run.state.is_terminal:
        return Stored(run, expire_at_ms=_expire_at(before, now_ms, durations))
    live_until_ms = _live_until(before, run, now_ms, durations)
    return Stored(
        run,
        live_until_ms=live_until_ms,
        overdue_ms=_overdue(run, live_until_ms),
        lease_until_ms=None if before is None or run.claim is None else before.lease_until_ms,
        queue=_queue_position(before, run, now_ms),
    )


def advanced(before: Stored, run: Run, now_ms: int, durations: RunDurations) -> Stored | None:
    """The same after a write that changed only the version; None when more must change."""
    if before.live_until_ms is not None and _is_old(before.live_until_ms, run, now_ms, durations):
        return None
    return Stored(
        run,
        before.expire_at_ms,
        before.live_until_ms,
        before.overdue_ms,
        before.lease_until_ms,
        before.queue,
    )


def is_due(stored: Stored, now_ms: int) -> bool:
    """Whether an ended run's time is over."""
    return stored.expire_at_ms is not None and stored.expire_at_ms <= now_ms


def ready_position(run: Run) -> QueuePosition:
    """The position of a run that may be started.

    A run that was handed back without a new due time returns to its old position, not to the end.
    """
    position = run.created_ms if run.due_ms is None else run.due_ms
    return QueuePosition(is_ready=True, score=position - run.priority * PRIORITY_STEP_MS)


def keeping_problems(stored: Stored) -> list[str]:
    """Where the bookkeeping contradicts the run, for an audit."""
    run = stored.run
    waits, is_queued = run.state is RunState.PENDING and run.queued, stored.queue is not None
    is_held, has_lease = run.claim is not None, stored.lease_until_ms is not None
    expires_early = not run.state.is_terminal and stored.expire_at_ms is not None
    found = [
        ("queue: it waits for a worker, but is not in a queue", waits and not is_queued),
        ("queue: it stands in one, but does not wait", is_queued and not waits),
        ("lease: a worker holds it, but without a lease", is_held and not has_lease),
        ("lease: there is one, but no worker holds it", has_lease and not is_held),
        ("expire_at: it has not ended, but expires", expires_early),
    ]
    return [text for text, is_wrong in found if is_wrong]


def _expire_at(before: Stored | None, now_ms: int, durations: RunDurations) -> int | None:
    if before is not None and before.run.state.is_terminal:
        return before.expire_at_ms
    return now_ms + durations.ttl_ms if durations.ttl_ms else None


def _live_until(
    before: Stored | None, run: Run, now_ms: int, durations: RunDurations
) -> int | None:
    if not durations.live_ttl_ms:
        return None
    known = None if before is None else before.live_until_ms
    if known is None or _is_old(known, run, now_ms, durations):
        return max(now_ms, run.due_ms or 0) + durations.live_ttl_ms
    return known


def _is_old(live_until_ms: int, run: Run, now_ms: int, durations: RunDurations) -> bool:
    # Extended when a tenth of it is over, so that most writes need not write it.
    wanted = max(now_ms, run.due_ms or 0) + durations.live_ttl_ms
    return (wanted - live_until_ms) * 10 >= durations.live_ttl_ms


def _overdue(run: Run, live_until_ms: int | None) -> int | None:
    if run.state is not RunState.PENDING or run.deadline_ms is None:
        return live_until_ms
    return run.deadline_ms if live_until_ms is None else min(live_until_ms, run.deadline_ms)


def _queue_position(before: Stored | None, run: Run, now_ms: int) -> QueuePosition | None:
    if run.state is not RunState.PENDING or not run.queued:
        return None
    if before is not None and before.queue is not None and before.run.state is run.state:
        return before.queue
    if run.due_ms is not None and run.due_ms > now_ms:
        return QueuePosition(is_ready=False, score=run.due_ms)
    return ready_position(run)
