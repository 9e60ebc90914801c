"""The connections of one store to one server: for commands, and for commands that block."""

from __future__ import annotations

from murmur_streams.stores.redis.connection.connections import Connections
from murmur_streams.stores.redis.connection.maker import ConnectionMaker
from murmur_streams.stores.redis.connection.sentinel import Primary

COMMAND_CONNECTIONS = 4
NODE_CONNECTIONS = 2
"""The same for each node of a cluster."""
BLOCKING_CONNECTIONS = 1_000


class Pools:
    """The pools of one store for one server.

    Args:
        maker: makes the connections.
        deadline_seconds: a connection whose reply takes longer counts as broken.
        primary: where the server is, if Sentinels name it.
        address: the server's name in errors and logs; "" where the store has no other server.
    """

    def __init__(
        self,
        maker: ConnectionMaker,
        deadline_seconds: float,
        *,
        primary: Primary | None = None,
        address: str = "",
    ) -> None:
        self.address = address
        self.commands, self.blocking = (
            Connections(maker, size=size, deadline_seconds=deadline_seconds, primary=primary)
            for size in (NODE_CONNECTIONS if address else COMMAND_CONNECTIONS, BLOCKING_CONNECTIONS)
        )

    async def drop_all(self) -> None:
        """Close every connection: the server must not be used any more; calls under way fail."""
        await self.commands.drop_all()
        await self.blocking.drop_all()

    async def close(self) -> None:
        """Close every connection; calls under way fail."""
        await self.commands.close()
        await self.blocking.close()
