"""Sends the writes of one partition: all that wait leave together, each is applied exactly once.

At most two calls are in flight. The second follows without a timer, when as many writes wait as are
half of the first one. ``partition_calls.py`` has what was sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from murmur_streams.core.model.errors import StoreClosedError
from murmur_streams.stores.redis.partition_calls import PartitionCalls
from murmur_streams.stores.redis.writes import WaitingWrite


class PartitionWriter(PartitionCalls):
    """The writes of one store to one partition; ``PartitionCalls`` explains its arguments."""

    def add(self, write: WaitingWrite) -> None:
        """Queue a write; its future yields the answer."""
        if self._lost_runs.run_ids and self._lost_runs.concerns(write):
            self._refuse([write], self._lost_runs.error(write))
            return
        waiting, calls = self._waiting, self._calls
        waiting.add(write)
        is_enough = waiting.weight >= calls.early_weight and self._recovering is None
        if is_enough and calls.may_send(waiting.weight):
            self._send_first()
        elif not self._is_scheduled:
            self._schedule()

    def retire(self) -> Sequence[WaitingWrite]:
        """Take no writes any more: the number of partitions has changed.

        Returns:
            What was not sent. What was sent and is not executed goes to ``take_back``.
        """
        self._ended = asyncio.Event()
        waiting = self._waiting.take_all()
        for write in waiting:
            self.budget.release(write.size)
        return waiting

    async def until_idle(self) -> None:
        """Wait until nothing is in flight; it is retired."""
        while not self.is_idle and self._ended is not None:
            await self._ended.wait()
            self._ended.clear()

    async def abandon(self) -> None:
        """Give up what waits and what is in flight."""
        self._is_abandoned = True
        closed = StoreClosedError("the store was closed before the write")
        self._refuse(self._waiting.take_all(), closed)
        if self._recovering is not None:
            self._recovering.cancel()
            await asyncio.gather(self._recovering, return_exceptions=True)

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            # At the end of this turn of the event loop: writes of other tasks join the call.
            asyncio.get_running_loop().call_soon(self._send_next)

    def _send_next(self) -> None:
        self._is_scheduled = False
        while self._waiting and self._recovering is None:
            if not self._calls.may_send(self._waiting.weight):
                break
            self._send_first()
        if self.is_idle:
            self._when_idle()
            if self._ended is not None:
                self._ended.set()
