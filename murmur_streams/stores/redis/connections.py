"""Connections with our own rules: RESP2, no retries by the driver, one deadline of our own.

The driver's retry repeats writes, and its socket timeout arms a timer per read and can swallow a
cancellation; so both are off in every connection made here, whatever the client was built with.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any, cast
from urllib.parse import urlsplit, urlunsplit

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from murmur_streams.core.errors import StoreConfigurationError

CONNECT_TIMEOUT_SECONDS = 5.0
_PINNED: dict[str, Any] = {
    "protocol": 2,
    "decode_responses": False,
    "socket_timeout": None,
    "socket_connect_timeout": CONNECT_TIMEOUT_SECONDS,
    "health_check_interval": 0,
    # CLIENT SETINFO fills the ACL log of servers that deny it.
    "driver_info": None,
    "legacy_responses": True,
}
_NOT_CLONED = ("maint_", "orig_", "himport_", "oss_", "event_dispatcher", "retry")
Reply = Any
"""What the server answered: bytes, int, None, or lists of these."""


class NeverSentError(Exception):
    """No connection could be made, so the server cannot have seen the call."""


def client_from_url(url: str) -> Redis:
    """Make a client for a redis://, rediss:// or unix:// URL; nothing is connected yet.

    Raises:
        StoreConfigurationError: the URL is malformed; its password is not repeated.
    """
    try:
        client = Redis.from_url(url, retry=Retry(NoBackoff(), 0), protocol=2)
    except (ValueError, TypeError) as error:
        raise StoreConfigurationError(
            f"the URL {redacted(url)} is refused ({error}); "
            "use redis://host:6379/0, rediss://… for TLS, or unix:///path/to/socket"
        ) from None
    return cast("Redis", client)


def redacted(url: str) -> str:
    """Show a URL without its password."""
    with contextlib.suppress(ValueError):
        parts = urlsplit(url)
        if parts.password is not None:
            host = parts.netloc.rpartition("@")[2]
            parts = parts._replace(netloc=f"{parts.username or ''}:***@{host}")
        query = "&".join(
            "password=***" if item.startswith("password=") else item
            for item in parts.query.split("&")
        )
        return urlunsplit(parts._replace(query=query))
    return "<a malformed URL>"


class Connections:
    """A bounded pool of connections that share a client's address and credentials."""

    def __init__(self, client: Redis, *, size: int, deadline_seconds: float) -> None:
        pool = cast("Any", client).connection_pool
        given = cast("dict[str, Any]", pool.connection_kwargs)
        kept = {name: value for name, value in given.items() if not name.startswith(_NOT_CLONED)}
        kept |= _PINNED | {"retry": Retry(NoBackoff(), 0)}
        self._pool: Any = BlockingConnectionPool(
            connection_class=pool.connection_class, max_connections=size, timeout=None, **kept
        )
        self._deadline_seconds = deadline_seconds

    async def call(self, *command: object) -> Reply:
        """Send one command and return its reply.

        Raises:
            NeverSentError: no connection could be made; its cause says why.
            RedisError, OSError, TimeoutError: as the driver raised it.
        """
        async with self.connection() as connection:
            async with asyncio.timeout(self._deadline_seconds):
                await connection.send_command(*command)
                return await connection.read_response()

    async def pipeline(self, commands: list[tuple[object, ...]]) -> list[Reply]:
        """Send several reads at once; an error reply is raised after all were read."""
        async with self.connection() as connection:
            async with asyncio.timeout(self._deadline_seconds):
                await connection.send_packed_command(connection.pack_commands(commands))
                return [await connection.read_response() for _ in commands]

    async def blocking(self, *command: object, seconds: float) -> Reply:
        """Send a command that blocks up to ``seconds``."""
        async with self.connection() as connection:
            async with asyncio.timeout(seconds + self._deadline_seconds):
                await connection.send_command(*command)
                return await connection.read_response()

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator[Any]:
        """Lend a connection; whatever interrupts its use closes it, so no reply is misread."""
        try:
            connection = await self._pool.get_connection()
        except Exception as error:
            raise NeverSentError from error
        clean = False
        try:
            yield connection
            clean = True
        finally:
            if not clean:
                with contextlib.suppress(Exception):
                    await connection.disconnect(nowait=True)
            await self._pool.release(connection)

    async def close(self) -> None:
        """Close all connections."""
        await self._pool.disconnect(inuse_connections=True)
