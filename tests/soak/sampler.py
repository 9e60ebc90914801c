"""Measures the memory of every process of ours, and of the server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any, cast

import psutil
from redis.exceptions import RedisError

from murmur_streams.core.model.errors import EmbeddedServerError
from tests.chaos.world import World, admin_of
from tests.soak.memory import KEYS, RESIDENT, USED, Measure, Series

MIB = 1024 * 1024
SERVER_SECONDS = 5.0


class Sampler:
    """Measures, time and again.

    Args:
        processes: the number of each process by name, or None while it does not run.
        world: the servers.
    """

    def __init__(self, processes: Mapping[str, Callable[[], int | None]], world: World) -> None:
        self._processes = processes
        self._world = world
        self._began = time.monotonic()
        self._series: dict[tuple[str, int], Series] = {}

    @property
    def series(self) -> list[Series]:
        """One for each process since its start, and two for the server."""
        return [*self._series.values()]

    def newest(self, name: str) -> float:
        """The last measurement of a process, of "server" or of "keys"; 0.0 without one."""
        found = [each.points[-1] for each in self.series if each.name == name]
        return max(found, default=(0.0, 0.0))[1]

    async def sample(self) -> None:
        """Measure once. A server that does not answer is left out."""
        for name, number_of in self._processes.items():
            number = number_of()
            resident = 0 if number is None else _resident_bytes(number)
            if number is not None and resident:
                self._add(name, number, RESIDENT, resident / MIB)
        try:
            async with asyncio.timeout(SERVER_SECONDS):
                used, keys = await self._ask_server()
        except (RedisError, OSError, EmbeddedServerError):
            return
        # One series across restarts: what the server holds is read again from its disk.
        self._add("server", 0, USED, used / MIB)
        self._add("keys", 0, KEYS, keys)

    async def _ask_server(self) -> tuple[int, int]:
        used = keys = 0
        for port in await asyncio.to_thread(self._world.primaries):
            async with admin_of(port) as client:
                used += int((await cast("Any", client).info("memory"))["used_memory"])
                keys += int(await cast("Any", client).dbsize())
        return used, keys

    def _add(self, name: str, number: int, measure: Measure, value: float) -> None:
        series = self._series.setdefault((name, number), Series(name, measure))
        series.points.append((time.monotonic() - self._began, value))


def _resident_bytes(number: int) -> int:
    """Of a process and its children; 0 when it has ended."""
    try:
        process = psutil.Process(number)
        found = [process, *process.children(recursive=True)] if number != _OWN else [process]
        return sum(each.memory_info().rss for each in found)
    except psutil.Error:
        return 0


_OWN = psutil.Process().pid
"""The children of this process are the others."""
