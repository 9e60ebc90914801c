"""The server of the runs, or the nodes of a cluster, for commands that a user types."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Any

from redis.crc import key_slot
from redis.exceptions import ClusterDownError, MovedError, RedisError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError

from murmur_streams.cli.shell.session import Session
from murmur_streams.core.model.errors import StoreUnavailableError
from murmur_streams.stores.redis.connection import failures
from murmur_streams.stores.redis.connection.pools import Pools
from murmur_streams.stores.redis.connection.topology import Topology, topology_of

CONNECT_SECONDS = 5.0
Reply = object
"""bytes, int, None, an error, or a list of these."""
_KEY_AT = {
    **dict.fromkeys(("EVAL", "EVALSHA", "EVALSHA_RO", "EVAL_RO", "FCALL", "FCALL_RO"), 3),
    **dict.fromkeys(("MEMORY", "OBJECT", "XGROUP", "XINFO"), 2),
}
"""Commands whose key is not their first argument."""
_WITHOUT_KEY = frozenset(
    {
        *("ACL", "AUTH", "CLIENT", "CLUSTER", "COMMAND", "CONFIG", "DBSIZE", "DISCARD", "ECHO"),
        *("EXEC", "FLUSHALL", "FLUSHDB", "FUNCTION", "INFO", "KEYS", "LATENCY", "MODULE"),
        *("MONITOR", "MULTI", "PING", "PSUBSCRIBE", "PUBLISH", "RANDOMKEY", "ROLE", "SCAN"),
        *("SCRIPT", "SELECT", "SLOWLOG", "SUBSCRIBE", "TIME", "WAIT"),
    }
)


class RawServer:
    """One connection to each node that is used, without the checks of a store.

    On a cluster a command goes to the node of its key. One without a key goes to the node of the
    command before it.
    """

    def __init__(self, topology: Topology, connections: AsyncExitStack) -> None:
        self._topology = topology
        self._connections = connections
        self._opened: dict[Pools, Any] = {}
        self._last = topology.pools[0]

    async def ask(self, argv: Sequence[str]) -> Reply:
        """Send one command; an error reply is returned, not raised.

        Raises:
            StoreUnavailableError: the connection was lost.
        """
        try:
            if self._topology.is_cluster and (key := key_in(argv)) is not None:
                self._last = self._topology.of(key_slot(os.fsencode(key)))
            reply = await self._ask_last(argv)
            if isinstance(reply, MovedError) and self._topology.is_cluster:
                await self._follow(reply)
                reply = await self._ask_last(argv)
        except ClusterDownError as error:
            return error
        return reply

    async def read(self) -> Reply:
        """Read a further message of the last command."""
        try:
            with _lost_connections():
                return await (await self._connection()).read_response()
        except ResponseError as error:
            return error

    async def _follow(self, moved: MovedError) -> None:
        """Turn to the node that serves a slot: the key was guessed wrong, or the slot has moved."""
        before = self._last
        self._last = self._topology.of(moved.slot_id)
        if self._last is before:
            await self._topology.pause_before_retry(0)
            self._last = self._topology.of(moved.slot_id)

    async def _ask_last(self, argv: Sequence[str]) -> Reply:
        connection = await self._connection()
        with _lost_connections():
            await connection.send_command(*(os.fsencode(argument) for argument in argv))
        return await self.read()

    async def _connection(self) -> Any:
        found = self._opened.get(self._last)
        if found is None:
            made = self._last.commands.connection()
            found = await self._connections.enter_async_context(made)
            self._opened[self._last] = found
        return found


@asynccontextmanager
async def raw_server(session: Session) -> AsyncGenerator[RawServer]:
    """The server of the runs, without the checks of a store.

    Raises:
        StoreUnavailableError, StoreConfigurationError: a connection failed, or was lost.
    """
    async with session.redis_store() as store:
        topology = topology_of(store.client, CONNECT_SECONDS)
        try:
            await topology.find()
            async with AsyncExitStack() as connections:
                yield RawServer(topology, connections)
        except (failures.NeverSentError, RedisError, OSError) as error:
            cause = failures.reason_of(error)
            if failures.fate_of(cause) in failures.FINAL:
                raise failures.clear_error(cause, store.where) from None
            raise failures.unavailable(store.where, cause) from None
        finally:
            await topology.close()


def key_in(argv: Sequence[str]) -> str | None:
    """The first key of a command; None if it has none. Of a command that is not known: a guess."""
    name = argv[0].upper()
    if name in _WITHOUT_KEY:
        return None
    at = _KEY_AT.get(name, 1)
    if name in {"XREAD", "XREADGROUP"}:
        at = next((at + 1 for at, each in enumerate(argv) if each.upper() == "STREAMS"), 1)
    return argv[at] if at < len(argv) else None


@contextmanager
def _lost_connections() -> Generator[None]:
    try:
        yield
    except (RedisConnectionError, OSError) as error:
        raise StoreUnavailableError(f"the server closed the connection ({error})") from None
