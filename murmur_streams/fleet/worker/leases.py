"""Keeps a worker's leases alive, and does for dead workers what they left undone."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Sequence

from murmur_streams.core.model.errors import MurmurError
from murmur_streams.core.model.work import Beat, ClaimNotice
from murmur_streams.fleet.log_throttle import Trouble
from murmur_streams.stores.work_store import WorkQueue

logger = logging.getLogger("murmur_streams.worker")

HEARTBEATS_PER_LEASE = 3
TENDINGS_PER_LEASE = 4


def heartbeat_seconds(lease_seconds: float, live_ttl_ms: int) -> float:
    """How often to send heartbeats: they also keep the runs from being swept as forgotten."""
    shortest = min(lease_seconds, live_ttl_ms / 1000) if live_ttl_ms else lease_seconds
    return shortest / HEARTBEATS_PER_LEASE


async def keep_leases(
    queue: WorkQueue,
    seconds: float,
    lease_seconds: float,
    held: Callable[[], Sequence[Beat]],
    told: Callable[[ClaimNotice], None],
    trouble: Trouble,
) -> None:
    """Send heartbeats until cancelled.

    Args:
        queue: the queue.
        seconds: how often.
        lease_seconds: a heartbeat that is late by more than that is told: its claims are lost.
        held: the claims to keep.
        told: called with each answer that is more than "go on".
        trouble: logs heartbeats that fail.
    """
    while True:
        await _sleep(seconds, lease_seconds)
        beats = held()
        if not beats:
            continue
        try:
            answers = await queue.heartbeat(beats)
        except MurmurError as error:
            # A full or read-only server, too: it may take the next one.
            trouble.tell(error)
            continue
        trouble.over()
        for answer in answers:
            told(answer)


async def _sleep(seconds: float, lease_seconds: float) -> None:
    """Sleep, and tell when that took so much longer that somebody kept the event loop."""
    clock = asyncio.get_running_loop().time
    due = clock() + seconds
    await asyncio.sleep(seconds)
    late = clock() - due
    if late > lease_seconds:
        logger.warning(
            "the event loop was blocked for %.1f s, longer than the lease of %g s: put blocking "
            "work into a def agent",
            late,
            lease_seconds,
        )


async def tend(
    queue: WorkQueue,
    worker: str,
    targets: Sequence[str],
    lease_seconds: float,
    queued: Callable[[], None],
    trouble: Trouble,
) -> None:
    """Look after what nobody holds, until cancelled: expired leases, lost queues, late runs.

    Of all workers one does it in each partition, at most once in a quarter of a lease and at
    moments of its own, so that a dead worker's runs wait for one lease and a half at the longest.

    Args:
        queue: the queue.
        worker: this one's name.
        targets: what it executes.
        lease_seconds: how long a claim holds without a heartbeat.
        queued: called when runs were queued again. Their wake-up tokens may go to the very
            worker that is frozen, so this one must not wait for another.
        trouble: logs looks that fail.
    """
    interval = lease_seconds / TENDINGS_PER_LEASE
    while True:
        await asyncio.sleep(interval * random.uniform(1, 2))  # noqa: S311  # jitter, no secret
        try:
            tended = await queue.tend(worker, targets, interval)
        except MurmurError as error:
            trouble.tell(error)
            continue
        trouble.over()
        if tended.requeued:
            queued()
        for run_id in tended.requeued:
            logger.warning("run %s: its lease ran out; it is queued again", run_id)
        for run_id in tended.ended:
            logger.warning("run %s: nobody held it any more; it has ended", run_id)
