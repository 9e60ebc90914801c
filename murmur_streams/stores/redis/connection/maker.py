"""From a client to connections of one's own: their class, and its arguments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

from redis.asyncio import Connection, Redis, RedisCluster, SSLConnection
from redis.asyncio.sentinel import SentinelConnectionPool

from murmur_streams.stores.redis.connection import transport

AnyClient = Redis | RedisCluster
Address = tuple[str, int]


@dataclass(frozen=True, slots=True)
class ConnectionMaker:
    """Makes connections with a client's credentials and options, by the store's own rules."""

    kind: type[Any]
    settings: Mapping[str, Any]
    can_half_close: bool
    """Whether our direction of a connection can be closed alone: not with TLS."""

    @staticmethod
    def of(client: AnyClient) -> ConnectionMaker:
        """The maker for a client's server; of a cluster or of Sentinels it has no address yet."""
        if isinstance(client, RedisCluster):
            given = cast("dict[str, Any]", cast("Any", client).connection_kwargs)
            kind = given["connection_class"]
        else:
            pool = cast("Any", client).connection_pool
            kind, given = pool.connection_class, pool.connection_kwargs
            if isinstance(pool, SentinelConnectionPool):
                # redis-py's own class would ask the Sentinels by itself.
                kind = SSLConnection if issubclass(kind, SSLConnection) else Connection
        return ConnectionMaker.by(kind, given)

    @staticmethod
    def by(kind: type[Any], given: Mapping[str, Any], **changes: Any) -> ConnectionMaker:
        """The maker for a connection's class and the arguments that a client would give it."""
        settings = transport.own_settings(given) | changes
        can_half_close = transport.can_half_close(kind)
        return ConnectionMaker(transport.with_own_lookups(kind), settings, can_half_close)

    def at(self, address: Address, **changes: Any) -> ConnectionMaker:
        """The same for another address."""
        host, port = address
        return replace(self, settings={**self.settings, "host": host, "port": port, **changes})

    def make(self) -> Any:
        """A connection that is not open yet."""
        return self.kind(**self.settings)
