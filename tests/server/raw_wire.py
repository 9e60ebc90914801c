"""A pod on a port of this machine, and a client that sends any bytes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

from murmur_streams.fleet import Fleet
from murmur_streams.server import ServerOptions, make_app
from murmur_streams.server.pod import Pod
from murmur_streams.server.serving import PodServer, listen

PATIENCE_SECONDS = 60.0


@dataclass(frozen=True)
class RawWire:
    """A pod that listens."""

    server: PodServer
    pod: Pod
    port: int

    async def connect(self) -> Connection:
        return Connection(*await asyncio.open_connection("127.0.0.1", self.port))

    async def ask(self, *pieces: bytes) -> bytes:
        """All that is answered to these bytes, until the pod closes the connection."""
        connection = await self.connect()
        try:
            for piece in pieces:
                await connection.send(piece)
            return await connection.rest()
        finally:
            connection.close()


class Connection:
    """One connection of a client."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, data: bytes) -> None:
        """Send; a pod that has closed in the meantime does not fail the test."""
        with suppress(ConnectionError):
            self._writer.write(data)
            await self._writer.drain()

    async def until(self, end: bytes) -> bytes:
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await self._reader.readuntil(end)

    async def rest(self) -> bytes:
        """The bytes that arrive until the pod closes, without those that a reset discards."""
        found = b""
        async with asyncio.timeout(PATIENCE_SECONDS):
            with suppress(ConnectionError):
                while piece := await self._reader.read(65_536):
                    found += piece
        return found

    def close(self) -> None:
        self._writer.transport.abort()


@asynccontextmanager
async def raw_wire(fleet: Fleet, **options: Any) -> AsyncGenerator[RawWire]:
    """A pod that listens while the block runs."""
    given: dict[str, Any] = {"drain_seconds": 5.0, **options}
    app = make_app(fleet, ServerOptions(**given))
    sockets = listen("127.0.0.1", 0)
    started = asyncio.Event()
    server = PodServer(app, app.state.pod, on_start=started.set)
    port = sockets[0].getsockname()[1]
    serving = asyncio.create_task(server.serve(sockets))
    try:
        await started.wait()
        yield RawWire(server, app.state.pod, port)
    finally:
        server.stop()
        server.stop()
        await serving
