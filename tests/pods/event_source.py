"""A plain client of one run's stream, as any language has one: a socket, and lines of text."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from typing import Any

ENDED = 204
_WAIT_SECONDS = 0.05


class PlainClient:
    """Reads a run's stream, is cut at random, and comes back with the last id that it has seen."""

    def __init__(self, port: int, run_id: str, chance: random.Random) -> None:
        self._port = port
        self._run_id = run_id
        self._chance = chance
        self._last_id = ""
        self.seen: list[dict[str, Any]] = []
        self.connections = 0
        self.answers: set[int] = set()

    async def read(self) -> None:
        """Connect again and again, until the answer is that the run has ended."""
        while True:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, TimeoutError):
                async with asyncio.timeout(self._chance.uniform(0.5, 4)):
                    if await self._connect() == ENDED:
                        return
            await asyncio.sleep(self._chance.uniform(0, 2 * _WAIT_SECONDS))

    async def _connect(self) -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        self.connections += 1
        try:
            lines = [f"GET /runs/{self._run_id}/stream HTTP/1.1", "Host: pods"]
            lines += ["Accept: text/event-stream", "Connection: close"]
            lines += [f"Last-Event-ID: {self._last_id}"] if self._last_id else []
            writer.write("\r\n".join([*lines, "", ""]).encode())
            status = int((await reader.readuntil(b"\r\n")).split()[1])
            self.answers.add(status)
            head = await reader.readuntil(b"\r\n\r\n")
            if status == 200:
                await self._messages(reader, is_chunked=b"chunked" in head.lower())
            return status
        finally:
            writer.transport.abort()

    async def _messages(self, reader: asyncio.StreamReader, *, is_chunked: bool) -> None:
        text = ""
        while True:
            if is_chunked:
                size = int(await reader.readuntil(b"\r\n"), 16)
                some = (await reader.readexactly(size + 2))[:-2]
            else:
                some = await reader.read(65536)
            if not some:
                return
            text += some.decode()
            *blocks, text = text.split("\n\n")
            for block in blocks:
                self._take(block)

    def _take(self, block: str) -> None:
        fields = dict(
            line.split(": ", 1) for line in block.split("\n") if line and not line.startswith(":")
        )
        if "data" in fields:
            self.seen.append(json.loads(fields["data"]))
            self._last_id = fields["id"]
