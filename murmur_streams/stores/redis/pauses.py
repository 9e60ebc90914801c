"""Which targets are paused, in every partition."""

from __future__ import annotations

import asyncio

from murmur_streams.stores.redis.keys import RECORDED_COUNTS
from murmur_streams.stores.redis.replies import text
from murmur_streams.stores.redis.server import Server


class Pauses:
    """The paused targets of one store."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._keys = server.keys

    async def pause(self, target: str) -> None:
        """Let no worker take runs of the target."""
        await self._in_every_partition("pause", target)

    async def resume(self, target: str) -> None:
        """Let workers take them again."""
        await self._in_every_partition("resume", target)

    async def paused(self) -> set[str]:
        """The targets that are paused in any partition; an interrupted pause counts."""
        await self._server.locator.look_at_counts()
        rows = [self._keys.paused(partition) for partition in self._keys.all_partitions]
        found = await self._server.read_all(*(("SMEMBERS", row) for row in rows))
        return {text(target) for targets in found for target in targets}

    async def _in_every_partition(self, script: str, target: str) -> None:
        done = range(0)
        # Again, if the number of partitions was raised meanwhile.
        while done != (every := self._keys.all_partitions):
            calls = [
                self._server.idempotent_script(
                    script, [self._keys.base(partition)], [target, RECORDED_COUNTS]
                )
                for partition in every
            ]
            await asyncio.gather(*calls)
            done = every
