"""Waiting for a condition, never for a time."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable

from redis.asyncio import Redis

from murmur_streams.stores.redis.store import RedisRunStore

LONGEST_SECONDS = 30.0


async def wait_until(
    condition: Callable[[], bool | Awaitable[bool]], why: str, seconds: float = LONGEST_SECONDS
) -> None:
    """Return as soon as the condition holds; fail with ``why`` when it never does."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while True:
        holds = condition()
        if inspect.isawaitable(holds):
            holds = await holds
        if holds:
            return
        assert loop.time() < deadline, f"waited {seconds:g} s in vain: {why}"
        await asyncio.sleep(0.005)


async def wait_for_subscribers(store: RedisRunStore, admin: Redis, count: int) -> None:
    """Return when ``count`` subscribers of the store wait, on its one connection for all."""

    async def there() -> bool:
        clients = await admin.info("clients")
        return store._tails.followers == count and int(clients["blocked_clients"]) == 1

    await wait_until(there, f"{count} subscribers wait")
