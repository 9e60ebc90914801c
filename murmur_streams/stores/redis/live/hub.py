"""The followed runs of a process, and the live source that serves them."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from collections.abc import Coroutine
from itertools import chain
from typing import Any

from murmur_streams.core.model.errors import MurmurError, StoreClosedError
from murmur_streams.stores.own_tasks import end_tasks, start_task
from murmur_streams.stores.redis.connection.lane import Lane
from murmur_streams.stores.redis.live import sources
from murmur_streams.stores.redis.live.sources import DirectSource, FeedSource, Followed, Source
from murmur_streams.stores.redis.retries import Retries
from murmur_streams.stores.redis.server import Server

logger = logging.getLogger("murmur_streams.redis")

_WHILE_OPEN = "while a stream was open"
MOST_DIRECT = 16
"""Above this many runs, reading the feed is cheaper than blocking on every journal."""
FEWEST_BY_FEED = 8
"""Up to this many runs, it is not worth reading the entries of all runs."""
EXISTS_SECONDS = 60.0
EXISTS_SLICE = 500
STEADY_SECONDS = 1.0
"""A connection that broke after this time starts a new series of failures."""


class Live:
    """The followed runs of one partition.

    Without followers it has neither a connection nor a task. For a few runs it reads their
    journals, for many the feed. One task reads, and it changes the source only between two reads.
    Two sources at once could deliver entry 8 from one before entry 7 from the other, and a change
    in the middle of a read could lose an entry that neither delivers. An entry that both deliver
    is dropped by its seq.
    """

    def __init__(self, server: Server, partition: int) -> None:
        self._server = server
        self._partition = partition
        self._followed: dict[str, Followed] = {}
        self._source: Source | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._waking: asyncio.Task[None] | None = None
        self._armed = asyncio.Event()
        self._closed = False

    @property
    def followers(self) -> int:
        """The number of subscribers."""
        return sum(run.followers for run in self._followed.values())

    def follow(self, run_id: str, last_id: str) -> Followed:
        """Follow a run, until ``leave``.

        Args:
            run_id: the run.
            last_id: the id of its last entry, read before this call.

        After this call, read the journal to its end first. In the other order an entry that is
        appended between that read and this call would be in neither: the journal was read before
        it, and the source delivers only what comes after ``last_id``.
        """
        if self._closed:
            raise StoreClosedError("the store is closed; open a new one")
        run = self._followed.get(run_id)
        if run is None:
            run = self._followed[run_id] = Followed(run_id, last_id)
        run.followers += 1
        self._serve(run)
        return run

    def leave(self, run: Followed) -> None:
        """End what ``follow`` began."""
        run.followers -= 1
        if run.followers == 0 and self._followed.get(run.run_id) is run:
            del self._followed[run.run_id]
            if not self._followed:
                self._stop()

    async def close(self) -> None:
        """Wake every subscriber with StoreClosedError."""
        self._closed = True
        tasks = list(self._tasks)
        self._give_up(StoreClosedError(f"the store was closed {_WHILE_OPEN}"))
        await end_tasks(tasks)

    def _serve(self, run: Followed) -> None:
        """Start a source if none is running, and make it serve the run."""
        if not self._tasks:
            self._start(self._read(), "live source")
            self._start(self._check_existence(), "live check")
        elif isinstance(self._source, FeedSource):
            # The feed has the entries of every run: a wave of new followers costs nothing.
            run.is_armed = True
        elif not run.is_armed and (self._waking is None or self._waking.done()):
            self._waking = self._start(self._wake(), "live wake")

    def _start(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = start_task(work, name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        # Forgotten at once: the next follower starts new tasks, while these are still ending.
        self._tasks = set()
        self._source = self._waking = None

    def _give_up(self, error: BaseException) -> None:
        runs = list(self._followed.values())
        self._followed.clear()
        self._stop()
        for run in runs:
            run.fail(error)

    def _wanted(self) -> type[Source]:
        if self._server.use.read_only:
            # To include another journal, a blocked read is woken by a write.
            return FeedSource
        most = FEWEST_BY_FEED if isinstance(self._source, FeedSource) else MOST_DIRECT
        return DirectSource if len(self._followed) <= most else FeedSource

    async def _wake(self) -> None:
        """Wake the blocked read so that it includes new runs; one wake-up serves many of them.

        A read that blocks on some journals does not notice a run that was added afterwards: its
        entries would be delivered only when the read ends, up to 20 seconds later. So the read is
        woken, and this repeats until a read was started that includes every run.
        """
        while not all(run.is_armed for run in self._followed.values()):
            # Cleared before the wake-up. The next read may start before rearm returns; if the event
            # were cleared after that, this task would wait for one more read, and leave a run
            # that was added meanwhile unserved.
            self._armed.clear()
            if self._source is not None:
                try:
                    await self._source.rearm()
                except MurmurError as error:
                    # A server without writes has no news either, and the read ends by itself.
                    logger.debug("the live source could not be woken: %s", error)
                    return
            if not all(run.is_armed for run in self._followed.values()):
                await self._armed.wait()

    async def _read(self) -> None:
        seconds = sources.BLOCK_SECONDS + self._server.call_seconds
        connect = functools.partial(self._server.blocking_connection, self._partition)
        lane = Lane(connect, deadline_seconds=seconds)
        try:
            await self._read_on(lane)
        finally:
            await lane.close()

    async def _read_on(self, lane: Lane) -> None:
        loop, retries = asyncio.get_running_loop(), Retries(self._server, _WHILE_OPEN)
        while True:
            began = loop.time()
            try:
                await self._read_once(lane)
                retries.restart()
                continue
            except Exception as error:  # noqa: BLE001  # every error of the driver is judged here
                failure = error
            if loop.time() - began > STEADY_SECONDS:
                retries.restart()
            try:
                await retries.after(failure)
                # Here, once, until the server is back; only then do the subscribers read from it.
                await self._server.read("EXISTS", self._server.keys.feed(self._partition))
                if self._source is not None:
                    await self._source.recover()
            except Exception as error:  # noqa: BLE001  # the subscribers get it
                self._give_up(error)
                return

    async def _read_once(self, lane: Lane) -> None:
        wanted = self._wanted()
        if not isinstance(self._source, wanted):
            source = wanted(self._server, self._partition, self._followed)
            await source.start()
            self._source = source
        self._armed.set()
        await self._source.read(lane)
        # The subscribers that were woken come first: to send the next read takes longer than they.
        await asyncio.sleep(0)

    async def _check_existence(self) -> None:
        """Look once a minute, in slices, for runs that were deleted by hand or expired.

        Neither ends a blocked read, so their subscribers would wait for ever.
        """
        while True:
            await asyncio.sleep(EXISTS_SECONDS)
            runs = list(self._followed.values())
            for first in range(0, len(runs), EXISTS_SLICE):
                with contextlib.suppress(MurmurError):
                    await self._check_slice(runs[first : first + EXISTS_SLICE])

    async def _check_slice(self, runs: list[Followed]) -> None:
        keys, here = self._server.keys, self._partition
        pairs = [(keys.run(run.run_id, here), keys.journal(run.run_id, here)) for run in runs]
        if await self._server.read("EXISTS", *chain.from_iterable(pairs)) == 2 * len(pairs):
            return
        found = await self._server.read_all(*(("EXISTS", *pair) for pair in pairs))
        for run, exists in zip(runs, found, strict=True):
            if exists != 2:  # noqa: PLR2004  # its hash and its journal
                run.verify()
