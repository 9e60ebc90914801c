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
from dataclasses import dataclass
from importlib.metadata import version

from murmur_streams.core.model.errors import MurmurError, StoreClosedError, StoreError
from murmur_streams.core.model.work import Beat, ClaimNotice, ControlMessage, WorkerInfo
from murmur_streams.fleet.logs import LogThrottle
from murmur_streams.stores.protocol import WorkerList, WorkQueue

logger = logging.getLogger("murmur_streams.worker")

HEARTBEATS_PER_LEASE = 3
HOUSEKEEPINGS_PER_LEASE = 4
BLOCK_SECONDS = 20.0
"""How long one read of the control stream waits. Longer means fewer commands of an idle worker."""
FROM_THE_START = ""
PYTHON = platform.python_version()
VERSION = version("murmur-streams")


def heartbeat_seconds(lease_seconds: float, live_ttl_ms: int) -> float:
    """How often to send heartbeats. They also keep the runs from being failed as overdue."""
    shortest = min(lease_seconds, live_ttl_ms / 1000) if live_ttl_ms else lease_seconds
    return shortest / HEARTBEATS_PER_LEASE


@dataclass(frozen=True, slots=True)
class WorkerLoops:
    """The loops that use a worker's queue."""

    queue: WorkQueue
    worker: str
    """The worker's name."""
    targets: Sequence[str]
    """The agents that it executes."""
    lease_seconds: float
    """How long a claim holds without a heartbeat."""
    log: Callable[[str], LogThrottle]
    """Makes the log of a loop's failures from the beginning of its lines."""

    async def heartbeats(
        self,
        seconds: float,
        held: Callable[[], Sequence[Beat]],
        on_notice: Callable[[ClaimNotice], None],
    ) -> None:
        """Send heartbeats.

        A heartbeat that is late by more than a lease is logged: its claims are lost.

        Args:
            seconds: the time between two heartbeats.
            held: returns the claims to keep.
            on_notice: called with each notice in the server's reply.
        """
        log = self.log("no heartbeat")
        while True:
            await self._sleep(seconds)
            beats = held()
            if not beats:
                continue
            try:
                notices = await self.queue.heartbeat(beats)
            except MurmurError as error:
                # Also on a full or read-only server: it may accept the next heartbeat.
                log.failed(error)
                continue
            log.recovered()
            for notice in notices:
                on_notice(notice)

    async def _sleep(self, seconds: float) -> None:
        """Sleep; log when blocking code made that longer than the lease."""
        clock = asyncio.get_running_loop().time
        due = clock() + seconds
        await asyncio.sleep(seconds)
        if (late := clock() - due) > self.lease_seconds:
            logger.warning(
                "the event loop was blocked for %.1f s, longer than the lease of %g s: put "
                "blocking work into a def agent", late, self.lease_seconds
            )  # fmt: skip

    async def housekeeping(self, on_requeued: Callable[[], None]) -> None:
        """Requeue runs whose leases have expired, rebuild lost queues, and end overdue runs.

        One worker at a time does this for a partition, at most four times in a lease and at random
        moments. The runs of a dead worker therefore wait for one and a half leases at the longest,
        or for one and three quarters if the worker that did the last housekeeping dies with it. All
        workers call, and the store lets one of them in: a worker that was chosen once and then died
        would leave all runs of the partition without housekeeping.

        Args:
            on_requeued: called when runs were queued again. The server sends a wake-up token for
                each, but the token may go to the frozen worker whose lease has just expired. So the
                worker that requeued them looks at the queue at once, and waits for no token.
        """
        interval, log = self.lease_seconds / HOUSEKEEPINGS_PER_LEASE, self.log("no housekeeping")
        while True:
            await asyncio.sleep(interval * random.uniform(1, 2))  # noqa: S311  # jitter, not a secret
            try:
                done = await self.queue.tend(self.worker, self.targets, interval)
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

    async def control_messages(self, on_message: Callable[[ControlMessage], None]) -> None:
        """Read the worker's control stream, and call ``on_message`` with each message.

        After an error it goes on from the same position. A message that is lost all the same, with
        its server for example, is late and not lost: the next heartbeat's reply reports the same
        cancel.
        """
        clock, log = asyncio.get_running_loop().time, self.log(f"worker {self.worker} is not woken")
        after, failures = FROM_THE_START, 0
        while True:
            began, messages = clock(), list[ControlMessage]()
            try:
                messages, after = await self.queue.control(self.worker, after, BLOCK_SECONDS)
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
                await self.queue.recover(failures)
                failures += 1


async def registration(
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
