"""A pod, and the readers of its event streams, each a process of its own.

``python -m benchmarks.programs.open_streams pod URL STREAMS``, or ``... readers PORT``.
"""

from __future__ import annotations

import asyncio
import json
import re
import resource
import sys
import time
from collections.abc import Coroutine
from typing import Any, cast

from murmur_streams import Fleet
from murmur_streams.cli.supervisor.worker_process import loop_factory
from murmur_streams.server import ServerOptions, make_app
from murmur_streams.server.serving import PodServer, listen

PREFIX = "bench-http"
AT_ONCE = 100
LOOK_SECONDS = 0.02


async def _pod(url: str, streams: int) -> None:
    fleet = Fleet(url, key_prefix=PREFIX)
    limits = ServerOptions(max_streams=streams + 1, max_streams_per_caller=streams + 1)
    app = make_app(fleet, limits)
    sockets = listen("127.0.0.1", 0)
    print(sockets[0].getsockname()[1], flush=True)
    await PodServer(app, app.state.pod).serve(sockets=sockets)


class _Reader(asyncio.Protocol):
    """One event stream; it records only how late its events arrived."""

    def __init__(self, run_id: str, delays: list[float]) -> None:
        self._run_id = run_id
        self._delays = delays
        self.has_begun = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        path = f"/runs/{self._run_id}/stream"
        head = f"GET {path} HTTP/1.1\r\nHost: pod\r\nAccept: text/event-stream\r\n\r\n"
        cast("asyncio.Transport", transport).write(head.encode())

    def data_received(self, data: bytes) -> None:
        now = time.monotonic()
        if b"retry: " in data:
            self.has_begun.set()
        for sent_at in re.findall(rb'"data":([0-9.]+)', data):
            self._delays.append((now - float(sent_at)) * 1000)


async def _read(port: int) -> None:
    loop, delays = asyncio.get_running_loop(), list[float]()
    run_ids = (await asyncio.to_thread(sys.stdin.readline)).split()
    began, room = time.perf_counter(), asyncio.Semaphore(AT_ONCE)

    async def begin(run_id: str) -> None:
        async with room:
            reader = _Reader(run_id, delays)
            await loop.create_connection(lambda: reader, "127.0.0.1", port)
            await reader.has_begun.wait()

    await asyncio.gather(*(begin(run_id) for run_id in run_ids))
    print(time.perf_counter() - began, flush=True)
    while command := (await asyncio.to_thread(sys.stdin.readline)).split():
        while len(delays) < int(command[1]):  # noqa: ASYNC110  # each connection adds to it
            await asyncio.sleep(LOOK_SECONDS)
        print(json.dumps(delays), flush=True)


def _work(role: str, *arguments: str) -> Coroutine[Any, Any, None]:
    if role == "pod":
        return _pod(arguments[0], int(arguments[1]))
    return _read(int(arguments[0]))


def main() -> None:
    """Be the pod, or the readers."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with asyncio.Runner(loop_factory=loop_factory("auto")) as runner:
        runner.run(_work(*sys.argv[1:]))


if __name__ == "__main__":
    main()
