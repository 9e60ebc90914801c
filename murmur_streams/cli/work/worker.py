"""``murmur-streams worker app:fleet``."""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from murmur_streams.cli.shell.command import command, setting_option
from murmur_streams.cli.shell.session import Session
from murmur_streams.cli.supervisor.options import WorkerOptions
from murmur_streams.cli.supervisor.supervisor import supervise
from murmur_streams.cli.supervisor.worker_process import warn_one_process_only, work
from murmur_streams.core.model.errors import StoreConfigurationError
from murmur_streams.core.redaction import redacted
from murmur_streams.fleet.logs import RunLogFilter, loggable
from murmur_streams.fleet.stores import kind_on_disk
from murmur_streams.settings import EventLoop

logger = logging.getLogger("murmur_streams.cli")

PROCESSES = "Processes"
PROBES = "Probes"

FleetPath = Annotated[
    str, typer.Argument(metavar="MODULE:FLEET", help="Where the fleet is, such as app:fleet.")
]
Concurrency = Annotated[
    int | None, setting_option("concurrency", "Runs at the same time, in each process.")
]
LeaseSeconds = Annotated[
    float | None,
    setting_option("lease_seconds", "Silent for so long, it loses its runs to others."),
]
DrainSeconds = Annotated[
    float | None,
    setting_option("drain_seconds", "How long a stopping worker waits for its runs."),
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
    setting_option(
        "processes",
        "Worker processes; one that dies is replaced.",
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
LoopChoice = Annotated[
    EventLoop | None,
    setting_option("loop", "auto is uvloop where it is installed.", rich_help_panel=PROCESSES),
]
HealthFile = Annotated[
    Path | None,
    setting_option(
        "health_file",
        "Touched at each heartbeat that the server took, removed at the end.",
        rich_help_panel=PROBES,
    ),
]
HealthPort = Annotated[
    int | None,
    setting_option(
        "health_port",
        "Answer GET /livez and /readyz here; 0 takes a free port.",
        rich_help_panel=PROBES,
    ),
]
HealthHost = Annotated[
    str | None,
    setting_option(
        "health_host",
        "The address of that port.",
        otherwise=", else this machine only",
        metavar="ADDRESS",
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
    loop: LoopChoice = None,
    health_file: HealthFile = None,
    health_port: HealthPort = None,
    health_host: HealthHost = None,
    parent: ParentSocket = None,
) -> None:
    """Execute the runs of a fleet's agents until a signal stops it.

    Ctrl-C or SIGTERM drains: it claims no new runs, and those under way may end. A second one
    hands them back at once; other workers take them over. --url and --prefix are for fleets that
    name neither in their code.

    With --processes or --reload this process supervises others that work: it passes the signals
    on, replaces a process that died, and a third signal kills them all.
    """
    settings = session.settings.override(
        concurrency=concurrency,
        lease_seconds=lease_seconds,
        drain_seconds=drain_seconds,
        processes=processes,
        loop=loop,
        health_file=health_file,
        health_port=health_port,
        health_host=health_host or None,
    )
    if parent is not None:
        # The supervisor has the processes and the probes of its children.
        settings = replace(settings, processes=1, health_file=None, health_port=None)
    options = WorkerOptions(fleet, settings, _names(targets), id, reload, parent)
    begin(session)
    if settings.processes > 1 and kind_on_disk(session.url) == "RocksDB":
        raise StoreConfigurationError(
            "a RocksDB folder is for one process: leave --processes and MURMUR_PROCESSES out, or "
            "take sqlite: or a Redis"
        )
    if options.needs_supervisor:
        if kind_on_disk(session.url) == "RocksDB":
            warn_one_process_only(fleet, session.url)
        raise typer.Exit(supervise(session, options))
    work(session, options)


def begin(session: Session) -> None:
    """Set up logging, and pass the options to the user's module and to child processes."""
    # Before the user's module is imported: it reads its settings from the environment.
    os.environ.update(session.to_environment())
    handler = logging.StreamHandler()
    # The filter adds the run and the attempt to the records of an agent's own loggers.
    handler.addFilter(RunLogFilter())
    handler.setFormatter(
        _EscapingFormatter("%(asctime)s %(levelname)-7s %(name)s%(execution)s: %(message)s")
    )
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("murmur_streams").setLevel(session.settings.log_level.upper())
    if session.given.url and redacted(session.given.url) != session.given.url:
        logger.warning(
            "the password in --url is visible in this machine's list of processes: set MURMUR_URL "
            "instead"
        )


class _EscapingFormatter(logging.Formatter):
    """Escapes the control characters of our own records; agents may colour theirs."""

    def format(self, record: logging.LogRecord) -> str:
        shown = super().format(record)
        return loggable(shown) if record.name.startswith("murmur_streams") else shown


def _names(given: list[str] | None) -> tuple[str, ...] | None:
    if not given:
        return None
    names = tuple(name.strip() for each in given for name in each.split(","))
    if not all(names):
        raise typer.BadParameter(
            "--targets has an empty name; name agents, or leave it out to serve all of them"
        )
    return names
