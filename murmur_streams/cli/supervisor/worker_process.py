"""One process that executes runs."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shlex
import signal
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from urllib.parse import quote

from murmur_streams.cli.shell.command import exit_code, print_error
from murmur_streams.cli.shell.load_fleet import load_fleet
from murmur_streams.cli.shell.printing import print_json
from murmur_streams.cli.shell.session import Session
from murmur_streams.cli.supervisor.child_pipe import TICK_SECONDS, Reporter
from murmur_streams.cli.supervisor.event_loop import loop_factory
from murmur_streams.cli.supervisor.health import Health, HealthFile, fresh_seconds
from murmur_streams.cli.supervisor.options import WorkerOptions
from murmur_streams.cli.supervisor.probes import serve_probes
from murmur_streams.cli.supervisor.shutdown import cancel_leftovers, end_now, end_soon
from murmur_streams.core.model.errors import InvalidInputError, StoreConfigurationError
from murmur_streams.fleet import Fleet
from murmur_streams.fleet.worker import Worker
from murmur_streams.fleet.worker.process import let_go_of_children
from murmur_streams.stores.local.memory.store import InMemoryRunStore
from murmur_streams.stores.local.rocksdb.store import RocksDBRunStore

logger = logging.getLogger("murmur_streams.processes")


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
    with asyncio.Runner(loop_factory=loop_factory(options.settings.loop)) as runner:
        runner.run(run_then_end(session, _work_until_stopped(session, fleet, options, reporter)))


def load_fleet_with_agents(path: str) -> Fleet:
    """Load the fleet of ``MODULE:ATTRIBUTE``; InvalidInputError when it has no agents."""
    fleet = load_fleet(path)
    if not fleet.agents:
        raise InvalidInputError("the fleet has no agents; decorate a function with @fleet.agent")
    return fleet


async def run_then_end(session: Session, body: Awaitable[None]) -> None:
    """Await ``body``, then make sure that the process ends, whatever agents left running."""
    try:
        await body
    except Exception as error:
        if await cancel_leftovers():
            print_error(session.given, error)
            end_now(exit_code(error))
        end_soon(exit_code(error))
        raise
    if await cancel_leftovers():
        end_now(0)
    end_soon(0)


async def _work_until_stopped(
    session: Session, fleet: Fleet, options: WorkerOptions, reporter: Reporter | None
) -> None:
    health = Health(fresh_seconds(options.settings.lease_seconds))
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
        health.warning = lambda: store.warning
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
    health: Health, options: WorkerOptions, reporter: Reporter | None
) -> AsyncGenerator[None]:
    """Report the health while the block runs: to the supervisor, or by a file."""
    if reporter is not None:
        health.changed = reporter.send
        ticking = asyncio.create_task(_tick(health, reporter))
        try:
            yield
        finally:
            ticking.cancel()
    elif options.settings.health_file is not None:
        file = HealthFile(options.settings.health_file)
        health.changed = lambda health: file.touch() if health.is_ready else None
        try:
            yield
        finally:
            health.changed = lambda _: None
            file.remove()
    else:
        yield


async def _tick(health: Health, reporter: Reporter) -> None:
    while True:
        reporter.send(health)
        await asyncio.sleep(TICK_SECONDS)


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
