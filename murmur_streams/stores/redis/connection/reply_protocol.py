"""Reads replies where the bytes arrive, without the driver's stream and its turns of the loop.

The driver opens the connection (TLS, password, database); afterwards a lane takes its transport
over. A reply then reaches its caller two turns of the event loop earlier.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import InvalidResponse

try:
    import hiredis
except ImportError:
    hiredis = None

OnReply = Callable[[Any], None]


class ReplyProtocol(asyncio.Protocol):
    """Parses replies, and hands each over at once.

    Args:
        on_reply: called with a reply, or with the exception that stands for an error reply.
        parse_error: makes an exception of an error's text.
    """

    def __init__(self, on_reply: OnReply, parse_error: Callable[[str], Exception]) -> None:
        self._on_reply = on_reply
        self._reader: Any = hiredis.Reader(  # pyright: ignore[reportOptionalMemberAccess]  # see take_over
            protocolError=InvalidResponse, replyError=parse_error, notEnoughData=_NOTHING
        )
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Fails when the connection ends, with the reason."""

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        try:
            while (reply := self._reader.gets()) is not _NOTHING:
                self._on_reply(reply)
        except Exception as error:  # noqa: BLE001  # the lane judges it
            self.lose(error)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lose(exc or RedisConnectionError("Connection closed by server."))

    def lose(self, error: Exception) -> None:
        """Note that the connection cannot be used any more."""
        if not self.lost.done():
            self.lost.set_exception(error)


_NOTHING = object()


def take_over(connection: Any, on_reply: OnReply) -> tuple[Any, ReplyProtocol] | None:
    """Take the transport of a driver's open connection that waits for no reply.

    Returns:
        The transport and its new protocol; None where that is not possible: without hiredis, and
        for connections that have no transport (fakeredis).
    """
    stream, writer = getattr(connection, "_reader", None), getattr(connection, "_writer", None)
    if hiredis is None or not isinstance(stream, asyncio.StreamReader):
        return None
    if not isinstance(writer, asyncio.StreamWriter):
        return None
    protocol = ReplyProtocol(on_reply, connection._parser.parse_error)
    writer.transport.set_protocol(protocol)
    return writer.transport, protocol
