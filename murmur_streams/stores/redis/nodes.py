"""The servers of a store, each with its scripts; and which of them a command is for."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import lru_cache

from redis.crc import key_slot
from redis.exceptions import RedisError

from murmur_streams.stores.own_tasks import start_shared_task
from murmur_streams.stores.redis.connection.connections import Reply
from murmur_streams.stores.redis.connection.pools import Pools
from murmur_streams.stores.redis.connection.store_use import StoreUse
from murmur_streams.stores.redis.connection.topology import Topology
from murmur_streams.stores.redis.keys import RECORDED_COUNTS, Keys
from murmur_streams.stores.redis.loading import Loader
from murmur_streams.stores.redis.preparation import Preparation

Command = tuple[object, ...]
_WITHOUT_KEY = frozenset(
    {"DISCARD", "EXEC", "FUNCTION", "INFO", "MULTI", "PING", "ROLE", "SCRIPT", "TIME", "WAIT"}
)
_OF_SCRIPTS = frozenset({"EVALSHA", "FCALL"})
_OF_STREAMS = frozenset({"XREAD", "XREADGROUP"})
_slot_of = lru_cache(maxsize=4_096)(key_slot)


class ServerNode:
    """One server that takes writes, as one store uses it.

    Args:
        pools: the connections to it.
        keys: the key space.
        where: its address, without a password.
        use: how the store uses its servers.
    """

    def __init__(self, pools: Pools, keys: Keys, where: str, use: StoreUse) -> None:
        self.where = where
        self.commands, self.blocking = pools.commands, pools.blocking
        self.loader = Loader(pools.commands, is_cluster=use.is_cluster)
        self.preparation = Preparation(pools.commands, keys, where, self.loader, use)
        self.partitions: Sequence[int] = keys.all_partitions
        """Those that the server had when they were last looked up."""
        self._keys = keys
        self._preparing: asyncio.Task[None] | None = None

    def serve(self, partitions: Sequence[int]) -> None:
        """Note which partitions of a cluster the server has now."""
        self.partitions = partitions
        key = self._keys.partition_meta(partitions[0]) if partitions else ""
        self.preparation.stamps, self.preparation.check.probe_key = key, key and f"{key}:probe"

    async def prepare_again(self) -> None:
        """Check it and load the scripts, once for all callers: it is a new one, or was emptied."""
        if self._preparing is None or self._preparing.done():
            self._preparing = start_shared_task(self.preparation.again(), "prepare a server again")
        await asyncio.shield(self._preparing)


class Nodes:
    """The nodes of one store: one server, or those of a cluster.

    Args:
        topology: where the servers are.
        keys: the key space.
        where: the address that the store was opened with, without a password.
        use: how the store uses its servers.
    """

    def __init__(self, topology: Topology, keys: Keys, where: str, use: StoreUse) -> None:
        self._topology = topology
        self._keys = keys
        self._where = where
        self._use = use
        self._nodes: dict[Pools, ServerNode] = {}
        self._only = None if topology.is_cluster else self._node(topology.of(0))
        """The node of a store without a cluster."""

    @property
    def all(self) -> list[ServerNode]:
        """Every node that has a partition or another key of the store, as far as it is known."""
        if self._only is not None:
            return [self._only]
        nodes = [self._node(pools) for pools in self._topology.pools]
        by_node: dict[ServerNode, list[int]] = {node: [] for node in nodes}
        for partition in self._keys.all_partitions:
            try:
                by_node[self.of_partition(partition)].append(partition)
            except RedisError:
                continue  # No node serves it now.
        for node, partitions in by_node.items():
            node.serve(partitions)
        return nodes

    def of_partition(self, partition: int) -> ServerNode:
        """The node of a partition; ClusterDownError where none serves it."""
        return self._only or self.of_key(self._keys.base(partition))

    def name_of(self, partition: int) -> str:
        """The address of a partition's node; "" while none serves it."""
        try:
            return self.of_partition(partition).where
        except RedisError:
            return ""

    def of_key(self, key: str) -> ServerNode:
        """The node of a key; ClusterDownError where none serves it."""
        return self._only or self._node(self._topology.of(_slot_of(key.encode())))

    def of_command(self, command: Command) -> ServerNode:
        """The node of a command with a key."""
        if self._only is not None:
            return self._only
        key = key_of(command)
        assert key is not None, command  # noqa: S101  # each caller passes one with a key
        return self.of_key(key)

    def script(self, name: str, keys: Sequence[str], arguments: Sequence[object]) -> Command:
        """The command that executes a script at the node of its keys."""
        counts = str(self._keys.counts)
        arguments = [counts if each is RECORDED_COUNTS else each for each in arguments]
        return self.of_key(keys[0]).loader.command(name, keys, arguments)

    async def every_reply(self, commands: Sequence[Command]) -> list[Reply]:
        """Send several commands, in one round trip to each node; as ``Connections.every_reply``."""
        if self._only is not None:
            return await self._only.commands.every_reply([*commands])
        parts = self._by_node(commands)
        found = await asyncio.gather(
            *(
                node.commands.every_reply([commands[at] for at in own])
                for node, own in parts.items()
            ),
            return_exceptions=True,
        )
        replies: list[Reply] = [None] * len(commands)
        for own, part in zip(parts.values(), found, strict=True):
            if isinstance(part, BaseException):
                raise part
            for at, reply in zip(own, part, strict=True):
                replies[at] = reply
        return replies

    async def pipeline(self, commands: Sequence[Command]) -> list[Reply]:
        """Send several commands; the first error reply is raised once all were read."""
        if self._only is not None:
            return await self._only.commands.pipeline([*commands])
        replies = await self.every_reply(commands)
        for reply in replies:
            if isinstance(reply, RedisError):
                raise reply
        return replies

    def _by_node(self, commands: Sequence[Command]) -> dict[ServerNode, list[int]]:
        """Which commands go to which node; one without a key goes with the key beside it."""
        keys = [key_of(command) for command in commands]
        parts: dict[ServerNode, list[int]] = {}
        for at in range(len(keys)):
            # MULTI belongs to the key behind it, EXEC and TIME to the one before them.
            ahead = next((each for each in keys[at:] if each is not None), None)
            before = next((each for each in reversed(keys[:at]) if each is not None), None)
            near = before if commands[at][0] in {"EXEC", "TIME"} and before else ahead or before
            assert near is not None, commands  # noqa: S101  # each caller passes one with a key
            parts.setdefault(self.of_key(near), []).append(at)
        return parts

    def _node(self, pools: Pools) -> ServerNode:
        found = self._nodes.get(pools)
        if found is None:
            where = pools.address or self._where
            found = self._nodes[pools] = ServerNode(pools, self._keys, where, self._use)
        return found


def key_of(command: Command) -> str | None:
    """The first key of a command; None for one without keys."""
    name = str(command[0])
    if name in _WITHOUT_KEY or (name in _OF_SCRIPTS and not command[2]):
        return None
    if name in _OF_STREAMS:
        return str(command[command.index("STREAMS") + 1])
    return str(command[3 if name in _OF_SCRIPTS else 2 if name == "XGROUP" else 1])
