"""The connections of one store: for commands, for blocking commands, and to the Sentinels."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from redis.asyncio import Redis

from murmur_streams.stores.redis.connection.connections import Connections
from murmur_streams.stores.redis.connection.sentinel import primary_of
from murmur_streams.stores.timing import retry_pause_seconds

COMMAND_CONNECTIONS = 4
BLOCKING_CONNECTIONS = 1_000


class Pools:
    """The pools of one store. When Sentinels name another primary, all their connections close.

    Args:
        client: its address and credentials are used, or its Sentinels.
        deadline_seconds: a connection whose reply takes longer counts as broken.
    """

    def __init__(self, client: Redis, deadline_seconds: float) -> None:
        self.primary = primary_of(client)
        """Of a service that Sentinels monitor; None for the client of one address."""
        self.commands, self.blocking = (
            Connections(client, size=size, deadline_seconds=deadline_seconds, primary=self.primary)
            for size in (COMMAND_CONNECTIONS, BLOCKING_CONNECTIONS)
        )
        self.when_moved: Callable[[], None] = lambda: None
        """Called when no command goes to the old primary any more."""
        self._moved = asyncio.Event()
        if self.primary is not None:
            self.primary.when_moved = self._leave_old_primary

    def watch(self) -> None:
        """Listen for failovers from now on."""
        if self.primary is not None:
            self.primary.watch()

    async def pause_before_retry(self, attempt: int) -> None:
        """Wait as ``timing.pause_before_retry`` does, but not beyond a failover."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(retry_pause_seconds(attempt)):
                await self._moved.wait()

    async def close(self) -> None:
        """Close every connection; calls under way fail."""
        if self.primary is not None:
            await self.primary.close()
        await self.commands.close()
        await self.blocking.close()

    async def _leave_old_primary(self) -> None:
        # Calls under way would wait for a server that is gone or frozen, or that will lose what
        # it still takes.
        await self.commands.drop_all()
        self.when_moved()
        await self.blocking.drop_all()
        self._moved.set()
        self._moved.clear()
