"""Wake-up streams: idle workers block on them, and a token wakes one worker of a target."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Sequence

from murmur_streams.settings import DAY_SECONDS
from murmur_streams.stores.redis.connection.failures import code_of
from murmur_streams.stores.redis.replies import text
from murmur_streams.stores.redis.server import Server

WAKE_GROUP = "workers"
WAKE_CONSUMER = "any"
"""One consumer name for all workers: tokens are never acknowledged, and one name for each worker
would never be removed."""
WAKE_TTL_MS = DAY_SECONDS * 1000
"""A wake-up stream expires when no worker has waited on it for so long; as in include/queue.lua."""
RENEWED_SECONDS = DAY_SECONDS / 10


class WakeStreams:
    """The wake-up streams of all partitions, for one worker."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._keys = server.keys
        self._extended_at = -math.inf
        """When the expiry of the streams was last extended, by the loop's clock."""

    async def create(self, targets: Sequence[str]) -> None:
        """Create the streams and their group, where they are missing."""
        for key in self._wake_keys(targets):
            # In one round trip: a worker that ends in between would leave a stream without expiry.
            create = ("XGROUP", "CREATE", key, WAKE_GROUP, "0", "MKSTREAM")
            try:
                await self._server.read_all(create, ("PEXPIRE", key, WAKE_TTL_MS))
            except Exception as error:
                if "BUSYGROUP" not in str(error):
                    raise
        await self._extend(targets)

    async def _extend(self, targets: Sequence[str]) -> None:
        keys = self._wake_keys(targets)
        await self._server.read_all(*(("PEXPIRE", key, WAKE_TTL_MS) for key in keys))
        self._extended_at = asyncio.get_running_loop().time()

    async def wait(self, targets: Sequence[str], seconds: float) -> list[int]:
        """Wait for a token, at most ``seconds``; the partitions that it came from."""
        keys = self._wake_keys(targets)
        if asyncio.get_running_loop().time() - self._extended_at >= RENEWED_SECONDS:
            await self._extend(targets)
        try:
            reply = await self._server.blocking(
                "XREADGROUP", "GROUP", WAKE_GROUP, WAKE_CONSUMER, "COUNT", 1,
                "BLOCK", max(1, round(seconds * 1000)), "NOACK",
                "STREAMS", *keys, *(">" for _ in keys),
                seconds=seconds,
            )  # fmt: skip
        except Exception as error:  # noqa: BLE001  # every error of the driver is judged here
            if code_of(error) in {"NOGROUP", "UNBLOCKED", "WRONGTYPE"}:
                await self.create(targets)
                return []
            await judge_read(self._server, error)
        else:
            woken = {text(key) for key, _ in reply or ()}
            found = {keys.index(key) // len(targets) for key in woken if key in keys}
            return sorted(found, key=lambda _: random.random())  # noqa: S311  # no secret
        return []

    def _wake_keys(self, targets: Sequence[str]) -> list[str]:
        return [
            self._keys.wake(target, partition)
            for partition in self._keys.all_partitions
            for target in targets
        ]


async def judge_read(server: Server, error: Exception) -> None:
    """Raise an error that a later try cannot avoid; otherwise wait a moment."""
    if code_of(error) != "UNBLOCKED":
        server.judge(error)
        await server.recover(0)
