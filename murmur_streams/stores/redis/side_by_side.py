"""Calls to several servers, of which a slow one does not delay the others."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Hashable, Mapping
from typing import Generic, TypeVar

from murmur_streams.core.model.errors import MurmurError
from murmur_streams.stores.own_tasks import start_task

logger = logging.getLogger("murmur_streams.redis")

PATIENCE_SECONDS = 0.5
"""A call that takes longer goes on by itself: its server may be frozen, and others are not."""

_T = TypeVar("_T")


class SideBySide(Generic[_T]):
    """One call at a time to each of several servers or partitions.

    Args:
        patience_seconds: how long a caller waits for one of them. None for a store with one server:
            there is nothing to go on with while it is slow.
    """

    def __init__(self, patience_seconds: float | None) -> None:
        self._patience = patience_seconds
        self._running: dict[Hashable, asyncio.Task[_T]] = {}

    async def ask(self, key: Hashable, call: Callable[[], Awaitable[_T]]) -> _T | None:
        """Make a call, unless an earlier one to the same ``key`` is under way.

        Returns:
            Its result; None when it is late. A late result is among those of ``late``.
        """
        if self._patience is None:
            return await call()
        if key in self._running:
            return None
        task = self._running[key] = start_task(_of(call), "call to one of several servers")
        await asyncio.wait([task], timeout=self._patience)
        if not task.done():
            return None
        del self._running[key]
        return task.result()

    async def gather(self, calls: Mapping[Hashable, Callable[[], Awaitable[_T]]]) -> list[_T]:
        """Make several calls at once; the results of all that have ended, of late ones, too.

        Raises:
            MurmurError: of a call, when no call has a result, or one server is behind all of them.
        """
        if self._patience is None:
            return list(await asyncio.gather(*(call() for call in calls.values())))
        begun = [
            self._running.setdefault(key, start_task(_of(call), "call to one of several servers"))
            for key, call in calls.items()
            if key not in self._running
        ]
        if begun:
            await asyncio.wait(begun, timeout=self._patience)
        results, failed = self._take_done()
        if failed and not results:
            raise failed[0]
        return results

    def late(self) -> list[_T]:
        """The results that came after their callers had gone on."""
        return self._take_done()[0]

    def _take_done(self) -> tuple[list[_T], list[BaseException]]:
        results, failed = list[_T](), list[BaseException]()
        for key, task in [*self._running.items()]:
            if not task.done():
                continue
            del self._running[key]
            if (error := task.exception()) is None:
                results.append(task.result())
            elif isinstance(error, MurmurError):
                logger.debug("one of several servers failed: %s", error)
                failed.append(error)
            else:
                raise error
        return results, failed


async def _of(call: Callable[[], Awaitable[_T]]) -> _T:
    return await call()
