"""Open event streams on one pod: memory, idle cost, delivery, and memory left after closing.

The pod and the readers are processes of their own: ``python -m benchmarks.http_streams pod URL
STREAMS`` and ``... readers PORT``.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import re
import resource
import statistics
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator, Coroutine
from dataclasses import dataclass
from typing import Any, cast

import psutil

from benchmarks.engine import event_of
from benchmarks.idle import others
from murmur_streams import Fleet, RedisRunStore, RunState, new_run_id
from murmur_streams.cli.supervisor.worker_process import loop_factory
from murmur_streams.server import ServerOptions, make_app
from murmur_streams.server.serving import PodServer, listen

PREFIX = "bench-http"
AT_ONCE = 100
WARM_UP = 50
SETTLING_SECONDS = 1.0
PAUSE_SECONDS = 0.005
LOOK_SECONDS = 0.02
KIB = 1024


@dataclass(frozen=True, slots=True)
class StreamSizes:
    """How much work the benchmark does."""

    streams: int
    deliveries: int
    idle_seconds: float


@dataclass(frozen=True, slots=True)
class Streams:
    """The cost of open streams for one pod."""

    streams: int
    opened_seconds: float
    kib_a_stream: float
    """Resident memory that opening them has taken."""
    idle_seconds: float
    idle_cpu_percent: float
    """Of the pod, of one core; heartbeats included."""
    commands_per_second: float
    connections: int
    """All connections to the server, this process's own included."""
    p50_ms: float
    p99_ms: float
    poll_p50_ms: float
    poll_p99_ms: float
    closed_seconds: float
    """Until the pod had closed all of them."""
    left: int
    """Open files of the pod, more than before the streams."""
    left_kib_a_stream: float
    reopened_kib_a_stream: float
    """Memory that the same streams take when opened again, beyond what the first ones left."""


async def measure_streams(url: str, admin: Any, sizes: StreamSizes) -> Streams:
    """Open the streams, each on a run of its own, and measure."""
    async with (
        RedisRunStore(url, key_prefix=PREFIX) as store,
        _role("pod", url, str(sizes.streams)) as pod,
    ):
        port = int(await _line(pod))
        watched = psutil.Process(pod.pid)
        run_ids = await _runs(store, sizes.streams)
        async with _readers(port, run_ids[:WARM_UP]) as readers:
            await _line(readers)
        await _all_closed(port)
        await asyncio.sleep(SETTLING_SECONDS)
        files, before = watched.num_fds(), watched.memory_info().rss
        async with _readers(port, run_ids) as readers:
            opened_seconds = float(await _line(readers))
            await asyncio.sleep(SETTLING_SECONDS)
            after = watched.memory_info().rss
            idle = await _idle(watched, admin, sizes.idle_seconds)
            delays = await _deliver(store, readers, run_ids, sizes.deliveries)
            polls = [await _poll(port, random.choice(run_ids)) for _ in range(sizes.deliveries)]
            began = time.perf_counter()
        await _all_closed(port)
        closed_seconds = time.perf_counter() - began
        await asyncio.sleep(SETTLING_SECONDS)
        left, left_files = watched.memory_info().rss, watched.num_fds() - files
        async with _readers(port, run_ids) as readers:
            await _line(readers)
            await asyncio.sleep(SETTLING_SECONDS)
            again = watched.memory_info().rss
        await asyncio.gather(*(store.finish(run_id, RunState.CANCELLED) for run_id in run_ids))
    return Streams(
        sizes.streams,
        opened_seconds,
        (after - before) / KIB / sizes.streams,
        sizes.idle_seconds,
        *idle,
        *_p50_and_p99(delays),
        *_p50_and_p99(polls),
        closed_seconds,
        left_files,
        (left - before) / KIB / sizes.streams,
        (again - left) / KIB / sizes.streams,
    )


def show(found: Streams) -> None:
    """Print what was found."""
    print(
        f"{found.streams:,} open streams on one pod, opened in {found.opened_seconds:.1f} s: "
        f"{found.kib_a_stream:.1f} KiB a stream\n"
        f"  idle for {found.idle_seconds:.0f} s: {found.idle_cpu_percent:.1f}% CPU of one core, "
        f"{found.commands_per_second:.1f} commands/s, {found.connections} connections\n"
        f"  append to reader: p50 {found.p50_ms:.2f} ms, p99 {found.p99_ms:.2f} ms\n"
        f"  a poll of a status meanwhile, connecting included: p50 {found.poll_p50_ms:.2f} ms, "
        f"p99 {found.poll_p99_ms:.2f} ms\n"
        f"  closed in {found.closed_seconds:.1f} s: {found.left} open files and "
        f"{found.left_kib_a_stream:+.1f} KiB a stream left; "
        f"opened again they take {found.reopened_kib_a_stream:+.1f} KiB a stream more"
    )


async def _runs(store: RedisRunStore, count: int) -> list[str]:
    run_ids = [new_run_id() for _ in range(count)]
    for first in range(0, count, AT_ONCE):
        here = run_ids[first : first + AT_ONCE]
        await asyncio.gather(*(store.create(run_id, "bench") for run_id in here))
    return run_ids


async def _idle(watched: psutil.Process, admin: Any, seconds: float) -> tuple[float, float, int]:
    busy, (sent, _) = _cpu_seconds(watched), await others(admin)
    began = time.perf_counter()
    await asyncio.sleep(seconds)
    idle = time.perf_counter() - began
    percent = 100 * (_cpu_seconds(watched) - busy) / idle
    sent_after, connections = await others(admin)
    return percent, max(0, sent_after - sent) / idle, connections


def _cpu_seconds(watched: psutil.Process) -> float:
    times = watched.cpu_times()
    return times.user + times.system


async def _deliver(
    store: RedisRunStore, readers: Process, run_ids: list[str], count: int
) -> list[float]:
    for _ in range(count):
        await asyncio.sleep(PAUSE_SECONDS)
        run_id = random.choice(run_ids)
        await store.append(run_id, event_of(run_id, time.monotonic()))
    await _say(readers, f"report {count}")
    delays = cast("list[float]", json.loads(await _line(readers)))
    assert len(delays) == count
    return delays


async def _poll(port: int, run_id: str) -> float:
    """How long the pod takes to answer with a run's status, in ms."""
    began = time.perf_counter()
    answer = await _ask(port, f"/runs/{run_id}/status")
    assert b" 200 " in answer[:20], answer
    return (time.perf_counter() - began) * 1000


def _p50_and_p99(found: list[float]) -> tuple[float, float]:
    return statistics.median(found), sorted(found)[int(len(found) * 0.99)]


async def _ask(port: int, path: str) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: pod\r\nConnection: close\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    return answer


async def _all_closed(port: int) -> None:
    while await _open_streams(port):  # noqa: ASYNC110  # the pod is another process
        await asyncio.sleep(LOOK_SECONDS)


async def _open_streams(port: int) -> float:
    text = (await _ask(port, "/metrics")).decode()
    found = re.search(r"^murmur_open_streams (\S+)", text, re.MULTILINE)
    assert found is not None
    return float(found[1])


@contextlib.asynccontextmanager
async def _role(*arguments: str) -> AsyncGenerator[Process]:
    """A process that runs this module, killed at the end of the block."""
    command = [sys.executable, "-W", "error", "-m", "benchmarks.http_streams", *arguments]
    process = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE)
    try:
        yield process
    finally:
        process.kill()
        await process.communicate()


@contextlib.asynccontextmanager
async def _readers(port: int, run_ids: list[str]) -> AsyncGenerator[Process]:
    async with _role("readers", str(port)) as process:
        await _say(process, " ".join(run_ids))
        yield process


async def _say(process: Process, line: str) -> None:
    assert process.stdin is not None
    process.stdin.write(f"{line}\n".encode())
    await process.stdin.drain()


async def _line(process: Process) -> str:
    assert process.stdout is not None
    line = await process.stdout.readline()
    assert line, "the process has ended"
    return line.decode()


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
