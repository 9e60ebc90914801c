"""Connections by the store's own rules: RESP2, no retries by the driver, one deadline a call.

The driver's retry repeats writes, which would apply them twice. Its socket timeout starts a timer
for each read, and on Python 3.11 it can swallow a cancellation. So both are switched off in every
connection that is made here, whatever the options of the given client are.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import weakref
from collections.abc import AsyncGenerator, Generator
from typing import Any

from redis.exceptions import AuthenticationError, ReadOnlyError, RedisError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError

from murmur_streams.core.model.errors import StoreClosedError
from murmur_streams.stores.bell import Bell
from murmur_streams.stores.redis.connection import transport
from murmur_streams.stores.redis.connection.failures import NeverSentError, needs_new_connection
from murmur_streams.stores.redis.connection.maker import ConnectionMaker
from murmur_streams.stores.redis.connection.sentinel import Primary

logger = logging.getLogger("murmur_streams.redis")

HALF_CLOSED_SECONDS = 1.0
"""How long the server may take to end a connection that was closed in one direction."""
Reply = Any
"""A server's reply: bytes, int, None, or lists of these."""


class Connections:
    """At most ``size`` connections to one server.

    Lending waits for a free connection. Returning one never waits, so no cancellation can lose it.

    Args:
        maker: makes them.
        size: how many are lent at a time.
        deadline_seconds: a connection whose reply takes longer counts as broken.
        primary: where the server is, if Sentinels name it.
    """

    def __init__(
        self,
        maker: ConnectionMaker,
        *,
        size: int,
        deadline_seconds: float,
        primary: Primary | None = None,
    ) -> None:
        self._maker = maker
        self.can_half_close = maker.can_half_close
        """Whether ``blocking_all`` takes a bell."""
        self.has_failovers = primary is not None
        """Whether another server takes this one's position when it fails."""
        self._primary = primary
        self._free = asyncio.Semaphore(size)
        self._idle: list[Any] = []
        self._lent: set[Any] = set()
        self._given: weakref.WeakSet[Any] = weakref.WeakSet()
        """Connections outside the pool."""
        self._connecting: set[asyncio.Timeout] = set()
        """The limits of connections that are being made to the present primary."""
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
                return [await reply_or_error(connection) for _ in commands]

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
                        return [await reply_or_error(connection) for _ in commands]
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
        self._given.add(connection)
        try:
            async with asyncio.timeout(self._deadline_seconds) as limit:
                await self._open(connection, limit)
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
            except TimeoutError:
                # A firewall that forgets one connection forgets those beside it, and none is
                # closed: each later try would wait for its own deadline, one after the other, and
                # a heartbeat with four idle connections would come after its lease.
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
        maker = self._maker
        if self._primary is not None:
            if self._primary.last_address is None:
                return None
            maker = maker.at(self._primary.last_address)
        return await transport.protocol_refusal(maker.kind, maker.settings)

    async def drop_idle(self) -> None:
        """Close the idle connections, which lead to a server that must not be used any more."""
        idle, self._idle = self._idle, []
        for connection in idle:
            await drop_connection(connection)

    async def drop_all(self) -> None:
        """Close every connection, also those outside the pool; calls under way fail."""
        for limit in self._connecting:
            # One that has run out cannot be changed any more, and ends its caller's try by itself.
            if not limit.expired():
                limit.reschedule(asyncio.get_running_loop().time())
        await self.drop_idle()
        for connection in (*self._lent, *self._given):
            await drop_connection(connection)

    async def close(self) -> None:
        """Close all connections; calls under way fail."""
        self._closed = True
        await self.drop_idle()
        for connection in tuple(self._lent):
            await drop_connection(connection)

    def _new(self) -> Any:
        try:
            return self._maker.make()
        except Exception as error:
            raise NeverSentError from error

    async def _connect(self, connection: Any) -> None:
        # The handshake has no deadline of its own once the socket is open.
        self._refuse_when_closed()
        try:
            async with asyncio.timeout(self._deadline_seconds) as limit:
                if connection.is_connected and await _is_stale(connection):
                    await drop_connection(connection)
                await self._open(connection, limit)
        except Exception as error:  # noqa: BLE001  # it is the cause of ours
            raise NeverSentError from _real_error(error)
        self._refuse_when_closed()

    async def _open(self, connection: Any, limit: asyncio.Timeout) -> None:
        """Connect it, to the present primary where Sentinels name one.

        Args:
            connection: a connection that may be open already.
            limit: of the caller; it ends when another server becomes the primary.
        """
        primary = self._primary
        if primary is None or connection.is_connected:
            await connection.connect()
            return
        connection.host, connection.port = await primary.address()
        self._connecting.add(limit)
        try:
            await connection.connect()
            await connection.send_command("ROLE")
            role = await reply_or_error(connection)
            # A user without the right to ROLE learns of a replica by the answer to a write.
            if not isinstance(role, RedisError) and role[0] != b"master":
                raise ReadOnlyError("READONLY the server is a replica")  # noqa: TRY301
        except BaseException:
            primary.doubt()
            raise
        finally:
            self._connecting.discard(limit)

    def _refuse_when_closed(self) -> None:
        if self._closed:
            raise NeverSentError from StoreClosedError("the store is closed; open a new one")


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
        # None: it was dropped a moment ago, because another server became the primary.
        if (writer := connection._writer) is not None:
            with contextlib.suppress(OSError, RuntimeError):
                writer.write_eof()
        limit.reschedule(asyncio.get_running_loop().time() + HALF_CLOSED_SECONDS)

    with bell.calling(half_close):
        yield


async def reply_or_error(connection: Any) -> Reply:
    """The next reply; an error that concerns its command alone is returned."""
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
