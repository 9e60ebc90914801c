"""A followed run, and the two live sources that serve it.

A source is a blocking XREAD, either on the journals of a few runs or on the feed of all.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import deque
from collections.abc import Mapping
from typing import Any

from murmur_streams.core.model.feed import read_position
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

TAIL_ENTRIES = 256


class Followed:
    """The entries of one run that the live source has delivered since it was followed.

    The buffer only saves reads. A subscriber goes by seq, and reads the journal when the buffer has
    a hole, begins too late, or was marked as incomplete.
    """

    def __init__(self, run_id: str, last_id: str) -> None:
        self.run_id = run_id
        self.last_id = last_id
        """The id of the last entry that the live source has delivered."""
        self.followers = 0
        self.is_armed = False
        """Whether the live source serves it."""
        self.rereads = 0
        """Counts the times when entries may be missing here: read the journal from the position."""
        self.verifies = 0
        """Counts the times when the journal may be another one: check the cursor first."""
        self.error: BaseException | None = None
        self._tail: deque[tuple[int, Any]] = deque(maxlen=TAIL_ENTRIES)
        self._changed = asyncio.Event()

    def put(self, entry_id: str, raw: Any | None) -> None:
        """Add an entry; ``raw`` is None when it must be read from the journal."""
        last_ms, last_seq = read_position(self.last_id)
        ms, seq = read_position(entry_id)
        if seq <= last_seq and ms <= last_ms:
            return  # Delivered before, by the other source.
        self.last_id = entry_id
        if seq <= last_seq:
            # A failover rewound the journal, or the id has a new run.
            self.verify()
            return
        if raw is None or seq != last_seq + 1:
            self._tail.clear()
            self.rereads += 1
        if raw is not None:
            self._tail.append((seq, raw))
        self.wake()

    def reread(self) -> None:
        """Entries may have been missed."""
        self._tail.clear()
        self.rereads += 1
        self.wake()

    def verify(self) -> None:
        """The connection broke, or the run may be gone."""
        self._tail.clear()
        self.verifies += 1
        self.wake()

    def fail(self, error: BaseException) -> None:
        """The live source has ended for good."""
        self.error = error
        self.wake()

    def wake(self) -> None:
        """Wake every waiting subscriber."""
        self._changed.set()
        self._changed = asyncio.Event()

    def since(self, seq: int) -> list[Any] | None:
        """The entries after ``seq`` without a hole; None: read the journal."""
        tail = self._tail
        if not tail or tail[-1][0] <= seq:
            return []
        if tail[0][0] > seq + 1:
            return None
        raws: list[Any] = []
        wanted = seq + 1
        for found, raw in tail:
            if found < wanted:
                continue
            if found > wanted:
                return raws or None
            raws.append(raw)
            wanted += 1
        return raws

    def oldest(self) -> Any | None:
        """The oldest entry of the buffer."""
        return self._tail[0][1] if self._tail else None

    @property
    def news(self) -> asyncio.Event:
        """An event that the next change sets.

        Take it before looking at the entries. Taken afterwards, it would miss a change between the
        look and the wait, and the subscriber would sleep although there is an entry for it.
        """
        return self._changed

    @staticmethod
    async def changed(news: asyncio.Event, seconds: float) -> None:
        """Wait for news, at most ``seconds``."""
        try:
            async with asyncio.timeout(seconds):
                await news.wait()
        except TimeoutError:
            return


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
        after = {self._wake: self._wake_id}
        for key, run in runs.items():
            after[key] = run.last_id
            run.is_armed = True
        reply = await self._server.read_streams(after, JOURNAL_PAGE, BLOCK_SECONDS)
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
        after = {self._feed: self._at}
        reply = await self._server.read_streams(after, FEED_PAGE, BLOCK_SECONDS)
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
