"""Calls sent by hand: under any producer and number, once, with no retry."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from murmur_streams.core.decide import Answer
from murmur_streams.stores.redis.calls import Calls, Durations
from murmur_streams.stores.redis.store import RedisRunStore
from murmur_streams.stores.redis.writer import Arguments, Writer


class HandWriter:
    """Sends a call once, under the producer and number that the test chose."""

    def __init__(self, store: RedisRunStore) -> None:
        self._store = store
        self.producer, self.n = "", 0

    async def write(
        self,
        name: str,
        run_id: str,
        keys: list[str],
        now_ms: int,
        shared: Arguments,
        own: Arguments,
    ) -> Answer:
        arguments = [run_id, self.producer, self.n, now_ms, *shared, *own]
        return await self._store.server.script(name, keys, arguments)


def calls_by_hand(
    writer: HandWriter, store: RedisRunStore, durations: Durations, clock: Callable[[], int]
) -> Calls:
    """The store's typed calls, sent by this writer."""
    return Calls(cast("Writer", writer), store.keys, durations, clock)
