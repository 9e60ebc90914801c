"""Identical reads of many callers become one: a wave of reconnects costs one read a run."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Any

from murmur_streams.stores.own_tasks import start_task


class _Read:
    """One read that callers wait for; it can be joined until it was sent."""

    def __init__(
        self, reads: dict[Hashable, _Read], key: Hashable, ask: Callable[[], Awaitable[Any]]
    ) -> None:
        self._reads = reads
        self._key = key
        self.waiting = 0
        self.is_sent = False
        before = reads.get(key)
        reads[key] = self
        self.task = start_task(self._run(before, ask), "shared read")

    def forget(self) -> None:
        """Let who comes next ask anew."""
        if self._reads.get(self._key) is self:
            del self._reads[self._key]

    async def _run(self, before: _Read | None, ask: Callable[[], Awaitable[Any]]) -> Any:
        try:
            if before is not None:
                await asyncio.wait([before.task])
            self.is_sent = True
            return await ask()
        finally:
            self.forget()


class SharedReads:
    """Joins callers that ask the same at the same time.

    Nobody is given an answer that was asked for before he came: a caller joins the read that has
    not been sent yet, and while one is under way, the next one waits for it and is joined.
    """

    def __init__(self) -> None:
        self._reads: dict[Hashable, _Read] = {}

    async def read(self, key: Hashable, ask: Callable[[], Awaitable[Any]]) -> Any:
        """The answer of ``ask``; ``key`` says what is asked."""
        shared = self._reads.get(key)
        if shared is None or shared.is_sent:
            shared = _Read(self._reads, key, ask)
        shared.waiting += 1
        try:
            return await asyncio.shield(shared.task)
        finally:
            shared.waiting -= 1
            if not shared.waiting and not shared.task.done():
                # Everybody was cancelled.
                shared.task.cancel()
                shared.forget()
