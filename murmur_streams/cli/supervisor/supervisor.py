"""The supervisor of worker processes: starts them, passes signals on, replaces those that die."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from murmur_streams.cli.shell.command import FAILED
from murmur_streams.cli.shell.printing import print_json
from murmur_streams.cli.shell.session import Session
from murmur_streams.cli.supervisor.child import STOPPED_CODES, Child, WorkerOptions, describe_exit
from murmur_streams.cli.supervisor.health import (
    SupervisorHealth,
    fresh_seconds,
    serve_probes,
    touched_file,
)
from murmur_streams.core.model.errors import InvalidInputError, StoreConfigurationError

logger = logging.getLogger("murmur_streams.processes")

FIRST_PAUSE_SECONDS = 0.5
MOST_PAUSE_SECONDS = 30.0
STEADY_SECONDS = 60.0
"""A process that worked for so long starts the pauses anew: it did not die at its start."""
GRACE_SECONDS = 30.0
"""How long a process may take to end beyond its drain; then it is killed."""


def supervise(
    session: Session,
    options: WorkerOptions,
    on_first_ready: Callable[[Child], None] = lambda _: None,
) -> int:
    """Keep worker processes running until a signal stops them; returns the exit code.

    Args:
        session: of the command.
        options: of the workers.
        on_first_ready: called when the first of them works.
    """
    if os.name == "nt":
        raise InvalidInputError("--processes and --reload need Linux or macOS")
    return asyncio.run(_supervise(session, options, on_first_ready))


async def _supervise(
    session: Session, options: WorkerOptions, on_first_ready: Callable[[Child], None]
) -> int:
    settings = options.settings
    extra = ["--json"] if session.as_json else []
    extra += ["--debug"] if session.given.debug else []
    with touched_file(settings.health_file) as touch:
        health = SupervisorHealth(
            settings.processes, fresh_seconds(settings.lease_seconds), on_beat=touch
        )
        supervisor = Supervisor(options, extra, health, on_first_ready)
        async with serve_probes(settings, health) as address:
            if session.as_json:
                started = {"parent": os.getpid(), "processes": settings.processes}
                print_json(started | ({"health": address} if address else {}))
            code = await (_run_reloading(supervisor) if options.reload else supervisor.run())
    if session.as_json:
        print_json({"parent": os.getpid(), "stopped": True})
    return code


async def _run_reloading(supervisor: Supervisor) -> int:
    watching = asyncio.create_task(_restart_on_change(supervisor))
    running = asyncio.create_task(supervisor.run())
    try:
        await asyncio.wait([watching, running], return_when=asyncio.FIRST_COMPLETED)
        if not running.done():
            watching.result()
        return await running
    finally:
        watching.cancel()
        running.cancel()
        await asyncio.gather(watching, running, return_exceptions=True)


async def _restart_on_change(supervisor: Supervisor) -> None:
    """Restart the processes at each change of a Python file under the current folder.

    Raises:
        StoreConfigurationError: watchfiles is not installed.
    """
    try:
        from watchfiles import (
            PythonFilter,
            awatch,  # pyright: ignore[reportUnknownVariableType]  # it names a type of trio
        )
    except ModuleNotFoundError:
        raise StoreConfigurationError(
            "--reload needs watchfiles: pip install 'murmur-streams[cli]'"
        ) from None
    folder = Path.cwd()
    watching = awatch(
        folder, watch_filter=PythonFilter(), debounce=200, ignore_permission_denied=True
    )
    async for changes in watching:
        names = sorted({_relative(path, folder) for _, path in changes})
        logger.warning("%s changed; the worker is started again", ", ".join(names[:3]))
        supervisor.restart()


def _relative(path: str, folder: Path) -> str:
    return os.path.relpath(path, folder)


@dataclass
class Supervisor:
    """Keeps the worker processes of one command running until a signal stops them.

    Guarantee: no process outlives ``run``. One that dies is replaced, after a pause that doubles.
    When a process ends before any process has ever worked, the user's code or settings are wrong,
    and the supervisor ends all of them instead of trying again.
    """

    options: WorkerOptions
    extra: list[str]
    """Further arguments for each process, such as ``--json``."""
    health: SupervisorHealth
    """Receives what the processes report."""
    on_first_ready: Callable[[Child], None]
    _works: asyncio.Event = field(default_factory=asyncio.Event)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _stopping: asyncio.Event = field(default_factory=asyncio.Event)
    _code: int = 0

    def stop(self) -> None:
        """First call: all drain. Second: they hand their runs back. Third: they are killed."""
        self._stopping.set()
        self.health.set_draining()
        for child in self.health.children.values():
            child.request_stop()

    def restart(self) -> None:
        """Drain every process, and start a new one after each."""
        self._changed.set()
        self._changed = asyncio.Event()
        for child in self.health.children.values():
            if not child.stop_requested.is_set():
                child.request_stop()

    async def run(self) -> int:
        """Keep the processes running until ``stop``; returns the exit code."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        first, *others = range(1, self.options.settings.processes + 1)
        tasks = [asyncio.create_task(self._keep_running(first))]
        try:
            # One process first: a mistake in the user's code is logged once, not by every process.
            await _first_of(self._works, self._stopping)
            if not self._stopping.is_set():
                tasks += [asyncio.create_task(self._keep_running(number)) for number in others]
            await asyncio.gather(*tasks)
        finally:
            for child in self.health.children.values():
                child.send(signal.SIGKILL)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return self._code

    async def _keep_running(self, number: int) -> None:
        pause = FIRST_PAUSE_SECONDS
        while not self._stopping.is_set():
            changed, began_at = self._changed, time.monotonic()
            child, code = await self._run_child(number, changed)
            if self._stopping.is_set() or changed.is_set():
                continue
            is_start_failure = self.options.reload or not self._works.is_set()
            if not child.was_ready and code > 0 and is_start_failure:
                await self._handle_start_failure(code, changed)
                continue
            if time.monotonic() - began_at > STEADY_SECONDS:
                pause = FIRST_PAUSE_SECONDS
            logger.warning(
                "worker process %d (pid %d) %s; another is started in %g s",
                *(number, child.pid, describe_exit(code), pause),
            )
            await _first_of(self._stopping, changed, seconds=pause)
            pause = min(2 * pause, MOST_PAUSE_SECONDS)

    async def _handle_start_failure(self, code: int, changed: asyncio.Event) -> None:
        """A mistake in the user's code or settings: another try would end the same."""
        if not self.options.reload:
            self._code = code
            self.stop()
            return
        logger.warning("the worker %s; it is started again after a change", describe_exit(code))
        await _first_of(self._stopping, changed)

    async def _run_child(self, number: int, changed: asyncio.Event) -> tuple[Child, int]:
        """Run one process from its start to its end."""
        child = await Child.start(number, self.options, self.extra, self._on_report)
        self.health.children[number] = child
        # The start is awaited. A stop or a change during it went to the children of that moment,
        # and this one was not among them: without this line it would run on, or run old code.
        if self._stopping.is_set() or changed.is_set():
            child.request_stop()
        try:
            code = await self._wait_for_end(child)
        finally:
            del self.health.children[number]
        if child.stop_requested.is_set() and code not in STOPPED_CODES:
            logger.warning("worker process %d (pid %d) %s", number, child.pid, describe_exit(code))
            self._code = FAILED
        return child, code

    async def _wait_for_end(self, child: Child) -> int:
        ended = asyncio.create_task(child.ended())
        stopping = asyncio.create_task(child.stop_requested.wait())
        try:
            await asyncio.wait([ended, stopping], return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait([ended], timeout=self.options.settings.drain_seconds + GRACE_SECONDS)
            if not ended.done():
                logger.warning("worker process %d does not end; it is killed", child.number)
        finally:
            stopping.cancel()
            child.send(signal.SIGKILL)
        return await ended

    def _on_report(self, child: Child) -> None:
        self.health.on_report(child)
        if child.was_ready and not self._works.is_set():
            self._works.set()
            self.on_first_ready(child)


async def _first_of(*events: asyncio.Event, seconds: float | None = None) -> None:
    tasks = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
