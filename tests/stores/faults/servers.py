"""Servers with a configuration of the test's choice, on loopback ports, stopped by their pid."""

from __future__ import annotations

import asyncio
import contextlib
import shlex
import subprocess
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

from redis import Redis as BlockingRedis
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from murmur_streams.embedded import EmbeddedServer
from murmur_streams.embedded.sentinel_group import free_port
from tests.key_audit import audit_server
from tests.server_choice import own_settings, server_binary
from tests.servers import forget_scripts
from tests.stores.faults.waiting import wait_until


class SpareServer:
    """A server process of this test alone."""

    def __init__(self, folder: Path, *settings: str, password: str | None = None) -> None:
        self.folder = folder
        # A node of a cluster has a second port, 10,000 above the first.
        self.port = free_port(below=55_536)
        self._settings = [*settings, *(["requirepass", password] if password else [])]
        self._password = password
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> tuple[str, int]:
        """For a proxy."""
        return ("127.0.0.1", self.port)

    @property
    def pid(self) -> int:
        """Of the process that runs."""
        assert self._process is not None
        return self._process.pid

    def url(self, credentials: str = "") -> str:
        """For a store; ``credentials`` is what stands before the @."""
        return f"redis://{credentials + '@' if credentials else ''}127.0.0.1:{self.port}"

    def client(self) -> Redis:
        """A client that may do everything."""
        return Redis(host="127.0.0.1", port=self.port, password=self._password, protocol=2)

    async def start(self) -> None:
        """Start it, and return when it answers."""
        command = [str(server_binary()), "--port", str(self.port), "--bind", "127.0.0.1"]
        command += ["--save", "", "--dir", str(self.folder), "--logfile", "server.log"]
        for name, value in zip(self._settings[::2], self._settings[1::2], strict=True):
            command += [f"--{name}", value]
        for name, value in own_settings().items():
            command += [f"--{name}", *shlex.split(value)]
        # Python ignores SIGXFSZ; the server shall, too, so that a limit is a full disk to it.
        self._process = await asyncio.to_thread(
            subprocess.Popen[bytes],
            command,
            cwd=self.folder,
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            restore_signals=False,
        )
        await wait_until(self._answers, "the server answers")

    def audit(self) -> None:
        """Audit its keys, if it still runs."""
        if self._process is not None and self._process.poll() is None:
            audit_server(self.url(f":{self._password}" if self._password else ""))

    async def kill(self) -> None:
        """End it with SIGKILL."""
        if self._process is not None:
            self._process.kill()
            await asyncio.to_thread(self._process.wait)
            self._process = None

    async def _answers(self) -> bool:
        async with self.client() as client:
            with contextlib.suppress(Exception):
                return bool(await client.ping())
        return False


@contextlib.asynccontextmanager
async def spare_server(
    folder: Path, *settings: str, password: str | None = None
) -> AsyncGenerator[SpareServer]:
    """Start a server with these settings: name, value, name, value."""
    await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
    server = SpareServer(folder, *settings, password=password)
    try:
        await server.start()
        yield server
        await asyncio.to_thread(server.audit)
    finally:
        await server.kill()


def forget_all(server: EmbeddedServer) -> None:
    """Remove all scripts and functions from the server."""
    with BlockingRedis(unix_socket_path=str(server.socket_path)) as plain:
        forget_scripts(plain)


async def blocking(server: SpareServer, act: Callable[[BlockingRedis], None]) -> None:
    """Let a function for a blocking client act on a server."""

    def connected() -> None:
        with BlockingRedis(host="127.0.0.1", port=server.port) as client:
            act(client)

    await asyncio.to_thread(connected)


async def has_functions(admin: Redis) -> bool:
    """Whether the server has functions, and this server's tests allow them."""
    try:
        await admin.function_list()
    except ResponseError:
        return False
    return True
