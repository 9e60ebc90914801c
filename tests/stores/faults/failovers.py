"""Writes that go on while servers fail."""

from __future__ import annotations

import asyncio

from murmur_streams.stores.redis.store import RedisRunStore
from tests.stores.faults.events import note
from tests.stores.faults.waiting import wait_until


class Writing:
    """A task that appends to a run; the names of the events that were acknowledged."""

    def __init__(self, store: RedisRunStore, prefix: str = "") -> None:
        self._store = store
        self._prefix = prefix
        self.acknowledged: list[str] = []
        self._task = asyncio.create_task(self._write())

    async def _write(self) -> None:
        number = 0
        while True:
            name = f"{self._prefix}{number}"
            await self._store.append("run", note("run", name))
            self.acknowledged.append(name)
            number += 1
            await asyncio.sleep(0.002)

    async def continues(self) -> None:
        """Wait for further acknowledged writes."""
        count = len(self.acknowledged) + 20
        await wait_until(lambda: len(self.acknowledged) >= count, "writes go on")

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])
        assert self._task.cancelled(), self._task.exception()
