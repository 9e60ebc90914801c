"""The fastest client that Python allows: a socket's stream, and hiredis to pack and to read."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import Any, cast
from urllib.parse import urlsplit

import hiredis

Command = tuple[Any, ...]
_pack = cast("Any", hiredis).pack_command
_READ_BYTES = 65_536


class Raw:
    """One connection; no retries, no timeouts, no pool."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._replies: Any = cast("Any", hiredis).Reader()

    async def send(self, commands: list[Command]) -> list[Any]:
        """Send commands in one write, and read all their replies."""
        self._writer.write(b"".join([_pack(command) for command in commands]))
        replies: list[Any] = []
        while len(replies) < len(commands):
            reply = self._replies.gets()
            if reply is False:
                self._replies.feed(await self._reader.read(_READ_BYTES))
                continue
            if isinstance(reply, Exception):
                raise reply
            replies.append(reply)
        return replies


@contextlib.asynccontextmanager
async def raw_connection(url: str) -> AsyncGenerator[Raw]:
    """Connect to a server."""
    address = urlsplit(url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    try:
        yield Raw(reader, writer)
    finally:
        writer.close()
        await writer.wait_closed()
