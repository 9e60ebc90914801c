"""``murmur-streams worker app:fleet``."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Annotated

import typer

from murmur_streams.cli.shell.command import command
from murmur_streams.cli.shell.session import Session
from murmur_streams.cli.supervisor.alone import warn_alone
from murmur_streams.cli.supervisor.event_loop import Loop
from murmur_streams.cli.supervisor.options import Options, Probes
from murmur_streams.cli.supervisor.supervisor import keep_processes
from murmur_streams.cli.supervisor.working import work
from murmur_streams.core.model.errors import StoreConfigurationError
from murmur_streams.fleet.logs import RunLogFilter, loggable
from murmur_streams.fleet.stores import kind_on_disk
from murmur_streams.settings import Settings
from murmur_streams.stores.redis.connection.connections import redacted

logger = logging.getLogger("murmur_streams.cli")

MOST_PROCESSES = 256
PROCESSES = "Processes"
PROBES = "Probes"

FleetPath = Annotated[
    str, typer.Argument(metavar="MODULE:FLEET", help="Where the fleet is, such as app:fleet.")
]
Concurrency = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=10_000,
        help="Runs at the same time, in each process. Default: MURMUR_CONCURRENCY.",
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
    typer.Option(
        "--id",
        metavar="ID",
        help="The worker's name; -1, -2, ... follow it when there are more. Default: a random one.",
    ),
]
Processes = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=MOST_PROCESSES,
        help="Worker processes; one that dies is replaced. Default: MURMUR_PROCESSES.",
        rich_help_panel=PROCESSES,
    ),
]
Reload = Annotated[
    bool,
    typer.Option(
        "--reload",
        help="Start again, drained, when a Python file under the current folder changes.",
        rich_help_panel=PROCESSES,
    ),
]
EventLoop = Annotated[
    Loop | None,
    typer.Option(
        help="auto is uvloop where it is installed. Default: MURMUR_LOOP.",
        rich_help_panel=PROCESSES,
    ),
]
HealthFile = Annotated[
    Path | None,
    typer.Option(
        help="Touched at each heartbeat that the server took, removed at the end. "
        "Default: MURMUR_HEALTH_FILE.",
        rich_help_panel=PROBES,
    ),
]
HealthPort = Annotated[
    int | None,
    typer.Option(
        min=0,
        max=65_535,
        help="Answer GET /livez and /readyz here; 0 takes a free port. "
        "Default: MURMUR_HEALTH_PORT.",
        rich_help_panel=PROBES,
    ),
]
HealthHost = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="The address of that port. Default: MURMUR_HEALTH_HOST, else this machine only.",
        rich_help_panel=PROBES,
    ),
]
ParentSocket = Annotated[int | None, typer.Option("--parent", hidden=True)]


EXAMPLES = (
    "murmur-streams worker app:fleet",
    "murmur-streams worker app:fleet --concurrency 50 --targets researcher,writer",
    "murmur-streams worker app:fleet --url redis://redis.internal:6379/0",
    "murmur-streams worker app:fleet --processes 4 --health-port 8080",
)


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "worker", examples=EXAMPLES)(worker)


def worker(  # noqa: PLR0913, PLR0917  # one for each option
    session: Session,
    fleet: FleetPath,
    concurrency: Concurrency = None,
    lease_seconds: LeaseSeconds = None,
    drain_seconds: DrainSeconds = None,
    targets: Targets = None,
    id: WorkerId = None,  # noqa: A002  # the option's name
    processes: Processes = None,
    reload: Reload = False,
    loop: EventLoop = None,
    health_file: HealthFile = None,
    health_port: HealthPort = None,
    health_host: HealthHost = None,
    parent: ParentSocket = None,
) -> None:
    """Execute the runs of a fleet's agents until told to stop.

    Ctrl-C or SIGTERM drains: no new runs, and those under way may end. A second one hands
    them back at once; other workers take them over. --url and --prefix are for fleets that
    name none in their code.

    With --processes or --reload this process keeps others that work: it passes the signals
    on, replaces a process that died, and a third signal kills them all.
    """
    given = session.settings
    options = Options(
        fleet=fleet,
        concurrency=concurrency or given.concurrency,
        lease_seconds=given.lease_seconds if lease_seconds is None else lease_seconds,
        drain_seconds=given.drain_seconds if drain_seconds is None else drain_seconds,
        targets=_names(targets),
        worker_id=id,
        processes=1 if parent is not None else processes or given.processes,
        reload=reload,
        loop=str(loop or given.loop),
        probes=Probes()
        if parent is not None
        else _probes(given, health_file, health_port, health_host),
        parent=parent,
    )
    begin(session)
    if options.processes > 1 and kind_on_disk(session.url) == "RocksDB":
        raise StoreConfigurationError(
            "a RocksDB folder is for one process: leave --processes and MURMUR_PROCESSES out, or "
            "take sqlite: or a Redis"
        )
    if options.needs_parent:
        if kind_on_disk(session.url) == "RocksDB":
            warn_alone(fleet, session.url)
        raise typer.Exit(keep_processes(session, options))
    work(session, options)


def begin(session: Session) -> None:
    """Log, and tell the user's module and processes that we start what was given."""
    # The user's module reads its settings from the environment, and it is not imported yet.
    os.environ.update(session.to_environment())
    handler = logging.StreamHandler()
    # Of an agent's own records, it is told which run and attempt they are of.
    handler.addFilter(RunLogFilter())
    handler.setFormatter(
        _Harmless("%(asctime)s %(levelname)-7s %(name)s%(execution)s: %(message)s")
    )
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("murmur_streams").setLevel(session.settings.log_level.upper())
    if session.given.url and redacted(session.given.url) != session.given.url:
        logger.warning(
            "the password in --url stands in the list of this machine's processes, which others "
            "can read: set MURMUR_URL instead"
        )


class _Harmless(logging.Formatter):
    """Shows the control characters of our own records; agents may colour theirs."""

    def format(self, record: logging.LogRecord) -> str:
        shown = super().format(record)
        return loggable(shown) if record.name.startswith("murmur_streams") else shown


def _probes(given: Settings, file: Path | None, port: int | None, host: str | None) -> Probes:
    return Probes(
        file=file or given.health_file,
        port=given.health_port if port is None else port,
        host=host or given.health_host,
    )


def _names(given: list[str] | None) -> tuple[str, ...] | None:
    if not given:
        return None
    names = tuple(name.strip() for words in given for name in words.split(","))
    if not all(names):
        raise typer.BadParameter(
            "--targets has an empty name; name agents, or leave it out to serve all of them"
        )
    return names
