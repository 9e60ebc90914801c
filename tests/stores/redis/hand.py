"""Calls sent by hand: under any producer and number, once, with no retry."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

from murmur_streams.core.rules.decide import Answer
from murmur_streams.stores.redis.calls import Calls, Durations
from murmur_streams.stores.redis.store import RedisRunStore
from murmur_streams.stores.redis.writer import Writer
from murmur_streams.stores.redis.writes import MERGED_SCRIPTS, Arguments


class HandWriter:
    """Sends a call once, under the producer and number that the test chose.

    Writes of one turn of the loop leave in one call, as from the writer. The test must see to it
    that these are writes to one run, by one script that merges.
    """

    def __init__(self, store: RedisRunStore) -> None:
        self._store = store
        self.producer, self.n = "", 0
        self.answer: Answer = ()
        """The last call's answer as it came, of which each write's is a part."""
        self._owns: list[Arguments] = []
        self._sending: asyncio.Task[Answer] | None = None

    async def write(
        self,
        name: str,
        run_id: str,
        keys: list[str],
        now_ms: int,
        shared: Arguments,
        own: Arguments,
    ) -> Answer:
        index = len(self._owns)
        self._owns.append(own)
        if self._sending is None:
            first = [run_id, self.producer, self.n, now_ms, *shared]
            self._sending = asyncio.create_task(self._send(name, keys, first))
        answer = await self._sending
        return answer if len(answer) == 1 else answer[2 * index : 2 * index + 2]

    async def _send(self, name: str, keys: list[str], first: list[str | int]) -> Answer:
        owns, self._owns, self._sending = self._owns, [], None
        count = [len(owns)] if name in MERGED_SCRIPTS else []
        arguments = [*first, *count, *(part for own in owns for part in own)]
        self.answer = await self._store._server.script(name, keys, arguments)
        return self.answer


def calls_by_hand(
    writer: HandWriter, store: RedisRunStore, durations: Durations, clock: Callable[[], int]
) -> Calls:
    """The store's typed calls, sent by this writer."""
    return Calls(cast("Writer", writer), store._keys, durations, clock)
