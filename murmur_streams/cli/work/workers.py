"""``murmur-streams workers``: the workers that execute runs now."""

from __future__ import annotations

import asyncio
import time
from dataclasses import asdict
from typing import Any

import typer
from rich.table import Table
from rich.text import Text

from murmur_streams.cli.shell.command import command
from murmur_streams.cli.shell.load_fleet import open_fleet
from murmur_streams.cli.shell.printing import console, moment_json, print_json, printable
from murmur_streams.cli.shell.session import Session
from murmur_streams.core.model.work import WorkerInfo

STYLES = {"working": "green", "draining": "yellow", "blocked": "red"}
SHOWN_RUNS = 3
WIDE = 1_000
"""Columns where stdout is not a terminal, so that no value is cut."""


def register(app: typer.Typer) -> None:
    """Add the command."""

    @command(
        app,
        "workers",
        examples=("murmur-streams workers", "murmur-streams workers --json | jq .held"),
    )
    def workers(session: Session) -> None:
        """List the live workers: their hosts, their runs, and the time since their last heartbeat.

        A worker that was killed is gone from the list some heartbeats later.
        """
        found = asyncio.run(_read(session))
        if session.as_json:
            for worker in found:
                print_json(_as_json(worker))
        elif found:
            _print(found)
        else:
            print("no worker is running; start one with: murmur-streams worker app:fleet")


async def _read(session: Session) -> list[WorkerInfo]:
    async with open_fleet(session) as fleet:
        return await fleet.workers()


def _print(workers: list[WorkerInfo]) -> None:
    screen = console()
    if not screen.is_terminal:
        screen.width = WIDE
    screen.print(_table(workers))


def _table(workers: list[WorkerInfo]) -> Table:
    columns = ("worker", "host", "pid", "version", "python", "state", "holds", "runs", "last beat")
    table = Table(*columns, box=None, header_style="dim")
    for worker in workers:
        table.add_row(
            worker.id,
            printable(worker.host),
            str(worker.pid),
            printable(worker.version),
            printable(worker.python),
            Text(printable(worker.state), STYLES.get(worker.state, "none")),
            f"{worker.held} of {worker.concurrency}",
            _runs(worker),
            _ago(worker.last_beat_ms),
        )
    return table


def _runs(worker: WorkerInfo) -> str:
    shown = ", ".join(worker.runs[:SHOWN_RUNS])
    return shown + (", ..." if worker.held > SHOWN_RUNS else "")


def _ago(ms: int) -> str:
    return f"{max(0.0, time.time() - ms / 1000):.1f} s ago"


def _as_json(worker: WorkerInfo) -> dict[str, Any]:
    known = asdict(worker)
    moments = {
        "started_at": moment_json(known.pop("started_ms")),
        "last_beat_at": moment_json(known.pop("last_beat_ms")),
    }
    return known | moments
