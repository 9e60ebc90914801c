"""Connections by the store's own rules: RESP2, no retries by the driver, one deadline a call.

The driver's retry repeats writes, which would apply them twice. Its socket timeout starts a timer
for each read, and on Python 3.11 it can swallow a cancellation. So both are switched off in every
connection that is made here, whatever the options of the given client are.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import AsyncGenerator, Generator
from typing import Any, cast
from urllib.parse import urlsplit

from redis.asyncio import Connection, Redis, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, RedisError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError

from murmur_streams.core.model.errors import StoreClosedError, StoreConfigurationError
from murmur_streams.core.redaction import redacted
from murmur_streams.stores.bell import Bell
from murmur_streams.stores.redis.connection import transport
from murmur_streams.stores.redis.connection.failures import NeverSentError, needs_new_connection

logger = logging.getLogger("murmur_streams.redis")

CONNECT_TIMEOUT_SECONDS = 5.0
HALF_CLOSED_SECONDS = 1.0
"""How long the server may take to end a connection that was closed in one direction."""
_PINNED: dict[str, Any] = {
    "protocol": 2,
    "decode_responses": False,
    "encoding": "utf-8",
    "encoding_errors": "strict",
    "socket_timeout": None,
    "socket_connect_timeout": CONNECT_TIMEOUT_SECONDS,
    "health_check_interval": 0,
    # CLIENT SETINFO fills the ACL log of servers that deny it.
    "driver_info": None,
    "legacy_responses": True,
}
_NOT_CLONED = ("maint_", "orig_", "himport_", "oss_", "event_dispatcher", "retry")
Reply = Any
"""A server's reply: bytes, int, None, or lists of these."""


_SCHEMES = ("redis://", "rediss://", "unix://")


def client_from_url(url: str) -> Redis:
    """Make a client for a redis://, rediss:// or unix:// URL; nothing is connected yet.

    Raises:
        StoreConfigurationError: the URL is malformed; its password is not repeated.
    """
    try:
        if not url.startswith(_SCHEMES):
            raise ValueError  # noqa: TRY301  # the driver would take "redis:host" for localhost
        client = cast("Any", Redis).from_url(url, retry=Retry(NoBackoff(), 0), protocol=2)
        # Making a connection, without using it, fails for unknown options.
        unused = client.connection_pool.make_connection()
    except (ValueError, TypeError, AttributeError, RedisError) as error:
        raise StoreConfigurationError(
            f"the URL {redacted(url)} is refused ({_fault_of(url, error)}); "
            "use redis://host:6379/0, rediss://… for TLS, or unix:///path/to/socket"
        ) from None
    transport.check_tls_files(unused, redacted(url))
    return cast("Redis", client)


_BAD_PORT = "its port is not a number from 0 to 65535; a / ? # or @ in a password must be %-encoded"
_UNKNOWN_OPTION = re.compile(r"unexpected keyword argument '(\w+)'")


def _fault_of(url: str, error: Exception) -> str:
    # The driver's own text may repeat a part of the password.
    option = _UNKNOWN_OPTION.search(str(error))
    if option:
        return f"it has the unknown option {option[1]!r}"
    if not url.startswith(_SCHEMES):
        return "it does not begin with one of the known schemes"
    try:
        _ = urlsplit(url).port
    except ValueError as fault:
        return _BAD_PORT if str(fault).startswith("Port") else "its host is malformed"
    return "one of its options has a value that cannot be read"


class Connections:
    """At most ``size`` connections that share a client's address and credentials.

    Lending waits for a free connection. Returning one never waits, so no cancellation can lose it.
    """

    def __init__(self, client: Redis, *, size: int, deadline_seconds: float) -> None:
        pool = cast("Any", client).connection_pool
        given = cast("dict[str, Any]", pool.connection_kwargs)
        cloned = {name: value for name, value in given.items() if not name.startswith(_NOT_CLONED)}
        self._class = transport.with_own_lookups(pool.connection_class)
        self.can_half_close = _can_half_close(pool.connection_class)
        """Whether our direction of a connection can be closed alone: not with TLS."""
        self._settings: dict[str, Any] = cloned | _PINNED | {"retry": Retry(NoBackoff(), 0)}
        self._free = asyncio.Semaphore(size)
        self._idle: list[Any] = []
        self._lent: set[Any] = set()
        self._deadline_seconds = deadline_seconds
        self._closed = False

    async def call(self, *command: object) -> Reply:
        """Send one command and return its reply.

        Raises:
            NeverSentError: no connection could be made; its cause says why.
            RedisError, OSError, TimeoutError: as the driver raised it.
        """
        return (await self.pipeline([command]))[0]

    async def pipeline(self, commands: list[tuple[object, ...]]) -> list[Reply]:
        """Send several commands at once; the first error reply is raised once all were read."""
        replies = await self.every_reply(commands)
        for reply in replies:
            if isinstance(reply, RedisError):
                raise reply
        return replies

    async def every_reply(self, commands: list[tuple[object, ...]]) -> list[Reply]:
        """Send several commands at once; error replies are elements of the result."""
        async with self.connection() as connection:
            async with asyncio.timeout(self._deadline_seconds):
                await connection.send_packed_command(connection.pack_commands(commands))
                return [await _reply_or_error(connection) for _ in commands]

    async def blocking(self, *command: object, seconds: float) -> Reply:
        """Send a command that blocks up to ``seconds``."""
        async with self.connection() as connection:
            async with asyncio.timeout(seconds + self._deadline_seconds):
                await connection.send_command(*command)
                return await connection.read_response()

    async def blocking_all(
        self,
        commands: list[tuple[object, ...]],
        seconds: float,
        bell: Bell | None = None,
    ) -> list[Reply] | None:
        """Send several commands at once, the first of which blocks up to ``seconds``.

        The server executes the others as soon as the first has ended, without a further round trip.

        Args:
            commands: all of them; error replies are elements of the result.
            seconds: how long the first one blocks.
            bell: ends the wait early; only where ``can_half_close``.

        Returns:
            The replies. None when the bell has rung first, and none of the commands behind the
            first one was executed.
        """
        async with self.connection() as connection:
            if bell is not None and bell.is_rung:
                return None
            try:
                async with asyncio.timeout(seconds + self._deadline_seconds) as limit:
                    with _half_closed(connection, bell, limit):
                        await connection.send_packed_command(connection.pack_commands(commands))
                        return [await _reply_or_error(connection) for _ in commands]
            except (RedisError, OSError, TimeoutError):
                if bell is None or not bell.is_rung:
                    raise
                return None
            finally:
                if bell is not None and bell.is_rung:
                    await drop_connection(connection)

    async def new_connection(self, commands: list[tuple[object, ...]]) -> Any:
        """Make a connection outside the pool, and send it its first commands."""
        connection = self._new()
        try:
            async with asyncio.timeout(self._deadline_seconds):
                await connection.connect()
                await connection.send_packed_command(connection.pack_commands(commands))
                for _ in commands:
                    await connection.read_response()
        except BaseException as error:
            await drop_connection(connection)
            real = _real_error(error)
            if real is error:
                raise
            raise real from None
        return connection

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncGenerator[Any]:
        """Lend a connection.

        If anything interrupts its use, the connection is closed. Otherwise the reply of the
        interrupted call would still be on its way, and the next borrower would read it as the
        reply to its own call.
        """
        async with self._free:
            connection = self._idle.pop() if self._idle else None
            if connection is None:
                connection = self._new()
            self._lent.add(connection)
            clean = False
            try:
                await self._connect(connection)
                yield connection
                clean = not self._closed
            except RedisError as error:
                if needs_new_connection(error):
                    await self.drop_idle()
                raise
            finally:
                self._lent.discard(connection)
                if clean:
                    self._idle.append(connection)
                else:
                    await drop_connection(connection)

    async def protocol_refusal(self) -> str | None:
        """Why the address does not answer: only one of the two sides speaks TLS; None otherwise."""
        return await transport.protocol_refusal(self._class, self._settings)

    async def drop_idle(self) -> None:
        """Close the idle connections, which lead to a server that must not be used any more."""
        idle, self._idle = self._idle, []
        for connection in idle:
            await drop_connection(connection)

    async def close(self) -> None:
        """Close all connections; calls under way fail."""
        self._closed = True
        await self.drop_idle()
        for connection in tuple(self._lent):
            await drop_connection(connection)

    def _new(self) -> Any:
        try:
            return self._class(**self._settings)
        except Exception as error:
            raise NeverSentError from error

    async def _connect(self, connection: Any) -> None:
        # The handshake has no deadline of its own once the socket is open.
        self._refuse_when_closed()
        try:
            async with asyncio.timeout(self._deadline_seconds):
                if connection.is_connected and await _is_stale(connection):
                    await drop_connection(connection)
                await connection.connect()
        except Exception as error:  # noqa: BLE001  # it is the cause of ours
            raise NeverSentError from _real_error(error)
        self._refuse_when_closed()

    def _refuse_when_closed(self) -> None:
        if self._closed:
            raise NeverSentError from StoreClosedError("the store is closed; open a new one")


def _can_half_close(kind: type[Any]) -> bool:
    theirs: list[Any] = [Connection, UnixDomainSocketConnection]
    opens_a_socket = getattr(kind, "_connect", None) in [each._connect for each in theirs]
    return opens_a_socket and not issubclass(kind, SSLConnection)


@contextlib.contextmanager
def _half_closed(connection: Any, bell: Bell | None, limit: asyncio.Timeout) -> Generator[None]:
    """Close our direction of a connection when the bell rings.

    A client that closed both directions would not learn whether the server had executed the
    commands behind the blocked one: a worker would lose runs that it has just claimed. When only
    our direction is closed, the server drops a client that is still blocked, with its commands;
    when it was faster, it sends their replies first. So the replies, or the end of the connection
    without them, say what happened.
    """
    if bell is None:
        yield
        return

    def half_close() -> None:
        with contextlib.suppress(OSError, RuntimeError):
            connection._writer.write_eof()
        limit.reschedule(asyncio.get_running_loop().time() + HALF_CLOSED_SECONDS)

    with bell.calling(half_close):
        yield


async def _reply_or_error(connection: Any) -> Reply:
    try:
        return await connection.read_response()
    except ResponseError as error:
        if needs_new_connection(error):
            raise
        return error


def _real_error(error: BaseException) -> BaseException:
    """The error behind a driver's "connection error".

    The driver wraps errors that it does not expect, such as a refused password over a unix socket,
    or a bug. An impossible host name stays a connection error.
    """
    cause = error.__cause__
    is_hidden = isinstance(cause, (AuthenticationError, ResponseError)) or not isinstance(
        cause, (RedisError, OSError, UnicodeError)
    )
    return cause if type(error) is RedisConnectionError and cause and is_hidden else error


async def _is_stale(connection: Any) -> bool:
    """Whether the server closed the idle connection, or sent something unasked."""
    try:
        return bool(await connection.can_read())
    except (RedisError, OSError):
        return True


async def drop_connection(connection: Any) -> None:
    """Close a connection, whatever state it is in."""
    try:
        await connection.disconnect(nowait=True)
    except Exception as error:  # noqa: BLE001  # its user gets the error that broke it
        logger.debug("a connection was not closed in order: %r", error)
