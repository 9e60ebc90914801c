"""The part of a local store that workers and operators use."""

from __future__ import annotations

from collections.abc import Callable

from murmur_streams.core.model.identifiers import check_run_id, check_target
from murmur_streams.stores.commands import StoreWrites
from murmur_streams.stores.local.engine.access import Access
from murmur_streams.stores.local.engine.database import Space
from murmur_streams.stores.local.engine.dead import LocalDeadLetters
from murmur_streams.stores.local.engine.queue import LocalQueue
from murmur_streams.stores.local.engine.signals import Signals
from murmur_streams.stores.local.engine.workers import LocalWorkers
from murmur_streams.stores.timing import pause_before_retry

_PAUSED = "1"
MOST_PAUSED = 10_000


class LocalWork(StoreWrites):
    """The part of a local store that is about work: queue, workers, dead letters."""

    _access: Access
    _clock: Callable[[], int]
    _signals: Signals

    def queue(self, lease_seconds: float) -> LocalQueue:
        return LocalQueue(self._access, self._signals, self._clock, lease_seconds)

    def workers(self, interval_seconds: float = 5.0) -> LocalWorkers:
        return LocalWorkers(self._access, self._signals, self._clock, interval_seconds)

    def dead_letters(self) -> LocalDeadLetters:
        return LocalDeadLetters(self._access, self._limits, self._clock)

    async def recover(self, attempt: int) -> None:
        await pause_before_retry(attempt)

    async def pause(self, target: str) -> None:
        check_target(target)
        await self._access.write(lambda group: group.put(Space.PAUSED, target, _PAUSED))

    async def resume(self, target: str) -> None:
        check_target(target)
        await self._access.write(lambda group: group.put(Space.PAUSED, target, None))
        self._signals.look()

    async def paused(self) -> set[str]:
        rows = await self._access.read(lambda reader: reader.items(Space.PAUSED, limit=MOST_PAUSED))
        return {target for target, _ in rows}

    async def lease_left_ms(self, run_id: str) -> int | None:
        stored = await self._access.stored(check_run_id(run_id))
        if stored is None or stored.lease_until_ms is None:
            return None
        return stored.lease_until_ms - self._clock()
