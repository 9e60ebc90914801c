"""``murmur-streams worker app:fleet`` and ``dev app:fleet``."""

from __future__ import annotations

import logging
import os
import shlex
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from murmur_streams.cli.shell.command import command
from murmur_streams.cli.shell.options import option, setting_option, settings_with
from murmur_streams.cli.shell.printing import print_json, print_message
from murmur_streams.cli.shell.session import Session
from murmur_streams.cli.supervisor import worker_process
from murmur_streams.cli.supervisor.child import Child, WorkerOptions
from murmur_streams.cli.supervisor.supervisor import supervise
from murmur_streams.core.model.errors import StoreConfigurationError
from murmur_streams.core.redaction import redacted
from murmur_streams.embedded import ensure_server
from murmur_streams.fleet.logs import RunLogFilter, loggable
from murmur_streams.fleet.stores import kind_on_disk
from murmur_streams.settings import EventLoop

logger = logging.getLogger("murmur_streams.cli")


FleetPath = Annotated[
    str, typer.Argument(metavar="MODULE:FLEET", help="Where the fleet is, such as app:fleet.")
]
CONCURRENCY = ("concurrency", "Runs at the same time, in each process.")
LOOP_TEXT = "auto is uvloop where it is installed."

process_setting = partial(setting_option, rich_help_panel="Processes")
_probe_setting = partial(setting_option, rich_help_panel="Probes")


@dataclass(frozen=True, slots=True)
class WorkerFlags:
    """The options of a worker; those over settings have their names."""

    concurrency: int | None = setting_option(*CONCURRENCY)
    lease_seconds: float | None = setting_option(
        "lease_seconds", "Silent for so long, it loses its runs to others."
    )
    drain_seconds: float | None = setting_option(
        "drain_seconds", "How long a stopping worker waits for its runs."
    )
    targets: list[str] | None = option(
        metavar="NAME,...", help="Only runs of these agents; repeatable. Default: all."
    )
    worker_id: str | None = option(
        "--id",
        metavar="ID",
        help="The worker's name; -1, -2, ... follow it when there are more. Default: a random one.",
    )
    processes: int | None = process_setting(
        "processes", "Worker processes; one that dies is replaced."
    )
    reload: bool = option(
        "--reload",
        default=False,
        help="Start again, drained, when a Python file under the current folder changes.",
        rich_help_panel="Processes",
    )
    loop: EventLoop | None = process_setting("loop", LOOP_TEXT)
    health_file: Path | None = _probe_setting(
        "health_file", "Touched at each heartbeat that the server took, removed at the end."
    )
    health_port: int | None = _probe_setting(
        "health_port", "Answer GET /livez and /readyz here; 0 takes a free port."
    )
    health_host: str | None = _probe_setting(
        "health_host",
        "The address of that port.",
        otherwise=", else this machine only",
        metavar="ADDRESS",
    )
    parent: int | None = option(hidden=True)


@dataclass(frozen=True, slots=True)
class DevFlags:
    """The options of ``dev``, by the names of settings."""

    concurrency: int | None = setting_option(*CONCURRENCY)
    drain_seconds: float = option(
        # Short: a developer who saved a file waits for the new code.
        default=5.0,
        min=0,
        max=86_400,
        help="How long runs may go on when the code has changed, before they are handed back.",
    )


@command("worker")
def worker(session: Session, fleet: FleetPath, flags: WorkerFlags) -> None:
    """Execute the runs of a fleet's agents until a signal stops it.

    Ctrl-C or SIGTERM drains: it claims no new runs, and those under way may end. A second one
    hands them back at once; other workers take them over. --url and --prefix are for fleets that
    name neither in their code.

    With --processes or --reload this process supervises others that work: it passes the signals
    on, replaces a process that died, and a third signal kills them all.

    Examples:
        murmur-streams worker app:fleet
        murmur-streams worker app:fleet --concurrency 50 --targets researcher,writer
        murmur-streams worker app:fleet --url redis://redis.internal:6379/0
        murmur-streams worker app:fleet --processes 4 --health-port 8080
    """
    settings = settings_with(session.settings, flags)
    if flags.parent is not None:
        # The supervisor has the processes and the probes of its children.
        settings = replace(settings, processes=1, health_file=None, health_port=None)
    targets, parent = _names(flags.targets), flags.parent
    options = WorkerOptions(fleet, settings, targets, flags.worker_id, flags.reload, parent)
    begin(session)
    is_rocksdb = kind_on_disk(session.url) == "RocksDB"
    if settings.processes > 1 and is_rocksdb:
        raise StoreConfigurationError(
            "a RocksDB folder is for one process: leave --processes and MURMUR_PROCESSES out, or "
            "take sqlite: or a Redis"
        )
    if not options.needs_supervisor:
        worker_process.work(session, options)
        return
    if is_rocksdb:
        worker_process.warn_one_process_only(fleet, session.url)
    raise typer.Exit(supervise(session, options))


@command("dev")
def dev(session: Session, fleet: FleetPath, flags: DevFlags) -> None:
    """Develop a fleet: a worker that starts again when its code changes.

    It works on the embedded server, whatever MURMUR_URL says; --url takes it elsewhere. It
    prints where the server is and how to submit a run to it; to a RocksDB folder no other
    process can. Ctrl-C drains, a second one hands the runs back.

    Examples:
        murmur-streams dev app:fleet
        murmur-streams dev app:fleet --url redis://localhost:6379/0
    """
    given = replace(session.given, url=session.given.url or "embedded:")
    session = replace(session, given=given)
    begin(session)
    settings = settings_with(session.settings, flags)
    settings = replace(settings, processes=1, health_file=None, health_port=None)
    options = WorkerOptions(fleet, settings, reload=True)
    _print_server(session, options)
    on_first_ready = partial(_print_submit_hint, session, options.fleet)
    raise typer.Exit(supervise(session, options, on_first_ready))


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


def _print_server(session: Session, options: WorkerOptions) -> None:
    server = ensure_server(session.data_dir) if session.is_embedded else None
    url = redacted(session.url) if server is None else server.url
    where = url if server is None else f"{server.data_dir} (embedded, pid {server.pid})"
    if session.as_json:
        print_json({"server": url, "fleet": options.fleet, "watched": str(Path.cwd())})
        return
    print_message(f"server    {where}")
    print_message(
        f"fleet     {options.fleet}, started again when a Python file changes in {Path.cwd()}"
    )


def _print_submit_hint(session: Session, fleet: str, child: Child) -> None:
    if session.as_json:
        return
    if kind_on_disk(session.url) == "RocksDB":
        print_message(f"submit    {worker_process.one_process_hint(fleet, session.url)}")
        return
    targets = child.report.get("targets") or ["AGENT"]
    argv = ["murmur-streams", "submit", str(targets[0])]
    # The command must work in another terminal, too, where MURMUR_URL may name another server.
    is_elsewhere = not session.is_embedded or session.settings.url
    argv += ["--url", redacted(session.url)] if is_elsewhere else []
    argv += ["--prefix", session.given.prefix] if session.given.prefix else []
    folder = os.environ.get("MURMUR_DATA_DIR")
    before = f"MURMUR_DATA_DIR={shlex.quote(folder)} " if folder and session.is_embedded else ""
    print_message(f"submit    {before}{shlex.join(argv)} 'INPUT AS JSON' --follow")
    print_message(f"agents    {', '.join(targets)}")
