"""The loops that run beside a worker's executions, each until it is cancelled.

Heartbeats keep its leases, housekeeping requeues the runs of dead workers, control messages report
cancels within milliseconds, and registration keeps the worker on the list of live workers.
"""

from __future__ import annotations

import asyncio
import logging
import platform
import random
from collections.abc import Callable, Sequence

from murmur_streams.core.model.errors import MurmurError, StoreClosedError, StoreError
from murmur_streams.core.model.work import Beat, ClaimNotice, ControlMessage, WorkerInfo
from murmur_streams.fleet.log_throttle import LogThrottle
from murmur_streams.stores.work_store import WorkerList, WorkQueue

logger = logging.getLogger("murmur_streams.worker")

HEARTBEATS_PER_LEASE = 3
HOUSEKEEPINGS_PER_LEASE = 4
BLOCK_SECONDS = 20.0
"""How long one read of the control stream waits. Longer means fewer commands of an idle worker."""
FROM_THE_START = ""
PYTHON = platform.python_version()


def heartbeat_seconds(lease_seconds: float, live_ttl_ms: int) -> float:
    """How often to send heartbeats. They also keep the runs from being failed as overdue."""
    shortest = min(lease_seconds, live_ttl_ms / 1000) if live_ttl_ms else lease_seconds
    return shortest / HEARTBEATS_PER_LEASE


async def keep_leases(
    queue: WorkQueue,
    seconds: float,
    lease_seconds: float,
    held: Callable[[], Sequence[Beat]],
    on_notice: Callable[[ClaimNotice], None],
    log: LogThrottle,
) -> None:
    """Send heartbeats.

    Args:
        queue: the queue.
        seconds: the time between two heartbeats.
        lease_seconds: a heartbeat that is late by more than a lease is logged: its claims are lost.
        held: returns the claims to keep.
        on_notice: called with each notice in the server's reply.
        log: logs heartbeats that fail.
    """
    while True:
        await _sleep(seconds, lease_seconds)
        beats = held()
        if not beats:
            continue
        try:
            notices = await queue.heartbeat(beats)
        except MurmurError as error:
            # Also on a full or read-only server: it may accept the next heartbeat.
            log.failed(error)
            continue
        log.recovered()
        for notice in notices:
            on_notice(notice)


async def _sleep(seconds: float, lease_seconds: float) -> None:
    """Sleep; log when blocking code made that longer than the lease."""
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


async def keep_house(
    queue: WorkQueue,
    worker: str,
    targets: Sequence[str],
    lease_seconds: float,
    on_requeued: Callable[[], None],
    log: LogThrottle,
) -> None:
    """Requeue runs whose leases have expired, rebuild lost queues, and end overdue runs.

    One worker at a time does this for a partition, at most four times in a lease and at random
    moments. The runs of a dead worker therefore wait for one and a half leases at the longest, or
    for one and three quarters if the worker that did the last housekeeping dies with it. All
    workers call, and the store lets one of them in: a worker that was chosen once and then died
    would leave its own runs, and everybody else's, without housekeeping.

    Args:
        queue: the queue.
        worker: this worker's name.
        targets: the agents that it executes.
        lease_seconds: how long a claim holds without a heartbeat.
        on_requeued: called when runs were queued again. The server sends a wake-up token for each,
            but the token may go to the frozen worker whose lease has just expired. So the worker
            that requeued them looks at the queue at once, and waits for no token.
        log: logs rounds that fail.
    """
    interval = lease_seconds / HOUSEKEEPINGS_PER_LEASE
    while True:
        await asyncio.sleep(interval * random.uniform(1, 2))  # noqa: S311  # jitter, not a secret
        try:
            done = await queue.tend(worker, targets, interval)
        except MurmurError as error:
            log.failed(error)
            continue
        log.recovered()
        if done.requeued:
            on_requeued()
        for run_id in done.requeued:
            logger.warning("run %s: its lease ran out; it is queued again", run_id)
        for run_id in done.ended:
            logger.warning("run %s: no worker held it any more; it has ended", run_id)


async def listen(
    queue: WorkQueue,
    worker: str,
    on_message: Callable[[ControlMessage], None],
    log: LogThrottle,
) -> None:
    """Read the worker's control stream.

    After an error it goes on from the same position. A message that is lost all the same, with its
    server for example, is late and not lost: the next heartbeat's reply reports the same cancel.

    Args:
        queue: the queue.
        worker: the worker's name.
        on_message: called with each message.
        log: logs reads that fail.
    """
    clock = asyncio.get_running_loop().time
    after, failures = FROM_THE_START, 0
    while True:
        began, messages = clock(), list[ControlMessage]()
        try:
            messages, after = await queue.control(worker, after, BLOCK_SECONDS)
            log.recovered()
        except StoreClosedError:
            return
        except StoreError as error:
            log.failed(error)
        for message in messages:
            on_message(message)
        if messages or clock() - began >= BLOCK_SECONDS / 2:
            failures = 0
        else:
            # An early reply without a message comes from a broken connection.
            await queue.recover(failures)
            failures += 1


async def keep_registered(
    workers: WorkerList,
    describe: Callable[[], WorkerInfo],
    seconds: float,
    changed: asyncio.Event,
    on_registered: Callable[[], None],
) -> None:
    """Keep the worker on the list of live workers, and update its entry at once on a change.

    Args:
        workers: the list.
        describe: returns the worker's entry.
        seconds: the time between two updates; after four times as long the entry expires.
        changed: set when the entry has changed.
        on_registered: called each time that the server has accepted the entry.
    """
    while True:
        changed.clear()
        try:
            await workers.beat(describe())
            on_registered()
        except MurmurError as error:
            # Nothing but the list of workers depends on it.
            logger.debug("the worker is not registered: %s", error)
        try:
            async with asyncio.timeout(seconds * random.uniform(0.8, 1.0)):  # noqa: S311  # jitter
                await changed.wait()
        except TimeoutError:
            continue


async def unregister(workers: WorkerList, worker: str, seconds: float) -> None:
    """Remove the worker from the list; when that takes longer than ``seconds``, it expires."""
    try:
        async with asyncio.timeout(seconds):
            await workers.remove(worker)
    except (MurmurError, TimeoutError) as error:
        logger.debug("the worker stays listed for a while: %r", error)
