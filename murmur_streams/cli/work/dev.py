"""``murmur-streams dev app:fleet``."""

from __future__ import annotations

import os
import shlex
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from murmur_streams.cli.shell.command import command
from murmur_streams.cli.shell.printing import print_json, print_message
from murmur_streams.cli.shell.session import Session
from murmur_streams.cli.supervisor.child import Child
from murmur_streams.cli.supervisor.options import WorkerOptions
from murmur_streams.cli.supervisor.supervisor import supervise
from murmur_streams.cli.supervisor.worker_process import one_process_hint
from murmur_streams.cli.work.worker import Concurrency, FleetPath, begin
from murmur_streams.core.redaction import redacted
from murmur_streams.embedded import ensure_server
from murmur_streams.fleet.stores import kind_on_disk

DRAIN_SECONDS = 5.0
"""Short: a developer who saved a file waits for the new code."""

DrainSeconds = Annotated[
    float,
    typer.Option(
        min=0,
        max=86_400,
        help="How long runs may go on when the code has changed, before they are handed back.",
    ),
]


def register(app: typer.Typer) -> None:
    """Add the command."""

    @command(
        app,
        "dev",
        examples=(
            "murmur-streams dev app:fleet",
            "murmur-streams dev app:fleet --url redis://localhost:6379/0",
        ),
    )
    def dev(
        session: Session,
        fleet: FleetPath,
        concurrency: Concurrency = None,
        drain_seconds: DrainSeconds = DRAIN_SECONDS,
    ) -> None:
        """Develop a fleet: a worker that starts again when its code changes.

        It works on the embedded server, whatever MURMUR_URL says; --url takes it elsewhere. It
        prints where the server is and how to submit a run to it; to a RocksDB folder no other
        process can. Ctrl-C drains, a second one hands the runs back.
        """
        given = replace(session.given, url=session.given.url or "embedded:")
        session = replace(session, given=given)
        begin(session)
        settings = session.settings.override(concurrency=concurrency, drain_seconds=drain_seconds)
        settings = replace(settings, processes=1, health_file=None, health_port=None)
        options = WorkerOptions(fleet, settings, reload=True)
        _print_server(session, options)
        on_first_ready = partial(_print_submit_hint, session, options.fleet)
        raise typer.Exit(supervise(session, options, on_first_ready))


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
        print_message(f"submit    {one_process_hint(fleet, session.url)}")
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
