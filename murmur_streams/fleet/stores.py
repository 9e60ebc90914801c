"""The store of each event loop: opened at first use, never shared across loops or forks."""

from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import Mapping
from typing import Any

from murmur_streams.core.errors import InvalidInputError, StoreConfigurationError
from murmur_streams.settings import Settings
from murmur_streams.stores.open import open_store
from murmur_streams.stores.redis.own_tasks import start_task
from murmur_streams.stores.redis.store import RedisRunStore

_NOT_OURS = frozenset({"url", "client", "revive"})
"""What the store is made with beside its options."""


class StoreOfLoop:
    """Opens one store per process and event loop, when it is first asked for.

    Raises:
        InvalidInputError: the URL is no text.
        TypeError: an option is none of the store's.
    """

    def __init__(self, url: str | None, options: Mapping[str, Any]) -> None:
        _check(url, options)
        self._url = url
        self._options = options
        self._opened: dict[tuple[int, asyncio.AbstractEventLoop], asyncio.Task[RedisRunStore]] = {}
        """By process and loop. A forked child keeps its parent's stores and leaves them alone:
        closing them would unregister the parent's sockets."""

    async def get(self) -> RedisRunStore:
        """The running loop's store.

        Raises:
            StoreConfigurationError, StoreUnavailableError: it cannot be opened.
        """
        here = _here()
        known = self._opened.get(here)
        if known is None or _failed(known):
            self._forget_closed_loops()
            known = self._opened[here] = start_task(self._open(), "open the store")
        return await asyncio.shield(known)

    async def close(self) -> None:
        """Close the running loop's store, if there is one."""
        known = self._opened.pop(_here(), None)
        if known is not None and not _failed(known):
            await (await known).close()

    def _forget_closed_loops(self) -> None:
        for pid, loop in list(self._opened):
            if pid == os.getpid() and loop.is_closed():
                # Threads with loops of their own may both be here.
                self._opened.pop((pid, loop), None)

    async def _open(self) -> RedisRunStore:
        settings = Settings.from_environment(os.environ)
        url = self._url or settings.url or "embedded:"
        defaults = {
            "key_prefix": settings.key_prefix,
            "partitions": settings.partitions,
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


def _check(url: object, options: Mapping[str, Any]) -> None:
    """Where the mistake is, and not at the first submission, in another file or process."""
    if url is not None and not isinstance(url, str):
        raise InvalidInputError(
            f"url is {url!r}, but must be text such as redis://localhost:6379/0, or None"
        )
    known = [name for name in inspect.signature(RedisRunStore).parameters if name not in _NOT_OURS]
    for name in options:
        if name not in known:
            raise TypeError(f"a Fleet has no option {name!r}; it has: {', '.join(known)}")


def _here() -> tuple[int, asyncio.AbstractEventLoop]:
    return os.getpid(), asyncio.get_running_loop()


def _failed(task: asyncio.Task[RedisRunStore]) -> bool:
    return task.done() and (task.cancelled() or task.exception() is not None)
