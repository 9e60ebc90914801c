"""Pods on loopback, and a client that reads event streams from the bare socket."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncGenerator
from typing import Any, Self

from fastapi import FastAPI

from murmur_streams import Fleet
from murmur_streams.server import ServerOptions, make_app
from murmur_streams.server.pod import Pod
from murmur_streams.server.serving import PodServer, listen
from murmur_streams.server.stream_response import Unwound
from murmur_streams.stores.redis.store import RedisRunStore, redis_only
from tests.server.event_source import Event, EventSource
from tests.servers import Space
from tests.stores.faults.waiting import wait_until

PATIENCE_SECONDS = 30.0


class RunningPod:
    """A pod that listens, with its store."""

    def __init__(self, fleet: Fleet, app: FastAPI, server: PodServer, port: int) -> None:
        self.fleet = fleet
        self.app = app
        self.server = server
        self.port = port

    @property
    def pod(self) -> Pod:
        return self.app.state.pod

    async def store(self) -> RedisRunStore:
        return redis_only(await self.fleet.store())

    async def released(self) -> None:
        """Wait until no stream is open here, and none is followed in the store."""
        store = await self.store()

        def is_released() -> bool:
            return not self.pod.streams and not store._tails.followers

        await wait_until(is_released, "every stream is released")


@contextlib.asynccontextmanager
async def running_pod(
    space: Space, *, unwound: bool = True, **options: Any
) -> AsyncGenerator[RunningPod]:
    """A pod of the test's runs; it ends with the block."""
    fleet = Fleet(space.url, key_prefix=space.prefix)
    app = make_app(fleet, ServerOptions(**options))
    if not unwound:
        others = [each for each in app.user_middleware if each.cls is not Unwound]
        assert len(others) == len(app.user_middleware) - 1
        app.user_middleware = others
    sockets = listen("127.0.0.1", 0)
    server = PodServer(app, app.state.pod)
    serving = asyncio.create_task(server.serve(sockets=sockets))
    try:
        await wait_until(lambda: server.started or serving.done(), "the pod listens")
        yield RunningPod(fleet, app, server, sockets[0].getsockname()[1])
    finally:
        server.stop()
        await serving
        await fleet.close()


class Wire:
    """One request and its answer, as it comes over the socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.status = 0
        self.headers: dict[str, str] = {}
        self.source = EventSource()
        self.waiting: list[Event] = []
        self.is_over = False
        """The answer came to its proper end."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.cut()

    def cut(self) -> None:
        """Close the connection at once."""
        self.writer.transport.abort()

    async def read_head(self) -> None:
        """Read the status and the headers."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        status, *lines = head.split("\r\n")
        self.status = int(status.split()[1])
        pairs = (line.partition(":") for line in lines if line)
        self.headers = {name.strip().lower(): value.strip() for name, _, value in pairs}

    async def chunk(self) -> bytes:
        """The next piece of the body; nothing at its end."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            size = int(await self.reader.readuntil(b"\r\n"), 16)
            data = await self.reader.readexactly(size + 2)
        self.is_over = size == 0
        return data[:-2]

    async def event(self) -> Event | None:
        """The next event; None at the end."""
        while not self.waiting:
            data = await self.chunk()
            if not data:
                return None
            self.waiting += self.source.feed(data)
        return self.waiting.pop(0)

    async def some(self, count: int) -> list[Event]:
        """So many events."""
        found = [await self.event() for _ in range(count)]
        assert None not in found, found
        return [event for event in found if event is not None]

    async def rest(self) -> list[Event]:
        """All events to the end."""
        found: list[Event] = []
        while (event := await self.event()) is not None:
            found.append(event)
        return found

    async def json(self) -> Any:
        """The whole body of an answer that is not a stream."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            return json.loads(await self.reader.readexactly(int(self.headers["content-length"])))


async def send_request(
    port: int, path: str, headers: dict[str, str] | None = None, *, receive_bytes: int | None = None
) -> Wire:
    """Ask, and leave the answer unread."""
    connected = socket.socket()
    if receive_bytes is not None:
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    connected.setblocking(False)
    await asyncio.get_running_loop().sock_connect(connected, ("127.0.0.1", port))
    reader, writer = await asyncio.open_connection(sock=connected, limit=2**16)
    sent = {"Host": "pod", "Accept": "text/event-stream", **(headers or {})}
    lines = [f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in sent.items())]
    writer.write(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
    return Wire(reader, writer)


async def get(port: int, path: str, headers: dict[str, str] | None = None) -> Wire:
    """Ask, and read the head of the answer."""
    wire = await send_request(port, path, headers)
    await wire.read_head()
    return wire


async def stream(port: int, path: str, after: str | None = None) -> Wire:
    """Open an event stream, as a browser does."""
    wire = await get(port, path, {} if after is None else {"Last-Event-ID": after})
    if after is not None:
        wire.source = EventSource(after)
    assert wire.status == 200, (wire.status, await wire.json())
    return wire
