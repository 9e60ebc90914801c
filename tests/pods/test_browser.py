"""The browser's own EventSource sees each event once, though pods die and connections are cut."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import shutil
import signal
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from murmur_streams.core.model.events import RunEvent, RunEventType
from murmur_streams.core.model.states import RunState
from tests.pods.balancer import balanced, started
from tests.pods.conftest import PATIENCE_SECONDS, Pods
from tests.servers import Space

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
EVENTS = 60
BETWEEN_SECONDS = 0.1
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PAGE = """<!doctype html><script>
const seen = [];
const source = new EventSource(%(url)s);
let opened = 0;
source.onopen = () => { opened += 1; };
source.addEventListener("custom", event => seen.push([event.lastEventId, JSON.parse(event.data)]));
source.onerror = () => {
  if (source.readyState === EventSource.CLOSED)
    fetch("/seen", {method: "POST", body: JSON.stringify({opened, seen})});
};
</script>"""


class Page:
    """Serves one page, and takes what its script found."""

    def __init__(self) -> None:
        self.url = ""
        self.found: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request of the browser."""
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            body = b""
            if head.startswith("POST /seen"):
                length = next(
                    line for line in head.lower().split("\r\n") if line.startswith("content-length")
                )
                found = await reader.readexactly(int(length.split(":")[1]))
                self.found.set_result(json.loads(found))
            elif head.startswith("GET / "):
                body = (PAGE % {"url": json.dumps(self.url)}).encode()
            kind = f"Content-Type: text/html\r\nContent-Length: {len(body)}\r\n"
            writer.write(f"HTTP/1.1 200 OK\r\n{kind}Connection: close\r\n\r\n".encode() + body)
            await writer.drain()
        writer.close()


@asynccontextmanager
async def cut_again_and_again(port: int, chance: random.Random) -> AsyncGenerator[int]:
    """Pass connections on to a port, and abort each after a moment."""

    opened: set[asyncio.StreamWriter] = set()

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = await asyncio.open_connection("127.0.0.1", port)
        opened.update((there[1], writer))
        with contextlib.suppress(TimeoutError, OSError):
            async with asyncio.timeout(chance.uniform(0.2, 2)):
                await asyncio.gather(pump(reader, there[1]), pump(there[0], writer))
        for each in (there[1], writer):
            each.transport.abort()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while some := await reader.read(300):
            writer.write(some)
            await writer.drain()
        writer.write_eof()

    server = await asyncio.start_server(pass_on, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for each in opened:
            each.transport.abort()


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
async def test_an_event_source_that_is_cut_sees_each_event_once(
    space: Space, pods: Pods, tmp_path: Path
) -> None:
    """One pod is killed, one drained, and connections are cut."""
    page = Page()
    site = await asyncio.start_server(page.answer, "127.0.0.1", 0)
    origin = f"http://127.0.0.1:{site.sockets[0].getsockname()[1]}"
    begun = await pods.started(3, "--cors-origin", origin)
    killed, drained, _ = begun.values()
    async with (
        space.store() as store,
        balanced(list(begun), tmp_path) as port,
        cut_again_and_again(port, random.Random(7)) as cut,
    ):
        await store.create("run", "counts")
        page.url = f"http://127.0.0.1:{cut}/runs/run/stream"
        profile = f"--user-data-dir={tmp_path / 'profile'}"
        browser = started(tmp_path / "chromium.log", str(CHROMIUM), *FLAGS, profile, origin)
        try:
            for number in range(EVENTS):
                event = RunEvent(type=RunEventType.CUSTOM, run_id="run", name="step", data=number)
                await store.append("run", event)
                await asyncio.sleep(BETWEEN_SECONDS)
                if number == EVENTS // 3:
                    killed.kill()
                if number == EVENTS // 2:
                    drained.send_signal(signal.SIGTERM)
            await store.finish("run", RunState.COMPLETED)
            found = await asyncio.wait_for(page.found, PATIENCE_SECONDS)
        finally:
            browser.terminate()
            browser.wait()
            site.close()
            await asyncio.sleep(0)
    assert [event["data"] for _, event in found["seen"]] == list(range(EVENTS))
    assert len({cursor for cursor, _ in found["seen"]}) == EVENTS
    assert found["opened"] > 1
