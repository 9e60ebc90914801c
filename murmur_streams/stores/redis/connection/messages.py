"""The messages that a server sends to a subscriber, and what it takes for a lost connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from redis.exceptions import ConnectionError as RedisConnectionError

from murmur_streams.stores.own_tasks import end_tasks

SILENT_SECONDS = 10.0
"""A server that sent nothing for so long must answer a PING within the same time: its host may be
gone, and nothing closes the connection then."""


async def messages(connection: Any) -> AsyncGenerator[list[Any]]:
    """Yield each message on a connection that has subscribed to channels, until it is lost.

    The caller closes the generator (``contextlib.aclosing``).

    Args:
        connection: no other task reads from it.

    Raises:
        RedisError, OSError: the connection is lost, or the server did not answer.
    """
    while True:
        # One read until it ends: a limit of the read itself could lose a part of a message.
        message = asyncio.ensure_future(connection.read_response())
        try:
            if not await _comes(message):
                await connection.send_command("PING")
                if not await _comes(message):
                    raise RedisConnectionError("it does not answer")
        finally:
            await end_tasks([message])
        yield message.result()


async def _comes(message: asyncio.Future[Any]) -> bool:
    """Whether the message, or the end of the connection, comes before the server is silent."""
    done, _ = await asyncio.wait({message}, timeout=SILENT_SECONDS)
    return bool(done)
