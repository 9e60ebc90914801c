"""One process that executes runs: its event loop, its reports, its end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import shlex
import signal
import socket
import sys
import threading
import time
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

from murmur_streams.cli.shell.command import exit_code, print_error
from murmur_streams.cli.shell.load_fleet import load_fleet
from murmur_streams.cli.shell.printing import print_json
from murmur_streams.cli.shell.session import Session
from murmur_streams.cli.supervisor.child import WorkerOptions
from murmur_streams.cli.supervisor.health import (
    WorkerHealth,
    fresh_seconds,
    serve_probes,
    touched_file,
)
from murmur_streams.core.model.errors import InvalidInputError, StoreConfigurationError
from murmur_streams.fleet import Fleet
from murmur_streams.fleet.worker import Worker
from murmur_streams.fleet.worker.process import let_go_of_children
from murmur_streams.settings import EventLoop, Settings
from murmur_streams.stores.local.memory.store import InMemoryRunStore
from murmur_streams.stores.local.rocksdb.store import RocksDBRunStore

logger = logging.getLogger("murmur_streams.processes")
_worker_logger = logging.getLogger("murmur_streams.worker")

CANCEL_SECONDS = 1.0
"""How long cancelled tasks may take to end."""
END_SECONDS = 5.0
"""How long the interpreter may take to end: it waits for ever for threads that are not daemons."""
ORPHAN_SECONDS = 30.0
"""How long a process without its supervisor may take beyond its drain."""
TICK_SECONDS = 1.0
"""How often a process reports its health to the supervisor."""


def work(session: Session, options: WorkerOptions) -> None:
    """Execute runs in this process until a signal stops it.

    Guarantee: it returns, or ends the process with the exit code that returning would have led to,
    even when agents ignore their cancellation.
    """
    reporter = None
    if options.parent is not None:
        # Before the user's code is loaded: that may take long, and the parent may end meanwhile.
        reporter = Reporter(options.parent, options.settings.drain_seconds)
    fleet = load_fleet_with_agents(options.fleet)
    run_then_end(session, options.settings, _work_until_stopped(session, fleet, options, reporter))


def load_fleet_with_agents(path: str) -> Fleet:
    """Load the fleet of ``MODULE:ATTRIBUTE``; InvalidInputError when it has no agents."""
    fleet = load_fleet(path)
    if not fleet.agents:
        raise InvalidInputError("the fleet has no agents; decorate a function with @fleet.agent")
    return fleet


def run_then_end(session: Session, settings: Settings, body: Coroutine[Any, Any, None]) -> None:
    """Await ``body``, then make sure that the process ends, whatever agents left running."""

    async def run() -> None:
        try:
            await body
        except Exception as error:
            if await _cancel_leftovers():
                print_error(session.given, error)
                _end_now(exit_code(error))
            _end_soon(exit_code(error))
            raise
        if await _cancel_leftovers():
            _end_now(0)
        _end_soon(0)

    with asyncio.Runner(loop_factory=loop_factory(settings.loop)) as runner:
        runner.run(run())


async def _cancel_leftovers() -> int:
    """Cancel every other task of this loop; returns how many did not end."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    if not others:
        return 0
    _, left = await asyncio.wait(others, timeout=CANCEL_SECONDS)
    return len(left)


def _end_soon(code: int) -> None:
    """End the process by force if it has not ended by itself within END_SECONDS."""

    def last_resort() -> None:
        time.sleep(END_SECONDS)
        _worker_logger.warning("threads of agents hold the process up; it ends without them")
        _end_now(code)

    threading.Thread(target=last_resort, name="last resort", daemon=True).start()


def _end_now(code: int) -> None:
    """Flush logs and output, and end without waiting for tasks or threads."""
    logging.shutdown()
    with contextlib.suppress(Exception):
        sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


async def _work_until_stopped(
    session: Session, fleet: Fleet, options: WorkerOptions, reporter: Reporter | None
) -> None:
    health = WorkerHealth(fresh_seconds(options.settings.lease_seconds))
    async with (
        fleet,
        _reported(health, options, reporter),
        serve_probes(options.settings, health) as address,
    ):
        worker = Worker(
            fleet,
            concurrency=options.settings.concurrency,
            lease_seconds=options.settings.lease_seconds,
            drain_seconds=options.settings.drain_seconds,
            targets=options.targets,
            worker_id=options.worker_id,
            on_beat=health.beat,
        )
        health.worker = worker.worker_id
        health.targets = tuple(sorted(options.targets or fleet.agents))

        def stop() -> None:
            health.set_draining()
            worker.stop()

        call_on_signals(stop)
        if session.as_json:
            started = {"worker": worker.worker_id, "name": worker.name, "pid": os.getpid()}
            started |= {"targets": health.targets}
            print_json(started | ({"health": address} if address else {}))
        store = await fleet.store()
        health.warnings = lambda: store.warnings
        health.rewinds = lambda: store.rewinds
        health.refusal = lambda: worker.refusal
        if isinstance(store, InMemoryRunStore):
            raise StoreConfigurationError(
                "this fleet's runs are in the memory of its process, and no other process can "
                "submit to this worker: run a Worker in the program that submits, or give the "
                "fleet another store, such as sqlite:runs.db"
            )
        if reporter is None and isinstance(store, RocksDBRunStore):
            # By the fleet's own store: the user's code may name another one than the options do.
            warn_one_process_only(options.fleet, f"rocksdb:{quote(store.where)}")
        await worker.run()
    if session.as_json:
        print_json({"worker": worker.worker_id, "stopped": True})


@asynccontextmanager
async def _reported(
    health: WorkerHealth, options: WorkerOptions, reporter: Reporter | None
) -> AsyncGenerator[None]:
    """Report the health while the block runs: to the supervisor, or by a file."""
    if reporter is None:
        with touched_file(options.settings.health_file) as touch:
            health.changed = lambda health: touch() if health.is_ready else None
            yield
        return
    health.changed = reporter.send
    ticking = asyncio.create_task(_tick(health, reporter))
    try:
        yield
    finally:
        ticking.cancel()


async def _tick(health: WorkerHealth, reporter: Reporter) -> None:
    while True:
        reporter.send(health)
        await asyncio.sleep(TICK_SECONDS)


class Reporter:
    """The child's side of the socket to its supervisor.

    It sends the health as lines of JSON; the parent never writes. When the parent ends, in whatever
    way, the kernel closes its side, and this process reads the end: it is an orphan and stops.

    Args:
        descriptor: of the socket, as the parent passed it.
        drain_seconds: how long this worker drains.
    """

    def __init__(self, descriptor: int, drain_seconds: float) -> None:
        os.set_inheritable(descriptor, False)
        self._socket = socket.socket(fileno=descriptor)
        self._longest_seconds = drain_seconds + ORPHAN_SECONDS
        threading.Thread(target=self._stop_when_orphaned, name="parent", daemon=True).start()

    def send(self, health: WorkerHealth) -> None:
        """Report to the parent; the report is dropped while the parent does not read."""
        line = {**health.as_json(), "status": str(health.status), "beats": health.beats}
        line |= {"warned_of": sorted(health.warned_of)}
        with contextlib.suppress(OSError):
            self._socket.send(json.dumps(line).encode() + b"\n", socket.MSG_DONTWAIT)

    def _stop_when_orphaned(self) -> None:
        with contextlib.suppress(OSError):
            while self._socket.recv(1):
                pass
        # SIGTERM drains the worker; before its handler is installed, it ends the process.
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(self._longest_seconds)
        os._exit(1)


def loop_factory(choice: str) -> Callable[[], asyncio.AbstractEventLoop] | None:
    """The factory of the event loop; None means asyncio's own.

    Raises:
        StoreConfigurationError: ``uvloop`` was chosen and is not installed.
    """
    if choice == EventLoop.ASYNCIO:
        return None
    try:
        import uvloop
    except ModuleNotFoundError:
        if choice == EventLoop.AUTO:
            return None
        raise StoreConfigurationError(
            "--loop uvloop needs uvloop: pip install 'murmur-streams[uvloop]'"
        ) from None
    return uvloop.new_event_loop


def call_on_signals(stop: Callable[[], None]) -> None:
    """Call ``stop`` at each SIGTERM and SIGINT from now on."""
    let_go_of_children()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        # An event loop on Windows has none: there, Ctrl-C ends the process at once.
        with contextlib.suppress(NotImplementedError):
            loop.add_signal_handler(number, stop)


def one_process_hint(fleet: str, url: str) -> str:
    """How other processes reach the runs in a RocksDB folder, which only one process can open."""
    command = ["murmur-streams", "serve", fleet, "--with-worker", "--url", url]
    return (
        "a RocksDB folder is for one process, and others reach it only over HTTP: "
        f"{shlex.join(command)}"
    )


def warn_one_process_only(fleet: str, url: str) -> None:
    """Log that no other process can submit to this worker."""
    logger.warning("no other process can submit to this worker: %s", one_process_hint(fleet, url))
