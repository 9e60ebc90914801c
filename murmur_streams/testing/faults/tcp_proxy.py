"""A TCP proxy for every protocol: it delays, splits, stalls, cuts, and lets bytes vanish."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Coroutine
from enum import Flag, auto
from typing import Self

from murmur_streams.core.model.errors import InvalidInputError

CHUNK_BYTES = 65_536


class Direction(Flag):
    """Of the bytes on a connection."""

    TO_SERVER = auto()
    TO_CLIENT = auto()
    BOTH = TO_SERVER | TO_CLIENT


class CutError(Exception):
    """Ends a connection of the proxy."""


ENDS = (ConnectionError, FileNotFoundError, CutError, asyncio.CancelledError)
"""How a connection of the proxy ends."""


class TcpProxy:
    """Listens on a loopback port, and passes bytes on to a server's TCP port or unix socket.

    ``async with`` starts and ends it. Its faults apply to all connections, also several at a time.

    Args:
        upstream: the path of a unix socket, or host and port.
        port: where it listens; 0 takes a free one.
    """

    scheme = "tcp"

    def __init__(self, upstream: str | tuple[str, int], port: int = 0) -> None:
        self.upstream = upstream
        """Where the next connection leads; those that are open stay where they are."""
        self.url = ""
        self.port = port
        self.delay_seconds = 0.0
        """How long each piece of bytes waits, in both directions."""
        self.piece_bytes = 0
        """The longest piece in which bytes are sent; 0: as they come."""
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._wires: set[Wire] = set()
        self._new_vanish = Direction(0)
        self._stalled = Direction(0)
        self._flows = asyncio.Event()
        self._flows.set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = int(self._server.sockets[0].getsockname()[1])
        self.url = f"{self.scheme}://127.0.0.1:{self.port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self.shut()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._listener.wait_closed()

    @property
    def connections(self) -> int:
        """How many connections of clients are open."""
        return sum(not wire.is_left for wire in self._wires)

    @property
    def half_open(self) -> int:
        """How many connections have ended on one side, in a black hole: the other keeps its end."""
        return sum(wire.is_left for wire in self._wires)

    def black_hole(self, directions: Direction = Direction.BOTH, *, also_new: bool = False) -> None:
        """Let what is sent on the open connections vanish from now on, without a close.

        They stay so, as if a firewall had forgotten them: also the end of one side does not reach
        the other.

        Args:
            directions: in which bytes vanish.
            also_new: whether connections vanish that are made before ``end_black_hole``. They are
                accepted, as by a host that is frozen.
        """
        for wire in self._wires:
            wire.vanishing |= directions
        if also_new:
            self._new_vanish |= directions

    def end_black_hole(self) -> None:
        """Let new connections work again."""
        self._new_vanish = Direction(0)

    def stall(self, directions: Direction = Direction.BOTH) -> None:
        """Hold bytes back until ``resume``: as on a network whose packets are sent again later."""
        self._stalled = directions
        self._flows.clear()

    def resume(self) -> None:
        """Send what was held back, in order."""
        self._stalled = Direction(0)
        self._flows.set()

    def cut_all(self) -> None:
        """Cut every connection, whatever is on its way."""
        for wire in tuple(self._wires):
            wire.cut()

    def cut_some(self, random: random.Random) -> None:
        """Cut about half of the connections."""
        for wire in sorted(self._wires, key=id):
            if random.random() < 0.5:
                wire.cut()

    def shut(self) -> None:
        """Cut every connection and take no new one."""
        self._listener.close()
        self.cut_all()

    async def flowing(self, direction: Direction) -> None:
        """Wait while bytes in this direction are held back."""
        while direction in self._stalled:
            await self._flows.wait()

    @property
    def _listener(self) -> asyncio.Server:
        if self._server is None:
            raise InvalidInputError("the proxy was not started: use it with `async with`")
        return self._server

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None:
            return
        self._tasks.add(task)
        try:
            # asyncio's server complains of handlers that were cancelled, so none is.
            with contextlib.suppress(*ENDS):
                await self._carry(Wire(self, (reader, writer), await self._connect()))
        finally:
            writer.transport.abort()
            self._tasks.discard(task)

    async def _carry(self, wire: Wire) -> None:
        wire.vanishing = self._new_vanish
        self._wires.add(wire)
        try:
            await self._serve(wire)
        finally:
            wire.cut()
            self._wires.discard(wire)

    async def _serve(self, wire: Wire) -> None:
        """Pass on what comes, until both sides have ended or one has broken."""
        await together(wire.to_server.pass_on(), wire.to_client.pass_on())

    async def _connect(self) -> Streams:
        if isinstance(self.upstream, str):
            return await asyncio.open_unix_connection(self.upstream)
        return await asyncio.open_connection(*self.upstream)


Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Wire:
    """One connection of a client, and the one to the server that belongs to it."""

    def __init__(self, proxy: TcpProxy, client: Streams, server: Streams) -> None:
        self.vanishing = Direction(0)
        """The directions in which bytes vanish."""
        self._client = client
        self._server = server
        self.to_server = Side(proxy, self, Direction.TO_SERVER, client[0], server[1])
        self.to_client = Side(proxy, self, Direction.TO_CLIENT, server[0], client[1])

    @property
    def is_left(self) -> bool:
        """Whether one side has closed it, and the other never learns of that."""
        return self.to_server.has_lost_end or self.to_client.has_lost_end

    async def linger(self) -> None:
        """Keep the end of the side that does not learn of the other's close, until it closes."""
        for side, left in ((self.to_server, self._server), (self.to_client, self._client)):
            if side.has_lost_end:
                while await left[0].read(CHUNK_BYTES):
                    pass

    def cut(self) -> None:
        """End both connections at once."""
        for _, writer in (self._client, self._server):
            writer.transport.abort()


class Side:
    """One direction of a connection."""

    def __init__(
        self,
        proxy: TcpProxy,
        wire: Wire,
        direction: Direction,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._proxy = proxy
        self._wire = wire
        self._direction = direction
        self._reader = reader
        self._writer = writer
        self._has_ended = False

    @property
    def vanishes(self) -> bool:
        """Whether what is written vanishes."""
        return self._direction in self._wire.vanishing

    @property
    def has_lost_end(self) -> bool:
        """Whether its sender has closed the connection, and that vanished, too."""
        return self._has_ended and self.vanishes

    async def read(self) -> bytes:
        """The next bytes of the sender; empty when it has closed the connection."""
        try:
            data = await self._reader.read(CHUNK_BYTES)
        except ConnectionError:
            data = b""
        self._has_ended = not data
        return data

    async def write(self, data: bytes) -> None:
        """Send bytes to the receiver, in the pieces and with the delays of the proxy."""
        size = self._proxy.piece_bytes or len(data) or 1
        for start in range(0, len(data), size):
            if self._proxy.delay_seconds:
                await asyncio.sleep(self._proxy.delay_seconds)
            await self._proxy.flowing(self._direction)
            if self.vanishes:
                return
            self._writer.write(data[start : start + size])
            await self._writer.drain()

    async def close(self) -> None:
        """Close the connection to the receiver, behind everything that was written."""
        self._writer.close()
        await self._writer.wait_closed()

    async def pass_on(self) -> None:
        """Pass on everything, and the end of the connection after it."""
        while data := await self.read():
            await self.write(data)
        await self._proxy.flowing(self._direction)
        if not self.vanishes and self._writer.can_write_eof():
            with contextlib.suppress(OSError):  # The receiver has closed it as well.
                self._writer.write_eof()


async def together(*works: Coroutine[None, None, None]) -> None:
    """Do several works, until all have ended or one has failed."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
