"""One process that works."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from urllib.parse import quote

from murmur_streams.cli.shell.command import exit_code, tell_error
from murmur_streams.cli.shell.loading import load_fleet
from murmur_streams.cli.shell.printing import print_json
from murmur_streams.cli.shell.session import Session
from murmur_streams.cli.supervisor.alone import warn_alone
from murmur_streams.cli.supervisor.child_pipe import TICK_SECONDS, Reporter
from murmur_streams.cli.supervisor.event_loop import Loop, loop_factory
from murmur_streams.cli.supervisor.health import Health, HealthFile, fresh_seconds
from murmur_streams.cli.supervisor.options import Options
from murmur_streams.cli.supervisor.probes import serve_probes
from murmur_streams.cli.supervisor.shutdown import cancel_leftovers, end_now, end_soon
from murmur_streams.core.model.errors import InvalidInputError, StoreConfigurationError
from murmur_streams.fleet import Fleet
from murmur_streams.fleet.worker import Worker
from murmur_streams.fleet.worker.forks import let_go_of_children
from murmur_streams.stores.local.memory.store import InMemoryRunStore
from murmur_streams.stores.local.rocksdb.store import RocksDBRunStore


def work(session: Session, options: Options) -> None:
    """Execute runs in this process until told to stop.

    Guarantee: it returns, or ends the process with the code that returning would have led to,
    whatever its agents made of their cancellation.
    """
    reporter = None
    if options.parent is not None:
        # First of all: loading the user's code may take long enough to become an orphan.
        reporter = Reporter(options.parent, options.drain_seconds)
    fleet = load_fleet(options.fleet)
    if not fleet.agents:
        raise InvalidInputError("the fleet has no agents; decorate a function with @fleet.agent")
    with asyncio.Runner(loop_factory=loop_factory(Loop(options.loop))) as runner:
        runner.run(to_the_end(session, _until_stopped(session, fleet, options, reporter)))


async def to_the_end(session: Session, body: Awaitable[None]) -> None:
    """Await what a process is for, then have the process end, whatever agents left running."""
    try:
        await body
    except Exception as error:
        if await cancel_leftovers():
            tell_error(session.given, error)
            end_now(exit_code(error))
        end_soon(exit_code(error))
        raise
    if await cancel_leftovers():
        end_now(0)
    end_soon(0)


async def _until_stopped(
    session: Session, fleet: Fleet, options: Options, reporter: Reporter | None
) -> None:
    health = Health(fresh_seconds(options.lease_seconds))
    async with (
        fleet,
        _told(health, options, reporter),
        serve_probes(options.probes, health) as address,
    ):
        worker = Worker(
            fleet,
            concurrency=options.concurrency,
            lease_seconds=options.lease_seconds,
            drain_seconds=options.drain_seconds,
            targets=options.targets,
            worker_id=options.worker_id,
            on_beat=health.beat,
        )
        health.worker = worker.worker_id
        health.targets = tuple(sorted(options.targets or fleet.agents))

        def stop() -> None:
            health.drains()
            worker.stop()

        call_on_signals(stop)
        if session.as_json:
            told = {"worker": worker.worker_id, "name": worker.name, "pid": os.getpid()}
            told |= {"targets": health.targets}
            print_json(told | ({"health": address} if address else {}))
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
            # The fleet's own store: its code may name another one than the options do.
            warn_alone(options.fleet, f"rocksdb:{quote(store.where)}")
        await worker.run()
    if session.as_json:
        print_json({"worker": worker.worker_id, "stopped": True})


@asynccontextmanager
async def _told(
    health: Health, options: Options, reporter: Reporter | None
) -> AsyncGenerator[None]:
    """Tell who wants to know how the worker is: a file, the parent."""
    if reporter is not None:
        health.changed = reporter.send
        ticking = asyncio.create_task(_tick(health, reporter))
        try:
            yield
        finally:
            ticking.cancel()
    elif options.probes.file is not None:
        file = HealthFile(options.probes.file)
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
    """Call it at each SIGTERM and SIGINT from now on."""
    let_go_of_children()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        # An event loop on Windows has none: there, Ctrl-C ends the process at once.
        with contextlib.suppress(NotImplementedError):
            loop.add_signal_handler(number, stop)
