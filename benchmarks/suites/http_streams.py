"""Open event streams on one pod: memory, idle cost, delivery, and memory left after closing."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import re
import sys
import time
from asyncio.subprocess import Process
from collections.abc import AsyncGenerator
from typing import cast

import psutil

from benchmarks.harness.meter import Meter
from benchmarks.harness.program import process_of
from benchmarks.harness.results import Reading
from benchmarks.harness.session import Session, Step, Subject
from benchmarks.programs.open_streams import AT_ONCE, LOOK_SECONDS, PREFIX
from benchmarks.programs.reading import latencies
from murmur_streams import RedisRunStore, RunEvent, RunEventType, RunState, new_run_id

MODULE = "benchmarks.programs.open_streams"
WARM_UP = 50
SETTLING_SECONDS = 1.0
PAUSE_SECONDS = 0.005
KIB = 1024


async def http_streams(session: Session) -> None:
    """One round: it opens and closes every stream twice."""
    steps = [Step(each.name, _PodRound(session, each).measure) for each in session.ours]
    await session.interleave("http", steps, is_once=True)


class _PodRound:
    """One pod, its readers, and the measurements."""

    def __init__(self, session: Session, subject: Subject) -> None:
        self._url = session.url
        self._sizes = session.sizes
        self._subject = subject
        self._port = 0

    async def measure(self, _is_warm_up: bool) -> list[Reading]:
        """Open the streams, each on a run of its own, and measure."""
        count = self._sizes.streams
        async with (
            RedisRunStore(self._url, key_prefix=PREFIX) as store,
            self._role("pod", self._url, str(count)) as pod,
        ):
            self._port = int(await _line(pod))
            watched = psutil.Process(pod.pid)
            run_ids = await _runs(store, count)
            async with self._readers(run_ids[:WARM_UP]) as readers:
                await _line(readers)
            await self._all_closed()
            await asyncio.sleep(SETTLING_SECONDS)
            files, before = watched.num_fds(), watched.memory_info().rss
            async with self._readers(run_ids) as readers:
                seconds = float(await _line(readers))
                await asyncio.sleep(SETTLING_SECONDS)
                after = watched.memory_info().rss
                found = await self._while_open(store, watched, readers, run_ids)
                began = time.perf_counter()
            await self._all_closed()
            closed = Reading("streams_closed", time.perf_counter() - began)
            await asyncio.sleep(SETTLING_SECONDS)
            left, left_files = watched.memory_info().rss, watched.num_fds() - files
            async with self._readers(run_ids) as readers:
                await _line(readers)
                await asyncio.sleep(SETTLING_SECONDS)
                again = watched.memory_info().rss
            await asyncio.gather(*(store.finish(each, RunState.CANCELLED) for each in run_ids))
        return [
            Reading("streams_opened", count / seconds),
            Reading("streams_kib", (after - before) / KIB / count),
            *found,
            closed,
            Reading("streams_files", left_files),
            Reading("streams_left_kib", (left - before) / KIB / count),
            Reading("streams_again_kib", (again - left) / KIB / count),
        ]

    async def _while_open(
        self, store: RedisRunStore, watched: psutil.Process, readers: Process, run_ids: list[str]
    ) -> list[Reading]:
        meter = Meter(self._url)
        began, busy = meter.mark(), _cpu_seconds(watched)
        await asyncio.sleep(self._sizes.idle_seconds)
        idle = meter.since(began, "idle", 1)
        meter.close()
        percent = 100 * (_cpu_seconds(watched) - busy) * idle.value
        count = 10 * self._sizes.deliveries
        delays = await self._deliver(store, readers, run_ids, count)
        polls = [await self._poll(random.choice(run_ids)) for _ in range(count)]
        return [
            Reading("streams_idle_cpu", percent),
            Reading("streams_idle_commands", (idle.commands or 0) * idle.value),
            *latencies("streams", delays)[:2],
            *latencies("polls", polls)[:2],
        ]

    async def _deliver(
        self, store: RedisRunStore, readers: Process, run_ids: list[str], count: int
    ) -> list[float]:
        for _ in range(count):
            await asyncio.sleep(PAUSE_SECONDS)
            run_id, kind = random.choice(run_ids), RunEventType.LOG
            event = RunEvent(type=kind, run_id=run_id, data=time.monotonic())
            await store.append(run_id, event)
        await _say(readers, f"report {count}")
        delays = cast("list[float]", json.loads(await _line(readers)))
        assert len(delays) == count
        return delays

    async def _poll(self, run_id: str) -> float:
        """How long the pod takes to answer with a run's status, in ms; connecting included."""
        began = time.perf_counter()
        answer = await self._ask(f"/runs/{run_id}/status")
        assert b" 200 " in answer[:20], answer
        return (time.perf_counter() - began) * 1000

    async def _ask(self, path: str) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: pod\r\nConnection: close\r\n\r\n".encode())
        answer = await reader.read()
        writer.close()
        return answer

    async def _all_closed(self) -> None:
        while await self._open_streams():  # noqa: ASYNC110  # the pod is another process
            await asyncio.sleep(LOOK_SECONDS)

    async def _open_streams(self) -> float:
        text = (await self._ask("/metrics")).decode()
        found = re.search(r"^murmur_open_streams (\S+)", text, re.MULTILINE)
        assert found is not None
        return float(found[1])

    @contextlib.asynccontextmanager
    async def _role(self, *arguments: str) -> AsyncGenerator[Process]:
        command = (sys.executable, "-m", MODULE, *arguments)
        folder, path = self._subject.folder, self._subject.path
        async with process_of(*command, folder=folder, path=path) as process:
            yield process

    @contextlib.asynccontextmanager
    async def _readers(self, run_ids: list[str]) -> AsyncGenerator[Process]:
        async with self._role("readers", str(self._port)) as process:
            await _say(process, " ".join(run_ids))
            yield process


async def _runs(store: RedisRunStore, count: int) -> list[str]:
    run_ids = [new_run_id() for _ in range(count)]
    for first in range(0, count, AT_ONCE):
        here = run_ids[first : first + AT_ONCE]
        await asyncio.gather(*(store.create(run_id, "bench") for run_id in here))
    return run_ids


def _cpu_seconds(watched: psutil.Process) -> float:
    times = watched.cpu_times()
    return times.user + times.system


async def _say(process: Process, line: str) -> None:
    assert process.stdin is not None
    process.stdin.write(f"{line}\n".encode())
    await process.stdin.drain()


async def _line(process: Process) -> str:
    assert process.stdout is not None
    line = await process.stdout.readline()
    if not line:
        raise RuntimeError(f"{MODULE} has ended; its error is above")
    return line.decode()
