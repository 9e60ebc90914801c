"""What a database keeps of a run beside its fold: places in queues, leases, and moments. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

from murmur_streams.core.model.run import Run
from murmur_streams.core.model.states import RunState
from murmur_streams.stores.local.engine.database import QueuePlace, Stored

PRIORITY_STEP_MS = 60_000
"""A step of priority is a minute's head start (decision 0010)."""


@dataclass(frozen=True, slots=True)
class Durations:
    """How long runs are kept, in milliseconds; 0: for ever."""

    ttl_ms: int
    """After the end."""
    live_ttl_ms: int
    """After the last write to a run that has not ended."""
    late_event_ms: int


def keep(before: Stored | None, run: Run, now_ms: int, durations: Durations) -> Stored:
    """What is kept of a run after a write.

    Args:
        before: what was kept before it; None: nothing.
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
        queue=_queue_place(before, run, now_ms),
    )


def advanced(before: Stored, run: Run, now_ms: int, durations: Durations) -> Stored | None:
    """The same after a write that moved nothing but the version; None when more has to move."""
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


def ready_place(run: Run) -> QueuePlace:
    """Where a run stands that may be started.

    One that was handed back without a new due time has its old place, not one behind all others.
    """
    place = run.created_ms if run.due_ms is None else run.due_ms
    return QueuePlace(is_ready=True, score=place - run.priority * PRIORITY_STEP_MS)


def with_ready_place(stored: Stored) -> Stored:
    """A delayed run that is due."""
    return replace(stored, queue=ready_place(stored.run))


def keeping_problems(stored: Stored) -> list[str]:
    """What of the kept contradicts the run, for an audit."""
    run = stored.run
    waits = run.state is RunState.PENDING and run.queued
    found = [
        ("queue: it waits for a worker, but is in no queue", waits and stored.queue is None),
        ("queue: it stands in one, but does not wait", not waits and stored.queue is not None),
        (
            "lease: a worker holds it, but there is no lease",
            run.claim is not None and stored.lease_until_ms is None,
        ),
        (
            "lease: there is one, but nobody holds it",
            run.claim is None and stored.lease_until_ms is not None,
        ),
        (
            "expire_at: it has not ended, but expires",
            not run.state.is_terminal and stored.expire_at_ms is not None,
        ),
    ]
    return [text for text, is_wrong in found if is_wrong]


def _expire_at(before: Stored | None, now_ms: int, durations: Durations) -> int | None:
    if before is not None and before.run.state.is_terminal:
        return before.expire_at_ms
    return now_ms + durations.ttl_ms if durations.ttl_ms else None


def _live_until(before: Stored | None, run: Run, now_ms: int, durations: Durations) -> int | None:
    if not durations.live_ttl_ms:
        return None
    known = None if before is None else before.live_until_ms
    if known is None or _is_old(known, run, now_ms, durations):
        return max(now_ms, run.due_ms or 0) + durations.live_ttl_ms
    return known


def _is_old(live_until_ms: int, run: Run, now_ms: int, durations: Durations) -> bool:
    # Moved on when a tenth of it is over, so that most writes leave it alone.
    wanted = max(now_ms, run.due_ms or 0) + durations.live_ttl_ms
    return (wanted - live_until_ms) * 10 >= durations.live_ttl_ms


def _overdue(run: Run, live_until_ms: int | None) -> int | None:
    waits = run.state is RunState.PENDING
    moments = [live_until_ms, run.deadline_ms if waits else None]
    return min((each for each in moments if each is not None), default=None)


def _queue_place(before: Stored | None, run: Run, now_ms: int) -> QueuePlace | None:
    if run.state is not RunState.PENDING or not run.queued:
        return None
    if before is not None and before.queue is not None and before.run.state is run.state:
        return before.queue
    if run.due_ms is not None and run.due_ms > now_ms:
        return QueuePlace(is_ready=False, score=run.due_ms)
    return ready_place(run)
