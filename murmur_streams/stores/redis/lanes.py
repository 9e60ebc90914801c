"""The lanes of a store's writes: which connection the next call of a partition goes to."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable

from redis.exceptions import RedisError

from murmur_streams.stores.own_tasks import end_tasks, start_task
from murmur_streams.stores.redis.connection.connections import Reply
from murmur_streams.stores.redis.connection.lane import CommandSender, Lane
from murmur_streams.stores.redis.nodes import ServerNode
from murmur_streams.stores.redis.replication import Replicas, ReplicatedLane
from murmur_streams.stores.redis.server import Server

LANES = 2
LANES_OF_NODE = 1


class Lanes:
    """The lanes of one store, by server.

    Args:
        server: the servers.
        is_replicated: whether each call waits for the replicas. It blocks its connection then, so
            each partition has a lane of its own.
    """

    def __init__(self, server: Server, *, is_replicated: bool) -> None:
        self._server = server
        self._is_replicated = is_replicated
        self._count = LANES_OF_NODE if server.is_cluster else LANES
        self._lanes: dict[tuple[ServerNode, int], Lane] = {}
        self._replicas: dict[ServerNode, Replicas] = {}
        self._counting: list[asyncio.Task[None]] = []
        self._is_started = False
        server.use.waits_for_replicas = is_replicated

    def start(self) -> None:
        """Count the replicas from now on, if writes wait for them; the servers are ready."""
        self._is_started = True
        if self._is_replicated:
            for node in self._server.nodes.all:
                self._replicas_of(node)

    def of_partition(self, partition: int) -> CommandSender:
        """The lane of a partition, wherever that is when a call is sent."""
        return PartitionLane(self, partition) if self._server.is_cluster else self.now(partition)

    def now(self, partition: int) -> CommandSender:
        """The lane to the server that has the partition now; ClusterDownError if none has it."""
        node = self._server.nodes.of_partition(partition)
        number = partition if self._is_replicated else partition % self._count
        lane = self._lanes.get((node, number))
        if lane is None:
            connect = functools.partial(self._server.new_connection, node)
            lane = Lane(connect, deadline_seconds=self._server.call_seconds)
            self._lanes[node, number] = lane
        return ReplicatedLane(lane, self._replicas_of(node)) if self._is_replicated else lane

    async def close(self) -> None:
        """Close the connections; calls under way fail."""
        await end_tasks(self._counting)
        for lane in self._lanes.values():
            await lane.close()

    def _replicas_of(self, node: ServerNode) -> Replicas:
        found = self._replicas.get(node)
        if found is None:
            server = self._server
            found = Replicas(node.commands, server.topology, node.where, server.call_seconds)
            self._replicas[node] = found
            if self._is_started:
                self._counting.append(start_task(found.watch(), "count the replicas"))
        return found


class PartitionLane:
    """Sends the calls of one partition to the node of a cluster that has it."""

    def __init__(self, lanes: Lanes, partition: int) -> None:
        self._lanes = lanes
        self._partition = partition

    def call(
        self, *command: object, notify: Callable[[], None] | None = None
    ) -> asyncio.Future[Reply]:
        """Send a command; ``Lane.call`` explains it."""
        try:
            lane = self._lanes.now(self._partition)
        except RedisError as error:
            return _failed(error, notify)
        return lane.call(*command, notify=notify)


def _failed(error: RedisError, notify: Callable[[], None] | None) -> asyncio.Future[Reply]:
    loop = asyncio.get_running_loop()
    reply: asyncio.Future[Reply] = loop.create_future()
    reply.set_exception(error)
    if notify is not None:
        loop.call_soon(notify)
    return reply
