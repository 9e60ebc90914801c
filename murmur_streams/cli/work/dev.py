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
from murmur_streams.cli.shell.printing import print_json, tell
from murmur_streams.cli.shell.session import Session
from murmur_streams.cli.supervisor.alone import alone_words
from murmur_streams.cli.supervisor.child import Child
from murmur_streams.cli.supervisor.options import Options
from murmur_streams.cli.supervisor.supervisor import keep_processes
from murmur_streams.cli.work.worker import Concurrency, FleetPath, begin
from murmur_streams.core.redaction import redacted
from murmur_streams.embedded import ensure_server
from murmur_streams.fleet.stores import kind_on_disk

DRAIN_SECONDS = 5.0
"""Who has just saved a file waits for the new code."""

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
        process can. Ctrl-C drains, a second one
        hands the runs back.
        """
        asked = session.settings
        given = replace(session.given, url=session.given.url or "embedded:")
        session = replace(session, given=given)
        begin(session)
        options = Options(
            fleet=fleet,
            concurrency=concurrency or asked.concurrency,
            lease_seconds=asked.lease_seconds,
            drain_seconds=drain_seconds,
            loop=asked.loop,
            reload=True,
        )
        _print_place(session, options)
        began = partial(_teach, session, options.fleet)
        raise typer.Exit(keep_processes(session, options, began))


def _print_place(session: Session, options: Options) -> None:
    server = ensure_server(session.data_dir) if session.is_embedded else None
    url = redacted(session.url) if server is None else server.url
    where = url if server is None else f"{server.data_dir} (embedded, pid {server.pid})"
    if session.as_json:
        print_json({"server": url, "fleet": options.fleet, "watched": str(Path.cwd())})
        return
    tell(f"server    {where}")
    tell(f"fleet     {options.fleet}, started again when a Python file changes in {Path.cwd()}")


def _teach(session: Session, fleet: str, child: Child) -> None:
    if session.as_json:
        return
    if kind_on_disk(session.url) == "RocksDB":
        tell(f"submit    {alone_words(fleet, session.url)}")
        return
    targets = child.report.get("targets") or ["AGENT"]
    words = ["murmur-streams", "submit", str(targets[0])]
    # In another terminal, too, where MURMUR_URL may name another server.
    is_elsewhere = not session.is_embedded or session.settings.url
    words += ["--url", redacted(session.url)] if is_elsewhere else []
    words += ["--prefix", session.given.prefix] if session.given.prefix else []
    folder = os.environ.get("MURMUR_DATA_DIR")
    before = f"MURMUR_DATA_DIR={shlex.quote(folder)} " if folder and session.is_embedded else ""
    tell(f"submit    {before}{shlex.join(words)} 'INPUT AS JSON' --follow")
    tell(f"agents    {', '.join(targets)}")
