"""The two live sources: a blocking XREAD on the journals of a few runs, or on the feed of all."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Mapping
from typing import Any

from murmur_streams.core.model.feed import read_position
from murmur_streams.stores.redis.live.run_buffer import Followed
from murmur_streams.stores.redis.replies import text
from murmur_streams.stores.redis.server import Server

logger = logging.getLogger("murmur_streams.redis")

BLOCK_SECONDS = 20.0
"""Bounded, because neither a frozen server nor a deleted key ends a blocking read."""
JOURNAL_PAGE = 256
FEED_PAGE = 1_000
WAKE_TTL_MS = 120_000
_FEED_HEAD = 6
"""The names and values of run, entry and target come before an entry's own fields."""


class DirectSource:
    """Reads the journals of the followed runs; each read names every journal."""

    def __init__(self, server: Server, partition: int, followed: Mapping[str, Followed]) -> None:
        self._server = server
        self._followed = followed
        self._wake = server.keys.tail(secrets.token_hex(6), partition)
        self._wake_id = "0-0"

    async def start(self) -> None:
        """Does nothing: each run knows where its journal ended."""

    async def rearm(self) -> None:
        """Wake the blocking read, so that the next one includes newly followed runs."""
        await self._server.read_all(
            ("MULTI",),
            ("XADD", self._wake, "MAXLEN", 1, "*", "wake", "1"),
            ("PEXPIRE", self._wake, WAKE_TTL_MS),
            ("EXEC",),
        )

    async def read(self) -> None:
        """Wait for entries once, and hand them to their runs."""
        runs = {self._server.keys.journal(run_id): run for run_id, run in self._followed.items()}
        ids = [run.last_id for run in runs.values()]
        for run in runs.values():
            run.is_armed = True
        reply = await self._server.blocking(
            *("XREAD", "COUNT", JOURNAL_PAGE, "BLOCK", int(BLOCK_SECONDS * 1000), "STREAMS"),
            *(self._wake, *runs, self._wake_id, *ids),
            seconds=BLOCK_SECONDS,
        )
        for key, entries in reply or ():
            run = runs.get(text(key))
            if run is None:
                self._wake_id = text(entries[-1][0])
                continue
            for raw in entries:
                run.put(text(raw[0]), raw)

    async def recover(self) -> None:
        """After a broken connection: make every subscriber check its cursor."""
        self._wake_id = "0-0"
        for run in self._followed.values():
            run.verify()


class FeedSource:
    """Reads the partition's feed on one connection, and picks out the followed runs.

    The feed is trimmed and is only a fast path: a break in its dense n, forward or back, makes
    every followed run read its journal again. Without this check, entries that were trimmed from
    the feed under a slow process would never reach its subscribers.
    """

    def __init__(self, server: Server, partition: int, followed: Mapping[str, Followed]) -> None:
        self._server = server
        self._followed = followed
        self._feed = server.keys.feed(partition)
        self._at = "0-0"

    async def start(self) -> None:
        """Find the end of the feed; earlier entries are read from the journals."""
        self._at = await self._end()
        for run in self._followed.values():
            run.reread()

    async def rearm(self) -> None:
        """Mark the runs as served: the feed has every run."""
        for run in self._followed.values():
            run.is_armed = True

    async def read(self) -> None:
        """Wait for entries once, and hand them to the followed among their runs."""
        reply = await self._server.blocking(
            *("XREAD", "COUNT", FEED_PAGE, "BLOCK", int(BLOCK_SECONDS * 1000)),
            *("STREAMS", self._feed, self._at),
            seconds=BLOCK_SECONDS,
        )
        if not reply:
            # A feed that was deleted or rewound ends no read until it has grown past this position.
            await self._check_end()
            return
        for raw in reply[0][1]:
            self._take(raw)

    async def recover(self) -> None:
        """After a broken connection: check this position; subscribers check their cursors."""
        await self._check_end()
        for run in self._followed.values():
            run.verify()

    def _take(self, raw: Any) -> None:
        feed_id, fields = text(raw[0]), raw[1]
        if read_position(feed_id)[1] != read_position(self._at)[1] + 1:
            logger.info("the feed broke after %s (now %s): reading the journals", self._at, feed_id)
            for run in self._followed.values():
                run.verify()
        self._at = feed_id
        run = self._followed.get(text(fields[1]))
        if run is None:
            return
        own = fields[_FEED_HEAD:]
        run.put(text(fields[3]), None if own[0] == b"big" else [fields[3], own])

    async def _check_end(self) -> None:
        end = await self._end()
        if read_position(end) < read_position(self._at):
            logger.info("the feed ends at %s, before %s: reading the journals", end, self._at)
            self._at = end
            for run in self._followed.values():
                run.verify()

    async def _end(self) -> str:
        last = await self._server.read("XREVRANGE", self._feed, "+", "-", "COUNT", 1)
        return text(last[0][0]) if last else "0-0"


Source = DirectSource | FeedSource
