"""Reads that callers share when they make the same one at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Any

from murmur_streams.stores.own_tasks import start_task

READS_AT_ONCE = 16
"""More would wait for a connection, each with all that a call needs: ten thousand subscribers that
open at the same time would leave a large heap behind."""


class _Read:
    """A read that callers wait for; others can join until it is sent."""

    __slots__ = ("_key", "_reads", "_turn", "is_sent", "task", "waiting")

    def __init__(
        self,
        reads: dict[Hashable, _Read],
        key: Hashable,
        ask: Callable[[], Awaitable[Any]],
        turn: asyncio.Semaphore,
    ) -> None:
        self._reads = reads
        self._key = key
        self._turn = turn
        self.waiting = 0
        self.is_sent = False
        before = reads.get(key)
        reads[key] = self
        self.task = start_task(self._run(before, ask), "shared read")

    def forget(self) -> None:
        """Make the next caller start a new read."""
        if self._reads.get(self._key) is self:
            del self._reads[self._key]

    async def _run(self, before: _Read | None, ask: Callable[[], Awaitable[Any]]) -> Any:
        try:
            if before is not None:
                await asyncio.wait([before.task])
            async with self._turn:
                self.is_sent = True
                return await ask()
        finally:
            self.forget()


class SharedReads:
    """Joins callers that make the same read at the same time.

    A caller never receives the reply to a read that was sent before its own call. If it did, a
    reader could miss an entry: the entry is appended, the reader looks, gets a reply from before
    the append, and then waits for news that it has already missed. So a caller joins only a read
    that was not sent yet. While one is under way, one more waits behind it, and can be joined.
    """

    def __init__(self) -> None:
        self._reads: dict[Hashable, _Read] = {}
        self._turn = asyncio.Semaphore(READS_AT_ONCE)

    async def read(self, key: Hashable, ask: Callable[[], Awaitable[Any]]) -> Any:
        """The reply of ``ask``; callers with the same ``key`` share it."""
        shared = self._reads.get(key)
        if shared is None or shared.is_sent:
            shared = _Read(self._reads, key, ask, self._turn)
        shared.waiting += 1
        try:
            return await asyncio.shield(shared.task)
        finally:
            shared.waiting -= 1
            if not shared.waiting and not shared.task.done():
                # Every caller was cancelled.
                shared.task.cancel()
                shared.forget()
