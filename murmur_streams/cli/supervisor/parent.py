"""The parent of worker processes: starts them, passes signals on, replaces those that die."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Callable

from murmur_streams.cli.supervisor.child import STOPPED_CODES, Child, how_it_ended
from murmur_streams.cli.supervisor.options import Options
from murmur_streams.cli.supervisor.supervisor_health import CrewHealth

logger = logging.getLogger("murmur_streams.processes")

FIRST_PAUSE_SECONDS = 0.5
MOST_PAUSE_SECONDS = 30.0
STEADY_SECONDS = 60.0
"""A process that has worked for so long is no part of a series of deaths."""
GRACE_SECONDS = 30.0
"""How long a process may take to end beyond its drain; then it is killed."""
FAILED = 1


class Parent:
    """Keeps the worker processes of one command until it is told to stop.

    Guarantee: no process outlives ``run``. One that dies is replaced, after a pause that doubles.
    When no process has ever worked, the end of one is a mistake of the user's and ends all.

    Args:
        options: of the workers; how many, and whether they follow changes of the code.
        more: what else each process is told, such as ``--json``.
        health: learns of what the processes report.
        began: called when the first process works.
    """

    def __init__(
        self,
        options: Options,
        more: list[str],
        health: CrewHealth,
        began: Callable[[Child], None] = lambda _: None,
    ) -> None:
        self._options = options
        self._more = more
        self._health = health
        self._began = began
        self._children: dict[int, Child] = {}
        self._works = asyncio.Event()
        self._changed = asyncio.Event()
        self._stopping = asyncio.Event()
        self._code = 0

    def stop(self) -> None:
        """Tell all to drain; again: to hand their runs back; again: they are killed."""
        self._stopping.set()
        self._health.drains()
        for child in self._children.values():
            child.tell_to_stop()

    def restart(self) -> None:
        """Tell all to drain, and start new ones in their places."""
        self._changed.set()
        self._changed = asyncio.Event()
        for child in self._children.values():
            if not child.told.is_set():
                child.tell_to_stop()

    async def run(self) -> int:
        """Keep them until told to stop; the exit code."""
        _on_signals(self.stop)
        first, *others = range(1, self._options.processes + 1)
        keeping = [asyncio.create_task(self._keep(first))]
        try:
            # A mistake in the user's code is told once, and not by every process.
            await _first_of(self._works, self._stopping)
            if not self._stopping.is_set():
                keeping += [asyncio.create_task(self._keep(number)) for number in others]
            await asyncio.gather(*keeping)
        finally:
            for child in self._children.values():
                child.send(signal.SIGKILL)
            for task in keeping:
                task.cancel()
            await asyncio.gather(*keeping, return_exceptions=True)
        return self._code

    async def _keep(self, number: int) -> None:
        pause = FIRST_PAUSE_SECONDS
        while not self._stopping.is_set():
            changed, began_at = self._changed, time.monotonic()
            child, code = await self._live(number, changed)
            if self._stopping.is_set() or changed.is_set():
                continue
            begins_no_more = self._options.reload or not self._works.is_set()
            if not child.was_ready and code > 0 and begins_no_more:
                await self._failed_to_begin(code, changed)
                continue
            if time.monotonic() - began_at > STEADY_SECONDS:
                pause = FIRST_PAUSE_SECONDS
            logger.warning(
                "worker process %d (pid %d) %s; another is started in %g s",
                *(number, child.pid, how_it_ended(code), pause),
            )
            await _first_of(self._stopping, changed, seconds=pause)
            pause = min(2 * pause, MOST_PAUSE_SECONDS)

    async def _failed_to_begin(self, code: int, changed: asyncio.Event) -> None:
        """A mistake in the user's code or settings: another try would end the same."""
        if not self._options.reload:
            self._code = code
            self.stop()
            return
        logger.warning("the worker %s; it is started again after a change", how_it_ended(code))
        await _first_of(self._stopping, changed)

    async def _live(self, number: int, changed: asyncio.Event) -> tuple[Child, int]:
        """One process from its start to its end."""
        child = await Child.start(number, self._options, self._more, self._heard)
        self._children[number] = child
        self._health.watch(child)
        if self._stopping.is_set() or changed.is_set():
            child.tell_to_stop()
        try:
            code = await self._end_of(child)
        finally:
            del self._children[number]
            self._health.forget(child)
        if child.told.is_set() and code not in STOPPED_CODES:
            logger.warning("worker process %d (pid %d) %s", number, child.pid, how_it_ended(code))
            self._code = FAILED
        return child, code

    async def _end_of(self, child: Child) -> int:
        ended = asyncio.create_task(child.ended())
        told = asyncio.create_task(child.told.wait())
        try:
            await asyncio.wait([ended, told], return_when=asyncio.FIRST_COMPLETED)
            longest = self._options.drain_seconds + GRACE_SECONDS
            await asyncio.wait([ended], timeout=longest)
            if not ended.done():
                logger.warning("worker process %d does not end; it is killed", child.number)
        finally:
            told.cancel()
            child.send(signal.SIGKILL)
        return await ended

    def _heard(self, child: Child) -> None:
        self._health.hear(child)
        if child.was_ready and not self._works.is_set():
            self._works.set()
            self._began(child)


def _on_signals(stop: Callable[[], None]) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)


async def _first_of(*events: asyncio.Event, seconds: float | None = None) -> None:
    tasks = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
