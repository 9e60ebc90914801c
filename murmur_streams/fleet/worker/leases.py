"""Keeps a worker's leases alive, and hands dead workers' runs on."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Sequence

from murmur_streams.core.errors import MurmurError
from murmur_streams.stores.redis.queue import Claim, Queue

logger = logging.getLogger("murmur_streams.worker")

HEARTBEATS_PER_LEASE = 3


async def keep_leases(
    queue: Queue,
    lease_seconds: float,
    held: Callable[[], Sequence[Claim]],
    lost: Callable[[Claim], None],
) -> None:
    """Send heartbeats until cancelled.

    Args:
        queue: the queue.
        lease_seconds: how long a claim holds without a heartbeat.
        held: the claims to keep.
        lost: called with each claim that is over.
    """
    while True:
        await asyncio.sleep(lease_seconds / HEARTBEATS_PER_LEASE)
        claims = held()
        if not claims:
            continue
        try:
            for claim in await queue.heartbeat(claims):
                lost(claim)
        except MurmurError as error:
            # A full or read-only server, too: it may take the next one.
            logger.warning("no heartbeat: %s", error)


async def hand_on(queue: Queue, lease_seconds: float, queued: Callable[[], None]) -> None:
    """Queue the runs of dead workers again, until cancelled.

    Every worker does it, at most once in a quarter of a lease and at moments of its own, so that
    a dead worker's runs wait for one lease and a half at the longest.

    Args:
        queue: the queue.
        lease_seconds: how long a claim holds without a heartbeat.
        queued: called when runs were queued again. Their wake-up tokens may go to the very
            worker that is frozen, so this one must not wait for another.
    """
    while True:
        await asyncio.sleep(lease_seconds * random.uniform(0.25, 0.5))  # noqa: S311  # jitter
        try:
            reclaimed = await queue.reclaim()
            if reclaimed:
                queued()
            for run_id in reclaimed:
                logger.warning("run %s: its worker is gone; it is queued again", run_id)
        except MurmurError as error:
            logger.warning("no look at the leases: %s", error)
