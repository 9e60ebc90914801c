"""``murmur-streams worker app:fleet``."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from dataclasses import dataclass
from typing import Annotated

import typer

from murmur_streams.cli.command import command
from murmur_streams.cli.loading import load_fleet
from murmur_streams.cli.printing import print_json
from murmur_streams.cli.session import Session
from murmur_streams.core.errors import InvalidInputError
from murmur_streams.fleet import Fleet
from murmur_streams.fleet.worker import Worker

FleetPath = Annotated[
    str, typer.Argument(metavar="MODULE:FLEET", help="Where the fleet is, such as app:fleet.")
]
Concurrency = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=10_000,
        help="Runs at the same time. Default: MURMUR_CONCURRENCY.",
        show_default=False,
    ),
]
LeaseSeconds = Annotated[
    float | None,
    typer.Option(
        min=1,
        max=3600,
        help="Silent for so long, it loses its runs to others. Default: MURMUR_LEASE_SECONDS.",
    ),
]
DrainSeconds = Annotated[
    float | None,
    typer.Option(
        min=0,
        max=86_400,
        help="How long it waits for its runs when told to stop. Default: MURMUR_DRAIN_SECONDS.",
    ),
]
Targets = Annotated[
    list[str] | None,
    typer.Option(
        "--targets", metavar="NAME,...", help="Only runs of these agents; repeatable. Default: all."
    ),
]
WorkerId = Annotated[
    str | None,
    typer.Option("--id", metavar="ID", help="The worker's name. Default: a random one."),
]


@dataclass(frozen=True, slots=True)
class Options:
    """What a worker is started with."""

    concurrency: int
    lease_seconds: float
    drain_seconds: float
    targets: tuple[str, ...] | None
    worker_id: str | None


def register(app: typer.Typer) -> None:
    """Add the command."""

    @command(
        app,
        "worker",
        examples=(
            "murmur-streams worker app:fleet",
            "murmur-streams worker app:fleet --concurrency 50 --targets researcher,writer",
            "murmur-streams worker app:fleet --url redis://redis.internal:6379/0",
        ),
    )
    def worker(
        session: Session,
        fleet: FleetPath,
        concurrency: Concurrency = None,
        lease_seconds: LeaseSeconds = None,
        drain_seconds: DrainSeconds = None,
        targets: Targets = None,
        id: WorkerId = None,  # noqa: A002  # the option's name
    ) -> None:
        """Execute the runs of a fleet's agents until told to stop.

        Ctrl-C or SIGTERM drains: no new runs, and those under way may end. A second one hands
        them back at once; other workers take them over. --url and --prefix are for fleets that
        name none in their code.
        """
        settings = session.settings
        # The user's module reads its settings from the environment, and it is not imported yet.
        os.environ.update(session.to_environment())
        begin_logging(settings.log_level)
        options = Options(
            concurrency=concurrency or settings.concurrency,
            lease_seconds=settings.lease_seconds if lease_seconds is None else lease_seconds,
            drain_seconds=settings.drain_seconds if drain_seconds is None else drain_seconds,
            targets=_names(targets),
            worker_id=id,
        )
        asyncio.run(_work(session, load_fleet(fleet), options))


def begin_logging(level: str) -> None:
    """Log to stderr, from ``level`` up."""
    logging.basicConfig(
        level=logging.WARNING, format="%(asctime)s %(levelname)-7s %(name)s: %(message)s"
    )
    logging.getLogger("murmur_streams").setLevel(level.upper())


def _names(given: list[str] | None) -> tuple[str, ...] | None:
    if not given:
        return None
    return tuple(name for words in given for name in words.split(",") if name)


async def _work(session: Session, fleet: Fleet, options: Options) -> None:
    if not fleet.agents:
        raise InvalidInputError("the fleet has no agents; decorate a function with @fleet.agent")
    async with fleet:
        worker = Worker(
            fleet,
            concurrency=options.concurrency,
            lease_seconds=options.lease_seconds,
            drain_seconds=options.drain_seconds,
            targets=options.targets,
            worker_id=options.worker_id,
        )
        _stop_on_signals(worker)
        names = sorted(options.targets or fleet.agents)
        if session.as_json:
            print_json({"worker": worker.worker_id, "pid": os.getpid(), "targets": names})
        await worker.run()
    if session.as_json:
        print_json({"worker": worker.worker_id, "stopped": True})


def _stop_on_signals(worker: Worker) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        # An event loop on Windows has none: there, Ctrl-C ends the worker at once.
        with contextlib.suppress(NotImplementedError):
            loop.add_signal_handler(number, worker.stop)
