"""Real servers on loopback in the test's own loop, and a proxy that cuts what goes through it."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any, Self

from fastapi import FastAPI

from murmur_streams import Fleet
from murmur_streams.server import ServerOptions, make_app
from murmur_streams.server.serving import PodServer, listen

METHODS = (b"GET ", b"POST ", b"DELETE ")
QUICK = ServerOptions(retry_ms=20, drain_seconds=0.2, heartbeat_seconds=0.5)


class Pod:
    """One server."""

    def __init__(
        self, app: FastAPI, server: PodServer, port: int, task: asyncio.Task[None]
    ) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self._app = app
        self._server = server
        self._task = task

    @property
    def streams(self) -> int:
        """How many streams are open."""
        return self._app.state.pod.streams.total()

    async def drain(self) -> None:
        """Stop in peace."""
        if not self._task.done():
            self._server.stop()
        await self._task

    async def kill(self) -> None:
        """Stop at once: every connection is cut."""
        for _ in range(2):
            if not self._task.done():
                self._server.stop()
        await self._task


async def start_pod(fleet: Fleet, options: ServerOptions = QUICK, port: int = 0) -> Pod:
    """Start a server; it listens when this returns."""
    app = make_app(fleet, options)
    started = asyncio.Event()
    server = PodServer(app, app.state.pod, on_start=started.set)
    # The pod's end must not close the test's own store.
    server.config.lifespan = "off"
    [listening] = listen("127.0.0.1", port)
    task = asyncio.create_task(server.serve([listening]))
    ready = asyncio.create_task(started.wait())
    await asyncio.wait({task, ready}, return_when=asyncio.FIRST_COMPLETED)
    ready.cancel()
    if task.done():
        await task
    return Pod(app, server, listening.getsockname()[1], task)


@asynccontextmanager
async def pod_of(fleet: Fleet, options: ServerOptions = QUICK) -> AsyncGenerator[Pod]:
    """A server for the block."""
    pod = await start_pod(fleet, options)
    try:
        yield pod
    finally:
        await pod.kill()


def nothing(_: bytes) -> int | None:
    """Cut nothing."""
    return None


class Cutter:
    """A proxy in front of some servers, each connection to the next of them.

    ``plan`` is asked for each request, by its first bytes: after how many bytes of the answer
    both sides are cut; None lets all through.
    """

    def __init__(self, *ports: int, plan: Callable[[bytes], int | None] = nothing) -> None:
        self.ports = list(ports)
        self.plan = plan
        self.cuts = 0
        self.url = ""
        self._server: asyncio.Server | None = None
        self._turn = 0
        self._tasks: set[asyncio.Task[Any]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await self._serve(reader, writer)
        finally:
            writer.transport.abort()
            self._tasks.discard(task)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = await reader.read(65536)
        if not first:
            return
        self._turn += 1
        port = self.ports[self._turn % len(self.ports)]
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", port)
        line = _Line(self.plan)
        asking = asyncio.create_task(line.ask(first, reader, up_writer))
        try:
            if await line.answer(up_reader, writer):
                self.cuts += 1
        finally:
            asking.cancel()
            up_writer.transport.abort()
            await asyncio.gather(asking, return_exceptions=True)


class _Line:
    """One connection through the proxy, for one request after the other."""

    def __init__(self, plan: Callable[[bytes], int | None]) -> None:
        self._plan = plan
        self._left: int | None = None

    async def ask(
        self, first: bytes, reader: asyncio.StreamReader, up: asyncio.StreamWriter
    ) -> None:
        chunk = first
        with contextlib.suppress(OSError):
            while chunk:
                if chunk.startswith(METHODS):
                    self._left = self._plan(chunk)
                up.write(chunk)
                await up.drain()
                chunk = await reader.read(65536)

    async def answer(self, up: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Pass the answers on; whether one was cut."""
        while chunk := await up.read(4096):
            if self._left is not None and len(chunk) >= self._left:
                writer.write(chunk[: self._left])
                await writer.drain()
                # Closed, not aborted: what was written arrives.
                writer.close()
                await writer.wait_closed()
                return True
            if self._left is not None:
                self._left -= len(chunk)
            writer.write(chunk)
            await writer.drain()
        return False


def at_random(seed: int, most: int, what: bytes = b"/stream") -> Callable[[bytes], int | None]:
    """Cut each answer to such requests after a random number of bytes."""
    dice = random.Random(seed)
    return lambda first: dice.randint(0, most) if what in first.partition(b"\r\n")[0] else None


def once(what: bytes, after: int = 0) -> Callable[[bytes], int | None]:
    """Cut the answer to the first such request."""
    left = [after]
    return lambda first: left.pop() if left and first.startswith(what) else None
