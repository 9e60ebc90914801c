"""Takes the writes of one store, and hands each to the writer of its partition."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable

from murmur_streams.core.model.errors import StoreClosedError
from murmur_streams.core.rules.decide import Answer
from murmur_streams.stores.redis.durations import Clock, Durations
from murmur_streams.stores.redis.lanes import Lanes
from murmur_streams.stores.redis.partition_writer import PartitionWriter
from murmur_streams.stores.redis.replication import check_durability
from murmur_streams.stores.redis.rewinds import OnRewind, Rewinds
from murmur_streams.stores.redis.routes import Routes
from murmur_streams.stores.redis.server import Server
from murmur_streams.stores.redis.writes import Arguments, WaitingWrite, size_of, weight_of

logger = logging.getLogger("murmur_streams.redis")


class Writer:
    """Sends the numbered writes of one store.

    Guarantee: a write that returns was applied exactly once, and writes of one store to one run are
    applied in the order in which they were made. A write that raises OutcomeUnknownError was
    applied at most once, and never after a later write of the same store. The write of a cancelled
    caller is still sent.
    """

    def __init__(
        self,
        server: Server,
        durations: Durations,
        clock: Clock,
        durability: str = "primary",
        on_rewind: OnRewind | None = None,
    ) -> None:
        is_replicated = check_durability(durability)
        self._server = server
        self._durations = durations
        self._clock = clock
        self._lanes = Lanes(server, is_replicated=is_replicated)
        self.rewinds = Rewinds(server.where, on_rewind)
        self._routes = Routes(server, self._make)
        self._idle = asyncio.Event()
        """Set when the store is closed and its last write is answered."""
        self._closed = False
        server.when_ready.append(self._lanes.start)

    def write(
        self,
        command: str,
        run_id: str,
        arguments: Arguments,
        events: int = 0,
        *,
        size: int | None = None,
    ) -> Awaitable[Answer]:
        """Execute a command on a run, exactly once.

        Args:
            command: its name, as in ``lua/commands``.
            run_id: the run that it changes.
            arguments: its ARGV.
            events: how many events it appends.
            size: about how many bytes the arguments have, if all were found to be valid texts.

        A bug is raised as it is, at once; whether the write was applied is then unknown.

        Raises:
            InvalidInputError: a text cannot be encoded; nothing was written.
            StoreUnavailableError: the server was never reached; nothing was written.
            OutcomeUnknownError: the connection broke, and retries ran out or the store was closed.
            NotReplicatedError: too few replicas confirmed it until then.
            StoreRewoundError: the server lost earlier writes to this run; nothing was written.
            StoreError: the server refused the write; nothing was written.
        """
        self._refuse_when_closed()
        self._server.use.check_may_write()
        size = size_of(arguments) if size is None else size
        if not self._server.is_ready():
            return self._write_when_ready(command, run_id, arguments, events, size)
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Answer] = loop.create_future()
        weight = weight_of(command, events)
        write = WaitingWrite(command, run_id, arguments, weight, size, loop.time(), answer)
        partition = self._routes.of(run_id)
        if partition is None:
            self._routes.add(write)
        elif partition.budget.take(size):
            partition.add(write)
        else:
            return self._write_with_room(partition, write)
        return answer

    async def _write_when_ready(
        self, command: str, run_id: str, arguments: Arguments, events: int, size: int
    ) -> Answer:
        await self._server.ready()
        return await self.write(command, run_id, arguments, events, size=size)

    async def _write_with_room(self, partition: PartitionWriter, write: WaitingWrite) -> Answer:
        await partition.budget.reserve(write.size)
        if self._closed:
            partition.budget.release(write.size)
            self._refuse_when_closed()
        if partition.is_retired:
            partition.budget.release(write.size)
            self._routes.add(write)
        else:
            partition.add(write)
        return await write.answer

    async def close(self, seconds: float) -> None:
        """Reject new writes; wait at most ``seconds`` for those under way."""
        self._closed = True
        try:
            async with asyncio.timeout(seconds):
                if not self._routes.is_idle:
                    await self._idle.wait()
        except TimeoutError:
            logger.debug("the store is closed with writes under way; their outcome is unknown")
        await self._routes.close(StoreClosedError("the store was closed before the write"))
        for partition in self._routes.writers:
            await partition.abandon()
        await self._lanes.close()

    def _refuse_when_closed(self) -> None:
        if self._closed:
            raise StoreClosedError("the store is closed; open a new one")

    def _make(self, partition: int, is_older: bool) -> PartitionWriter:
        return PartitionWriter(
            self._server,
            partition,
            is_older,
            self._lanes.of_partition(partition),
            self._durations,
            self._clock,
            self.rewinds,
            self._note_idle,
            self._routes.take_back,
            self._routes.move,
        )

    def _note_idle(self) -> None:
        if self._closed and self._routes.is_idle:
            self._idle.set()
