"""Leases of runs that a program executes itself; runs of a program that is gone are failed."""

from __future__ import annotations

import asyncio
import functools
import logging
import secrets

from murmur_streams.core.model.errors import InvalidInputError, MurmurError
from murmur_streams.stores.own_tasks import end_tasks, start_task
from murmur_streams.stores.redis.durations import Durations
from murmur_streams.stores.redis.queue import log_wrong_type
from murmur_streams.stores.redis.server import Server
from murmur_streams.stores.redis.side_by_side import PATIENCE_SECONDS, SideBySide

logger = logging.getLogger("murmur_streams.owners")

BEATS_PER_LEASE = 3
BEAT_PAGE = 100
SWEEP_PAGE = 200
LOST_PAGE = 20


def new_owner(lease_seconds: float | None) -> tuple[str, int]:
    """Make an owner's id, with its lease in milliseconds; 0 for none.

    Raises:
        InvalidInputError: the lease is too short to be extended in time.
    """
    if lease_seconds is None:
        return "", 0
    if not lease_seconds >= SHORTEST_LEASE_SECONDS:
        raise InvalidInputError(
            f"owner_lease_seconds is {lease_seconds}, but must be None or at least "
            f"{SHORTEST_LEASE_SECONDS}"
        )
    return secrets.token_hex(8), round(lease_seconds * 1000)


SHORTEST_LEASE_SECONDS = 0.1


class Owners:
    """Extends the leases of this store's runs; without ``owner_lease_seconds`` it does nothing."""

    def __init__(self, server: Server, durations: Durations) -> None:
        self._server = server
        self._durations = durations
        self._owner, self._lease_ms = durations.owner
        self._taken: dict[str, float] = {}
        """Run id -> when this store last set it running, by the loop's clock."""
        self._beating_for_ever: asyncio.Task[None] | None = None
        self._beating = SideBySide[None](PATIENCE_SECONDS if server.is_cluster else None)
        server.when_ready.append(self.start)

    def start(self) -> None:
        """Begin to extend leases, and to fail the runs of other owners that are gone."""
        if self._lease_ms and self._beating_for_ever is None:
            self._beating_for_ever = start_task(self._beat_for_ever(), "extend owned runs")

    def take(self, run_id: str) -> None:
        """Extend the run's lease from now on; called before the run is set running."""
        if self._lease_ms:
            self._taken[run_id] = asyncio.get_running_loop().time()

    async def close(self) -> None:
        """Stop: runs that are still running fail when their lease is over."""
        if self._beating_for_ever is not None:
            await end_tasks([self._beating_for_ever])

    async def _beat_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self._lease_ms / 1000 / BEATS_PER_LEASE)
            try:
                await self._server.locator.locate(*self._taken)
                await self._beating.gather(
                    {
                        partition: functools.partial(self._beat, partition)
                        for partition in self._server.keys.all_partitions
                    }
                )
            except MurmurError as error:
                logger.warning("the leases of owned runs were not extended: %s", error)

    async def _beat(self, partition: int) -> None:
        keys, durations = self._server.keys, self._durations
        # One that was taken since then has its turn with the next beat.
        mine = [
            run_id
            for run_id in self._taken
            if keys.is_located(run_id) and keys.partition(run_id) == partition
        ]
        for first in range(0, max(1, len(mine)), BEAT_PAGE):
            answer = await self._server.partition_script(
                *("own", partition, self._owner, self._lease_ms, durations.live_ttl_ms),
                *(durations.feed_max_entries, durations.ttl_ms, LOST_PAGE),
                *mine[first : first + BEAT_PAGE],
            )
            self._forget(answer[1:])

    def _forget(self, not_running: tuple[str, ...]) -> None:
        # The script reports runs that do not run. One that was taken a moment ago may not run yet,
        # because the call that sets it running is still on its way (and may be retried). Forgetting
        # it now would let its lease run out, and fail a healthy run.
        patience = self._server.retry_seconds + self._server.call_seconds
        now = asyncio.get_running_loop().time()
        for run_id in not_running:
            if now - self._taken.get(run_id, now) > patience:
                del self._taken[run_id]


async def sweep(server: Server, durations: Durations) -> int:
    """Sweep all partitions in pages; return how many runs were removed or ended."""
    changed, limits = 0, (SWEEP_PAGE, durations.feed_max_entries, durations.ttl_ms)
    await server.locator.look_at_counts()
    for partition in server.keys.all_partitions:
        more = True
        while more:
            answer = await server.partition_script("sweep", partition, *limits)
            changed, more = changed + int(answer[1]), answer[2] == "1"
            for name, what in zip(answer[3::2], answer[4::2], strict=True):
                if what == "wrong_type":
                    log_wrong_type(name)
                else:
                    _log_overdue(name)
    return changed


def _log_overdue(run_id: str) -> None:
    logger.error(
        "run %s is overdue and damaged, so it was left as it is; `murmur-streams audit "
        "%s` says what is wrong, `murmur-streams rebuild %s` mends it",
        *(run_id, run_id, run_id),
    )
