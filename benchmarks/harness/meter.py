"""Measures a piece of work: its time, the CPU time of client and server, and the commands."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from benchmarks.harness.results import Reading

SCRIPT_CALLS = {"eval", "evalsha", "fcall", "eval_ro", "evalsha_ro", "fcall_ro"}
HOUSEKEEPING = {
    "info",
    "client",
    "hello",
    "ping",
    "auth",
    "select",
    "config",
    "command",
    "setbit",
}
"""Commands that are not work: of connections, and those that report the end of a round."""


@dataclass(frozen=True, slots=True)
class Mark:
    """The clocks at one moment."""

    wall: float
    client: float
    server: float = 0.0
    script_us: int = 0
    commands: int = 0
    """Every command that the server has executed, without calls of scripts and housekeeping."""


class Meter:
    """Reads the clocks of this process and of a server.

    Args:
        url: of the server, over TCP; anything else means that there is none to measure.
    """

    def __init__(self, url: str) -> None:
        address = urlsplit(url)
        self._connection = (
            socket.create_connection((address.hostname, address.port))
            if address.scheme == "redis"
            else None
        )

    def close(self) -> None:
        """Leave the server."""
        if self._connection is not None:
            self._connection.close()

    def mark(self) -> Mark:
        """The clocks now. The call blocks the event loop, so nothing else uses the server."""
        server = self._server()
        return Mark(time.perf_counter(), time.process_time(), *server)

    def since(self, began: Mark, figure: str, count: int, **more: Any) -> Reading:
        """How often per second, and at which cost for each of ``count`` operations."""
        wall, client = time.perf_counter(), time.process_time()
        ended = Mark(wall, client, *self._server())
        return reading(began, ended, figure, count, has_server=self._connection is not None, **more)

    async def rate(
        self, figure: str, count: int, work: Callable[[], Awaitable[object]], **more: Any
    ) -> Reading:
        """Measure one call of ``work``, which does ``count`` operations."""
        began = self.mark()
        await work()
        return self.since(began, figure, count, **more)

    def clear(self, key: str, bit: int) -> bool:
        """Clear a bit that a worker sets at the end of a round; returns whether it was set."""
        assert self._connection is not None
        self._connection.sendall(f"SETBIT {key} {bit} 0\r\n".encode())
        return self._connection.recv(65_536).startswith(b":1")

    def _server(self) -> tuple[float, int, int]:
        if self._connection is None:
            return 0.0, 0, 0
        text = self._info("cpu") + self._info("commandstats")
        return parse_info(text)

    def _info(self, section: str) -> str:
        assert self._connection is not None
        self._connection.sendall(f"INFO {section}\r\n".encode())
        received = self._connection.recv(65_536)
        head, _, body = received.partition(b"\r\n")
        length = int(head[1:])
        while len(body) < length + 2:
            body += self._connection.recv(65_536)
        return body.decode()


def command(url: str, *parts: str) -> bytes:
    """Send one command over a connection of its own; returns the raw reply."""
    address = urlsplit(url)
    with socket.create_connection((address.hostname, address.port)) as connection:
        connection.sendall(f"{' '.join(parts)}\r\n".encode())
        return connection.recv(65_536)


def reading(
    began: Mark, ended: Mark, figure: str, count: int, *, has_server: bool, **more: Any
) -> Reading:
    """The difference of two marks, for each of ``count`` operations."""
    parts: dict[str, Any] = {"figure": figure, "value": count / (ended.wall - began.wall)}
    parts["client_us"] = (ended.client - began.client) * 1e6 / count
    if has_server:
        parts["server_us"] = (ended.server - began.server) * 1e6 / count
        parts["script_us"] = (ended.script_us - began.script_us) / count
        parts["commands"] = (ended.commands - began.commands) / count
    return Reading(**(parts | more))


def parse_info(text: str) -> tuple[float, int, int]:
    """CPU seconds, microseconds in calls of scripts, and commands, from the server's INFO."""
    seconds = re.findall(r"^used_cpu_(?:sys|user):(\S+)", text, re.MULTILINE)
    cpu = sum(float(each) for each in seconds)
    script_us = commands = 0
    for name, calls, usec in _commands(text):
        if name in SCRIPT_CALLS:
            script_us += usec
        elif name not in HOUSEKEEPING:
            commands += calls
    return cpu, script_us, commands


def _commands(text: str) -> Iterator[tuple[str, int, int]]:
    lines = re.findall(r"^cmdstat_([^:|]+)[^:]*:calls=(\d+),usec=(\d+)", text, re.MULTILINE)
    for name, calls, usec in lines:
        yield name.lower(), int(calls), int(usec)
