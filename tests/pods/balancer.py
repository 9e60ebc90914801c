"""Pods behind one address, taken in turn: by haproxy where it is installed, else by our own."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import shutil
import socket
import subprocess
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

_CONFIG = """
global
  maxconn 4000
defaults
  mode http
  timeout connect 2s
  timeout client 60s
  timeout server 60s
  timeout check 5s
  retries 3
  option redispatch
frontend all
  bind 127.0.0.1:{port}
  default_backend pods
backend pods
  balance roundrobin
  option httpchk GET /readyz
  default-server check inter 200ms fall 1 rise 1
{servers}
"""


def free_ports(count: int) -> list[int]:
    """Ports of this machine on which no program listens."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def started(log: Path, *command: str) -> subprocess.Popen[bytes]:
    """Start a program whose output goes into a file."""
    with log.open("wb") as file:
        return subprocess.Popen(command, stdout=file, stderr=file)


@asynccontextmanager
async def balanced(ports: list[int], folder: Path) -> AsyncGenerator[int]:
    """The port at which the pods are taken in turn."""
    haproxy = shutil.which("haproxy", path="/usr/sbin:/usr/bin:/usr/local/sbin:/opt/homebrew/bin")
    begin = _ours(ports) if haproxy is None else _haproxy(haproxy, ports, folder)
    async with begin as port:
        yield port


@asynccontextmanager
async def _haproxy(program: str, ports: list[int], folder: Path) -> AsyncGenerator[int]:
    (port,) = free_ports(1)
    servers = "\n".join(f"  server pod{each} 127.0.0.1:{each}" for each in ports)
    config = folder / "haproxy.cfg"
    config.write_text(_CONFIG.format(port=port, servers=servers), encoding="utf-8")
    process = started(folder / "haproxy.log", program, "-db", "-f", str(config))
    try:
        while not await _answers(port):
            assert process.poll() is None, (folder / "haproxy.log").read_text(encoding="utf-8")
            await asyncio.sleep(0.05)
        yield port
    finally:
        process.kill()
        process.wait()


@asynccontextmanager
async def _ours(ports: list[int]) -> AsyncGenerator[int]:
    turns = itertools.cycle(ports)

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for port in itertools.islice(turns, len(ports)):
            with contextlib.suppress(OSError):
                there = await asyncio.open_connection("127.0.0.1", port)
                break
        else:
            writer.close()
            return
        ways = [_pump(reader, there[1]), _pump(there[0], writer)]
        await asyncio.wait(map(asyncio.ensure_future, ways), return_when=asyncio.FIRST_COMPLETED)
        there[1].close()
        writer.close()

    server = await asyncio.start_server(pass_on, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while some := await reader.read(65536):
            writer.write(some)
            await writer.drain()


async def _answers(port: int) -> bool:
    with contextlib.suppress(OSError):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.close()
        return True
    return False
