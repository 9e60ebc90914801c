"""Which runs this process follows, and which live source serves them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Coroutine
from itertools import chain
from typing import Any

from murmur_streams.core.model.errors import MurmurError, StoreClosedError
from murmur_streams.stores.own_tasks import end_tasks, start_task
from murmur_streams.stores.redis.connection.failures import FINAL, clear_error, fate_of
from murmur_streams.stores.redis.live.run_buffer import Followed
from murmur_streams.stores.redis.live.sources import DirectSource, FeedSource, Source
from murmur_streams.stores.redis.server import Server, reason_of

logger = logging.getLogger("murmur_streams.redis")

MOST_DIRECT = 16
"""Above this many runs the feed is cheaper than re-arming every journal's key."""
FEWEST_BY_FEED = 8
"""Below this many it is not worth reading everybody's entries."""
EXISTS_SECONDS = 60.0
EXISTS_SLICE = 500
STEADY_SECONDS = 1.0
"""A connection that lasted this long before it broke is no series of failures."""


class Live:
    """The followed runs of one partition.

    Without followers it has no connection and no task. With a few it reads their journals, with
    many the feed; one task reads and changes the source between two reads, so a change loses
    nothing, and repeats nothing since every subscriber goes by seq.
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
        """How many subscribers there are."""
        return sum(run.followers for run in self._followed.values())

    @contextlib.asynccontextmanager
    async def follow(self, run_id: str, last_id: str) -> AsyncGenerator[Followed]:
        """Follow a run while the block lasts.

        Args:
            run_id: the run.
            last_id: the id of its last entry, read before this call. Read the journal up to its
                end after entering: what comes later is told.
        """
        if self._closed:
            raise StoreClosedError("the store is closed; open a new one")
        run = self._followed.get(run_id)
        if run is None:
            run = self._followed[run_id] = Followed(run_id, last_id)
        run.followers += 1
        try:
            self._serve(run)
            yield run
        finally:
            run.followers -= 1
            if run.followers == 0 and self._followed.get(run_id) is run:
                del self._followed[run_id]
                if not self._followed:
                    self._stop()

    async def close(self) -> None:
        """Wake every subscriber with StoreClosedError."""
        self._closed = True
        tasks = list(self._tasks)
        self._give_up(StoreClosedError("the store was closed while a stream was open"))
        await end_tasks(tasks)

    def _serve(self, run: Followed) -> None:
        """Have a source running, and have it learn of the run."""
        if not self._tasks:
            self._start(self._read(), "live source")
            self._start(self._check_existence(), "live check")
        elif isinstance(self._source, FeedSource):
            # The feed has every run already: a wave of new ones costs nothing here.
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
        # What is being cancelled is no longer ours: the next follower starts anew.
        self._tasks = set()
        self._source = self._waking = None

    def _give_up(self, error: BaseException) -> None:
        runs = list(self._followed.values())
        self._followed.clear()
        self._stop()
        for run in runs:
            run.fail(error)

    def _wanted(self) -> type[Source]:
        most = FEWEST_BY_FEED if isinstance(self._source, FeedSource) else MOST_DIRECT
        return DirectSource if len(self._followed) <= most else FeedSource

    async def _wake(self) -> None:
        """Tell the blocked read of new runs: one wake-up for all that come meanwhile."""
        while not all(run.is_armed for run in self._followed.values()):
            # Before the wake-up: the read that it causes may begin before it has returned here.
            self._armed.clear()
            if self._source is not None:
                try:
                    await self._source.rearm()
                except MurmurError as error:
                    # A server that takes no writes has no news either; the bounded read ends.
                    logger.debug("the live source could not be woken: %s", error)
                    return
            if not all(run.is_armed for run in self._followed.values()):
                await self._armed.wait()

    async def _read(self) -> None:
        loop = asyncio.get_running_loop()
        attempt, failing_since = 0, 0.0
        while True:
            began = loop.time()
            try:
                await self._read_once()
                attempt = 0
                continue
            except Exception as error:  # noqa: BLE001  # every error of the driver is judged here
                reason = reason_of(error)
            if attempt == 0 or loop.time() - began > STEADY_SECONDS:
                attempt, failing_since = 0, loop.time()
            try:
                await self._recover(reason, attempt, loop.time() - failing_since)
            except Exception as error:  # noqa: BLE001  # whatever it is, subscribers must be told
                self._give_up(clear_error(reason_of(error), self._server.where))
                return
            attempt += 1

    async def _read_once(self) -> None:
        wanted = self._wanted()
        if not isinstance(self._source, wanted):
            source = wanted(self._server, self._partition, self._followed)
            await source.start()
            self._source = source
        self._armed.set()
        await self._source.read()

    async def _recover(self, reason: BaseException, attempt: int, failing_seconds: float) -> None:
        if self._server.closed:
            raise StoreClosedError("the store was closed while a stream was open")
        if fate_of(reason) in FINAL:
            raise reason
        if failing_seconds >= self._server.retry_seconds:
            raise self._server.unavailable(reason)
        logger.debug("the live source lost its connection: %r", reason)
        await self._server.recover(attempt)
        # One that comes back is waited for here, once, before any subscriber asks.
        await self._server.read("PING")
        if self._source is not None:
            await self._source.recover()

    async def _check_existence(self) -> None:
        """Deletion by hand and expiry wake nobody: look once a minute, in slices."""
        while True:
            await asyncio.sleep(EXISTS_SECONDS)
            runs = list(self._followed.values())
            for first in range(0, len(runs), EXISTS_SLICE):
                with contextlib.suppress(MurmurError):
                    await self._check_slice(runs[first : first + EXISTS_SLICE])

    async def _check_slice(self, runs: list[Followed]) -> None:
        keys = self._server.keys
        pairs = [(keys.run(run.run_id), keys.journal(run.run_id)) for run in runs]
        if await self._server.read("EXISTS", *chain.from_iterable(pairs)) == 2 * len(pairs):
            return
        found = await self._server.read_all(*(("EXISTS", *pair) for pair in pairs))
        for run, exists in zip(runs, found, strict=True):
            if exists != 2:  # noqa: PLR2004  # its hash and its journal
                run.verify()
