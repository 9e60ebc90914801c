"""Which runs this process follows, and which live source serves them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator

from murmur_streams.core.errors import MurmurError, StoreClosedError
from murmur_streams.stores.redis.failures import Fate, clear_error, fate_of
from murmur_streams.stores.redis.followed import Followed
from murmur_streams.stores.redis.server import Server, reason_of
from murmur_streams.stores.redis.sources import DirectSource, FeedSource, Source

logger = logging.getLogger("murmur_streams.redis")

MOST_DIRECT = 16
"""Above this many runs the feed is cheaper than re-arming every journal's key."""
FEWEST_BY_FEED = 8
"""Below this many it is not worth reading everybody's entries."""
EXISTS_SECONDS = 60.0
EXISTS_SLICE = 500


class Live:
    """The followed runs of one partition.

    Without followers it has no connection and no task. With a few it reads their journals, with
    many the feed; a change of source loses nothing, since every subscriber goes by seq.
    """

    def __init__(self, server: Server, partition: int) -> None:
        self._server = server
        self._partition = partition
        self._followed: dict[str, Followed] = {}
        self._source: Source | None = None
        self._reading: asyncio.Task[None] | None = None
        self._checking: asyncio.Task[None] | None = None
        self._changing = asyncio.Lock()

    @contextlib.asynccontextmanager
    async def follow(self, run_id: str, last_id: str) -> AsyncGenerator[Followed]:
        """Follow a run while the block lasts.

        Args:
            run_id: the run.
            last_id: the id of its last entry, read before this call. Read the journal up to its
                end after entering: what comes later is told.
        """
        run = self._followed.get(run_id)
        is_new = run is None
        if run is None:
            run = self._followed[run_id] = Followed(run_id, last_id)
        run.followers += 1
        try:
            await self._serve(is_new)
            yield run
        finally:
            run.followers -= 1
            if run.followers == 0 and self._followed.get(run_id) is run:
                del self._followed[run_id]
                if not self._followed:
                    self._stop()

    async def close(self) -> None:
        """Wake every subscriber with StoreClosedError."""
        tasks = [task for task in (self._reading, self._checking) if task is not None]
        self._stop()
        for run in self._followed.values():
            run.fail(StoreClosedError("the store was closed while a stream was open"))
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, is_new: bool) -> None:
        """Have the right source running, and knowing of every followed run."""
        async with self._changing:
            wanted = self._wanted()
            if not isinstance(self._source, wanted):
                await self._change_to(wanted)
            elif is_new:
                await self._source.rearm()

    def _wanted(self) -> type[Source]:
        most = FEWEST_BY_FEED if isinstance(self._source, FeedSource) else MOST_DIRECT
        return DirectSource if len(self._followed) <= most else FeedSource

    async def _change_to(self, wanted: type[Source]) -> None:
        source = wanted(self._server, self._partition, self._followed)
        # The new source knows its place before the journals are read again: nothing falls between.
        await source.start()
        if not self._followed:
            return
        if self._reading is not None:
            self._reading.cancel()
            for run in self._followed.values():
                run.reread()
        self._source = source
        self._reading = asyncio.create_task(self._read(source), name="live source")
        if self._checking is None:
            self._checking = asyncio.create_task(self._check_existence(), name="live check")

    def _stop(self) -> None:
        for task in (self._reading, self._checking):
            if task is not None:
                task.cancel()
        self._source = self._reading = self._checking = None

    async def _read(self, source: Source) -> None:
        while True:
            try:
                await source.read()
                continue
            except Exception as error:  # noqa: BLE001  # every error of the driver is judged here
                reason = reason_of(error)
            if self._server.closed:
                return
            try:
                if isinstance(reason, MurmurError) or fate_of(reason) is Fate.REFUSED:
                    raise clear_error(reason, self._server.where)
                logger.debug("the live source lost its connection: %r", reason)
                await self._server.recover(0)
                await source.recover()
            except MurmurError as error:
                self._give_up(error)
                return

    def _give_up(self, error: MurmurError) -> None:
        for run in self._followed.values():
            run.fail(error)
        self._followed.clear()
        self._reading = None
        self._stop()

    async def _check_existence(self) -> None:
        """Deletion by hand and expiry wake nobody: look once a minute, in slices."""
        while True:
            await asyncio.sleep(EXISTS_SECONDS)
            runs = list(self._followed.values())
            for first in range(0, len(runs), EXISTS_SLICE):
                await self._check_slice(runs[first : first + EXISTS_SLICE])

    async def _check_slice(self, runs: list[Followed]) -> None:
        keys = [self._server.keys.run(run.run_id) for run in runs]
        with contextlib.suppress(MurmurError):
            if await self._server.read("EXISTS", *keys) == len(keys):
                return
            found = await self._server.read_all(*(("EXISTS", key) for key in keys))
            for run, exists in zip(runs, found, strict=True):
                if not exists:
                    run.verify()
