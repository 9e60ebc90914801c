"""The server that the benchmarks use: Valkey from its wheel, over TCP on loopback, without AOF."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import tempfile
from asyncio.subprocess import DEVNULL
from collections.abc import AsyncGenerator
from typing import Any, cast

from redis.asyncio import BlockingConnectionPool, Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from murmur_streams.embedded.launch import find_binary

START_SECONDS = 10.0
LOOK_SECONDS = 0.02


@contextlib.asynccontextmanager
async def server() -> AsyncGenerator[str]:
    """A server of its own, killed at the end of the block; yields its URL."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="murmur-bench-") as folder:
        options = ("--save", "", "--appendonly", "no", "--dir", folder)
        process = await asyncio.create_subprocess_exec(
            str(find_binary()),
            *("--port", str(port), "--bind", "127.0.0.1", *options),
            stdout=DEVNULL,
            start_new_session=True,
        )
        try:
            url = f"redis://127.0.0.1:{port}/0"
            await _answers(url)
            yield url
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await asyncio.shield(process.wait())


def free_port() -> int:
    """A port on loopback that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def driver(url: str, connections: int = 1, **more: Any) -> Any:
    """A plain redis-py client with its faster settings: no socket timeout."""
    pool = cast("Any", BlockingConnectionPool).from_url(
        url, protocol=2, socket_timeout=None, max_connections=connections, timeout=None, **more
    )
    return cast("Any", Redis).from_pool(pool)


async def _answers(url: str) -> None:
    async with asyncio.timeout(START_SECONDS), driver(url) as client:
        while True:
            with contextlib.suppress(RedisConnectionError):
                await client.ping()
                return
            await asyncio.sleep(LOOK_SECONDS)
