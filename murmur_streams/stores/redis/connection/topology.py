"""Where the servers of a store are: at one address, behind Sentinels, or in a cluster."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Protocol

from redis.asyncio import Redis, RedisCluster

from murmur_streams.core.model.errors import InvalidInputError
from murmur_streams.stores.redis.connection.cluster import Cluster
from murmur_streams.stores.redis.connection.maker import AnyClient, ConnectionMaker
from murmur_streams.stores.redis.connection.pools import Pools
from murmur_streams.stores.redis.connection.sentinel import primary_of
from murmur_streams.stores.timing import retry_pause_seconds


class Agreement(Protocol):
    """What those who choose the primaries agree on."""

    @property
    def term(self) -> int:
        """Changes with each failover of the server."""
        ...

    @property
    def name(self) -> str:
        """The address of the present primary, as INFO names a replica; "" if it is not known."""
        ...

    async def is_agreed(self) -> bool:
        """Whether most of them, asked now, name the primaries that the store uses."""
        ...


class Topology(Protocol):
    """The servers that take a store's writes."""

    is_cluster: bool
    when_moved: Callable[[], None]
    """Called when no command goes to the old primary of a service any more."""

    @property
    def agreement(self) -> Agreement | None:
        """Of the Sentinels or of the cluster's nodes; None for one address."""
        ...

    @property
    def pools(self) -> Sequence[Pools]:
        """All of them, as far as they are known."""
        ...

    def of(self, slot: int) -> Pools:
        """The server of a hash slot; ClusterDownError where no node serves it."""
        ...

    async def find(self) -> None:
        """Find the servers, before the first use; raises the driver's error if none answers."""

    def watch(self) -> None:
        """Learn of failovers and moved slots by itself from now on."""

    async def pause_before_retry(self, attempt: int) -> None:
        """Wait before a further try, but not beyond a failover; look where the servers are now."""

    async def close(self) -> None:
        """Close every connection; calls under way fail."""


class OneServer:
    """A server at one address, or the primary of a service that Sentinels monitor.

    When they name another primary, all connections close.
    """

    is_cluster = False

    def __init__(self, client: AnyClient, deadline_seconds: float) -> None:
        self._primary = primary_of(client)
        self.agreement: Agreement | None = self._primary
        only = Pools(ConnectionMaker.of(client), deadline_seconds, primary=self._primary)
        self._only = only
        self.pools: Sequence[Pools] = (only,)
        self.when_moved: Callable[[], None] = lambda: None
        self._moved = asyncio.Event()
        if self._primary is not None:
            self._primary.when_moved = self._leave_old_primary

    def of(self, slot: int) -> Pools:
        """The same server for every slot."""
        del slot
        return self._only

    async def find(self) -> None:
        """Does nothing: Sentinels are asked by each connection that is made."""

    def watch(self) -> None:
        """Listen for failovers from now on."""
        if self._primary is not None:
            self._primary.watch()

    async def pause_before_retry(self, attempt: int) -> None:
        """Wait as ``timing.pause_before_retry`` does, but not beyond a failover."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(retry_pause_seconds(attempt)):
                await self._moved.wait()

    async def close(self) -> None:
        """Close every connection; calls under way fail."""
        if self._primary is not None:
            await self._primary.close()
        await self._only.close()

    async def _leave_old_primary(self) -> None:
        # Calls under way would wait for a server that is gone or frozen, or that will lose what
        # it still takes.
        await self._only.commands.drop_all()
        self.when_moved()
        await self._only.blocking.drop_all()
        self._moved.set()
        self._moved.clear()


def topology_of(client: AnyClient, deadline_seconds: float) -> Topology:
    """The topology that a client is made for.

    Args:
        client: its addresses, credentials and options are used.
        deadline_seconds: a connection whose reply takes longer counts as broken.

    Raises:
        InvalidInputError, StoreConfigurationError: see ``check_client``.
    """
    check_client(client)
    kind = Cluster if isinstance(client, RedisCluster) else OneServer
    return kind(client, deadline_seconds)


def check_client(client: object) -> None:
    """Refuse a client that no store can use; nothing is connected.

    Raises:
        InvalidInputError: it is not a client of redis.asyncio.
        StoreConfigurationError: it reads from replicas.
    """
    if not isinstance(client, Redis | RedisCluster):
        kind = type(client)
        raise InvalidInputError(
            f"client is a {kind.__module__}.{kind.__qualname__}, but must be a client of "
            "redis.asyncio: Redis, Sentinel(...).master_for(service) or RedisCluster"
        )
    if isinstance(client, Redis):
        primary_of(client)


PARTITIONS_ON_CLUSTER = 16


def partitions_of(client: AnyClient, partitions: int | None) -> int:
    """The number of partitions that a store has which was opened without one."""
    if partitions is not None:
        return partitions
    return PARTITIONS_ON_CLUSTER if isinstance(client, RedisCluster) else 1
