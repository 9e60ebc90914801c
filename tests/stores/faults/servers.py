"""Servers with a configuration of the test's choice, on loopback ports, stopped by their pid."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

from redis import Redis as BlockingRedis
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from murmur_streams.embedded import EmbeddedServer
from murmur_streams.testing.faults import ServerHandle
from tests.key_audit import audit_server
from tests.server_choice import own_settings, server_binary
from tests.servers import forget_scripts


@contextlib.asynccontextmanager
async def spare_server(
    folder: Path, *settings: str, password: str | None = None
) -> AsyncGenerator[ServerHandle]:
    """Start the chosen server with these settings: name, value, name, value.

    Its keys are audited at the end, if it still runs.
    """
    pairs = zip(settings[::2], settings[1::2], strict=True)
    lines = [f'{name} "{value}"' for name, value in pairs]
    lines += [f"{name} {value}" for name, value in own_settings().items()]
    binary = await asyncio.to_thread(server_binary)
    async with ServerHandle(folder, lines, password=password, binary=binary) as server:
        yield server
        if server.node.runs:
            await asyncio.to_thread(audit_server, server.url(f":{password}" if password else ""))


def forget_all(server: EmbeddedServer) -> None:
    """Remove all scripts and functions from the server."""
    with BlockingRedis(unix_socket_path=str(server.socket_path)) as plain:
        forget_scripts(plain)


async def blocking(server: ServerHandle, act: Callable[[BlockingRedis], None]) -> None:
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
