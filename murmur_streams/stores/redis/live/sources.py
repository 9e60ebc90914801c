"""A followed run, and the two live sources that serve it.

A source is a blocking XREAD, either on the journals of a few runs or on the feed of all.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import secrets
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from murmur_streams.core.model.feed import Position, read_position
from murmur_streams.stores.redis.connection.lane import Lane
from murmur_streams.stores.redis.replies import read_id, text
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
_MOST_ENDED = 8
"""So many subscribers may have left before the list of those that wait is cleaned."""
_NOTHING: list[Any] = []
"""One for all subscribers, which only read it."""


class Followed:
    """The entries of one run that the live source has delivered since it was followed.

    The buffer only saves reads. A subscriber goes by seq, and reads the journal when the buffer
    begins too late, or was marked as incomplete.
    """

    __slots__ = (
        "_last_ms",
        "_last_seq",
        "_tail",
        "_waiting",
        "changes",
        "error",
        "followers",
        "is_armed",
        "rereads",
        "run_id",
        "verifies",
    )

    def __init__(self, run_id: str, last_id: str) -> None:
        self.run_id = run_id
        self.followers = 0
        self.is_armed = False
        """Whether the live source serves it."""
        self.changes = 0
        """Counts the times when subscribers have something to look at."""
        self.rereads = 0
        """Counts the times when entries may be missing here: read the journal from the position."""
        self.verifies = 0
        """Counts the times when the journal may be another one: check the cursor first."""
        self.error: BaseException | None = None
        self._last_ms, self._last_seq = read_position(last_id)
        self._tail: deque[Any] | None = None
        """The last entries without a hole, if any; none in a run that is idle, to save memory."""
        self._waiting: list[asyncio.Future[None]] = []

    @property
    def last_id(self) -> str:
        """The id of the last entry that the live source has delivered."""
        return f"{self._last_ms}-{self._last_seq}"

    def put(self, entry_id: bytes, raw: Any | None) -> None:
        """Add an entry; ``raw`` is None when it must be read from the journal."""
        ms, seq = read_id(entry_id)
        last_seq = self._last_seq
        if seq <= last_seq and ms <= self._last_ms:
            return  # Delivered before, by the other source.
        self._last_ms, self._last_seq = ms, seq
        if seq <= last_seq:
            # A failover rewound the journal, or the id has a new run.
            self.verify()
            return
        if raw is None or seq != last_seq + 1:
            self._tail = None
            self.rereads += 1
        if raw is not None:
            if self._tail is None:
                self._tail = deque(maxlen=TAIL_ENTRIES)
            self._tail.append(raw)
        self.wake()

    def reread(self) -> None:
        """Entries may have been missed."""
        self._tail = None
        self.rereads += 1
        self.wake()

    def verify(self) -> None:
        """The connection broke, or the run may be gone."""
        self._tail = None
        self.verifies += 1
        self.wake()

    def fail(self, error: BaseException) -> None:
        """The live source has ended for good."""
        self.error = error
        self.wake()

    def wake(self) -> None:
        """Wake every waiting subscriber."""
        self.changes += 1
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)

    def since(self, seq: int) -> list[Any] | None:
        """The entries after ``seq`` without a hole; None: read the journal."""
        tail, missing = self._tail, self._last_seq - seq
        if tail is None or missing <= 0:
            return _NOTHING
        return None if missing > len(tail) else [tail[index] for index in range(-missing, 0)]

    def release(self) -> None:
        """Drop the buffer when its only subscriber has taken all: an idle one keeps no entries.

        A subscriber that joins later reads them from the journal, after it has joined.
        """
        if self.followers == 1:
            self._tail = None

    def oldest(self) -> Any | None:
        """The oldest entry of the buffer."""
        return self._tail[0] if self._tail else None

    def changed(self, since: int, seconds: float | None) -> Awaitable[None]:
        """Wait for a change, at most ``seconds``.

        Args:
            since: ``changes``, read before looking at the entries. Read afterwards, it would hide a
                change between the look and the wait, and the subscriber would sleep although there
                is an entry for it.
            seconds: None: without a limit, and without a timer for each idle subscriber.
        """
        future = asyncio.get_running_loop().create_future()
        if self.changes != since:
            future.set_result(None)
        else:
            self._wait_with(future)
        # An idle subscriber waits for the future itself: a coroutine would take more memory.
        return future if seconds is None else _within(seconds, future)

    def _wait_with(self, future: asyncio.Future[None]) -> None:
        if len(self._waiting) > 2 * self.followers + _MOST_ENDED:
            # Those whose subscribers have left. Not one by one as they leave: to search the list
            # would cost a thousand subscribers of one run half a million steps.
            self._waiting = [each for each in self._waiting if not each.done()]
        self._waiting.append(future)


async def _within(seconds: float, future: asyncio.Future[None]) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await future


async def read_once(
    lane: Lane, after: Mapping[str, str], count: int, take: Callable[[Any], None]
) -> None:
    """Wait once for entries of streams, each after its position.

    ``take`` gets the reply in the turn of the event loop in which its bytes came, so the
    subscribers that it wakes run in the next turn. A task that waits for the reply and then wakes
    them would cost them one turn more.
    """
    faults: list[Exception] = []

    def on_reply() -> None:
        if reply.cancelled() or reply.exception() is not None:
            return
        try:
            take(reply.result())
        except Exception as fault:  # noqa: BLE001  # a bug must end the reader, and not the lane
            faults.append(fault)

    block = ("BLOCK", max(1, round(BLOCK_SECONDS * 1000)))
    command = ("XREAD", "COUNT", count, *block, "STREAMS", *after, *after.values())
    reply = lane.call(*command, notify=on_reply)
    await reply
    if faults:
        raise faults[0]


class DirectSource:
    """Reads the journals of the followed runs; each read names every journal."""

    def __init__(self, server: Server, partition: int, followed: Mapping[str, Followed]) -> None:
        self._server = server
        self._partition = partition
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

    async def read(self, lane: Lane) -> None:
        """Wait for entries once, and hand them to their runs."""
        keys, here = self._server.keys, self._partition
        runs = {keys.journal(run_id, here): run for run_id, run in self._followed.items()}
        after = {self._wake: self._wake_id}
        for key, run in runs.items():
            after[key] = run.last_id
            run.is_armed = True
        await read_once(lane, after, JOURNAL_PAGE, functools.partial(self._take, runs))

    def _take(self, runs: Mapping[str, Followed], reply: Any) -> None:
        for key, entries in reply or ():
            run = runs.get(text(key))
            if run is None:
                self._wake_id = text(entries[-1][0])
                continue
            for raw in entries:
                run.put(raw[0], raw)

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
        self._at: Position = (0, 0)

    async def start(self) -> None:
        """Find the end of the feed; earlier entries are read from the journals."""
        self._at = await self._end()
        for run in self._followed.values():
            run.reread()

    async def rearm(self) -> None:
        """Mark the runs as served: the feed has every run."""
        for run in self._followed.values():
            run.is_armed = True

    async def read(self, lane: Lane) -> None:
        """Wait for entries once, and hand them to the followed among their runs."""
        before = self._at
        ms, n = before
        await read_once(lane, {self._feed: f"{ms}-{n}"}, FEED_PAGE, self._take_all)
        if self._at == before:
            # A feed that was deleted or rewound ends no read until it has grown past this position.
            await self._check_end()

    async def recover(self) -> None:
        """After a broken connection: check this position; subscribers check their cursors."""
        await self._check_end()
        for run in self._followed.values():
            run.verify()

    def _take_all(self, reply: Any) -> None:
        for raw in reply[0][1] if reply else ():
            self._take(raw)

    def _take(self, raw: Any) -> None:
        at, fields = read_id(raw[0]), raw[1]
        if at[1] != self._at[1] + 1:
            logger.info("the feed broke after %s (now %s): reading the journals", self._at, at)
            for run in self._followed.values():
                run.verify()
        self._at = at
        run = self._followed.get(text(fields[1]))
        if run is None:
            return
        own = fields[_FEED_HEAD:]
        run.put(fields[3], None if own[0] == b"big" else [fields[3], own])

    async def _check_end(self) -> None:
        end = await self._end()
        if end < self._at:
            logger.info("the feed ends at %s, before %s: reading the journals", end, self._at)
            self._at = end
            for run in self._followed.values():
                run.verify()

    async def _end(self) -> Position:
        last = await self._server.read("XREVRANGE", self._feed, "+", "-", "COUNT", 1)
        return read_id(last[0][0]) if last else (0, 0)


Source = DirectSource | FeedSource
