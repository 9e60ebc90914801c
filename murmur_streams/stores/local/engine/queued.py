"""What a store on disk has for workers and for those who look after their work."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Callable, Collection
from typing import TypeVar

from murmur_streams.core.model.identifiers import check_run_id, check_target
from murmur_streams.core.model.limits import Limits
from murmur_streams.stores.local.engine.database import Reader, Space
from murmur_streams.stores.local.engine.dead import DeadLetters
from murmur_streams.stores.local.engine.queue import Queue
from murmur_streams.stores.local.engine.signals import Signals
from murmur_streams.stores.local.engine.transaction import Transaction
from murmur_streams.stores.local.engine.workers import Workers
from murmur_streams.stores.pauses import pause_before_retry
from murmur_streams.stores.queue_commands import QueuedRuns

T = TypeVar("T")

_PAUSED = "1"
MOST_PAUSED = 10_000


class DiskWork(QueuedRuns):
    """The part of a store on disk that is about work: queue, workers, dead letters."""

    clock: Callable[[], int]
    signals: Signals

    @property
    @abstractmethod
    def limits(self) -> Limits:
        """The sizes that it takes."""

    @abstractmethod
    async def ping(self) -> None:
        """Return when the store can be used now, else raise why not."""

    @abstractmethod
    async def read(self, call: Callable[[Reader], T]) -> T:
        """Read in the reader's thread."""

    @abstractmethod
    async def write(self, operation: Callable[[Transaction], T]) -> T:
        """Write in a group with others."""

    @abstractmethod
    async def write_alone(self, operation: Callable[[Transaction], T]) -> T:
        """Write in a group of its own."""

    @abstractmethod
    def _watch(self) -> None:
        """Look for what other processes write while somebody waits for it."""

    def queue(self, lease_seconds: float) -> Queue:
        """The waiting work; a claim of it holds for so long without a heartbeat."""
        return Queue(self, lease_seconds)

    def workers(self, interval_seconds: float = 5.0) -> Workers:
        """The list of live workers, each of which says so once in an interval."""
        return Workers(self, interval_seconds)

    def dead_letters(self) -> DeadLetters:
        """The runs that failed for good."""
        return DeadLetters(self)

    async def recover(self, attempt: int) -> None:
        """Wait before a further try after a failure, longer each time, to two seconds."""
        await pause_before_retry(attempt)

    async def wait_for_work(self, targets: Collection[str], seconds: float) -> None:
        """Wait until a run of these targets is queued, at most ``seconds``; may be early."""
        # As soon as this one is among those who wait.
        asyncio.get_running_loop().call_soon(self._watch)
        try:
            await self.signals.queued(targets, seconds)
        finally:
            self._watch()

    async def pause(self, target: str) -> None:
        """Let no worker start a run of this target from now on; those that run go on."""
        check_target(target)
        await self.write(lambda group: group.put(Space.PAUSED, target, _PAUSED))

    async def resume(self, target: str) -> None:
        """Let workers start runs of this target again, and wake those of this process."""
        check_target(target)
        await self.write(lambda group: group.put(Space.PAUSED, target, None))
        self.signals.look()

    async def paused(self) -> set[str]:
        """The targets that are paused."""
        rows = await self.read(lambda reader: reader.items(Space.PAUSED, limit=MOST_PAUSED))
        return {target for target, _ in rows}

    async def lease_left_ms(self, run_id: str) -> int | None:
        """How long the run's lease still holds, below 0 when it ran out; None without one."""
        check_run_id(run_id)
        stored = await self.read(lambda reader: reader.stored(run_id))
        if stored is None or stored.lease_until_ms is None:
            return None
        return stored.lease_until_ms - self.clock()
