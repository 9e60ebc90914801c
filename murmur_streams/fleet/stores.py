"""The store of each event loop: opened at first use, never shared across loops or forks."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from typing import Any
from weakref import WeakKeyDictionary

from murmur_streams.core.errors import StoreConfigurationError
from murmur_streams.settings import Settings
from murmur_streams.stores.open import open_store
from murmur_streams.stores.redis.store import RedisRunStore


class StoreOfLoop:
    """Opens one store per process and event loop, when it is first asked for."""

    def __init__(self, url: str | None, options: Mapping[str, Any]) -> None:
        self._url = url
        self._options = options
        self._opened: WeakKeyDictionary[
            asyncio.AbstractEventLoop, tuple[int, asyncio.Task[RedisRunStore]]
        ] = WeakKeyDictionary()

    async def get(self) -> RedisRunStore:
        """The running loop's store.

        Raises:
            StoreConfigurationError, StoreUnavailableError: it cannot be opened.
        """
        loop, pid = asyncio.get_running_loop(), os.getpid()
        known = self._opened.get(loop)
        if known is None or known[0] != pid or _failed(known[1]):
            known = (pid, loop.create_task(self._open()))
            self._opened[loop] = known
        return await asyncio.shield(known[1])

    async def close(self) -> None:
        """Close the running loop's store, if there is one."""
        known = self._opened.pop(asyncio.get_running_loop(), None)
        if known is not None and known[0] == os.getpid() and not _failed(known[1]):
            await (await known[1]).close()

    async def _open(self) -> RedisRunStore:
        settings = Settings.from_environment(os.environ)
        url = self._url or settings.url or "embedded:"
        defaults = {
            "key_prefix": settings.key_prefix,
            "ttl_seconds": settings.ttl_seconds,
            "live_ttl_seconds": settings.live_ttl_seconds,
        }
        # In a thread: an embedded server may have to be started.
        store = await asyncio.to_thread(
            lambda: open_store(
                url,
                **({**defaults, **self._options} if not url.startswith("memory:") else {}),
            )
        )
        if not isinstance(store, RedisRunStore):
            raise StoreConfigurationError(
                "a fleet needs a Redis, since workers are other processes: set MURMUR_URL, or "
                "leave it out for the embedded server"
            )
        return store


def _failed(task: asyncio.Task[RedisRunStore]) -> bool:
    return task.done() and (task.cancelled() or task.exception() is not None)
