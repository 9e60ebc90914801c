"""``murmur-streams workers``: the workers that execute runs now; ``pause`` and ``resume``."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from murmur_streams.cli.shell.command import command
from murmur_streams.cli.shell.load_fleet import open_fleet
from murmur_streams.cli.shell.options import AgentName
from murmur_streams.cli.shell.printing import (
    console,
    moment_json,
    print_json,
    print_message,
    printable,
)
from murmur_streams.cli.shell.session import Session
from murmur_streams.core.model.work import WorkerInfo

STYLES = {"working": "green", "draining": "yellow", "blocked": "red"}
SHOWN_RUNS = 3
WIDE = 1_000
"""Columns where stdout is not a terminal, so that no value is cut."""

OptionalTarget = Annotated[
    str | None,
    typer.Argument(
        metavar="TARGET", help="The agent's name; without one, the paused agents are listed."
    ),
]


@command("workers")
async def workers(session: Session) -> None:
    """List the live workers: their hosts, their runs, and the time since their last heartbeat.

    A worker that was killed is gone from the list some heartbeats later. What should be mended on
    the server of the runs is printed on stderr.

    Examples:
        murmur-streams workers
        murmur-streams workers --json | jq .held
    """
    async with open_fleet(session) as fleet:
        found, warnings = await fleet.workers(), (await fleet.store()).warnings
    if session.as_json:
        for worker in found:
            print_json(_as_json(worker))
    elif found:
        screen = console()
        if not screen.is_terminal:
            screen.width = WIDE
        screen.print(_table(found))
    else:
        print("no worker is running; start one with: murmur-streams worker app:fleet")
    for advice in warnings.values():
        print_message(f"warning: {advice}")


@command("pause")
async def pause(session: Session, target: OptionalTarget = None) -> None:
    """Let no worker begin runs of an agent, until `resume`; runs under way go on.

    Runs submitted meanwhile wait. Without TARGET the paused agents are listed.

    Examples:
        murmur-streams pause researcher
        murmur-streams pause
    """
    async with open_fleet(session) as fleet:
        if target is not None:
            await fleet.pause(target)
        paused = sorted(await fleet.paused())
    if target is None:
        session.print({"paused": paused}, "\n".join(paused) or "nothing is paused")
    else:
        _print_paused(session, target, is_paused=target in paused)


@command("resume")
async def resume(session: Session, target: AgentName) -> None:
    """Let workers begin runs of a paused agent again.

    Examples:
        murmur-streams resume researcher
    """
    async with open_fleet(session) as fleet:
        before = await fleet.paused()
        await fleet.resume(target)
        is_paused = target in await fleet.paused()
    _print_paused(session, target, is_paused=is_paused, was_paused=target in before)


def _print_paused(
    session: Session, target: str, *, is_paused: bool, was_paused: bool = True
) -> None:
    runs = f"{target} runs" if was_paused else f"{target} was not paused: it runs"
    session.print(
        {"target": target, "paused": is_paused}, f"{target} is paused" if is_paused else runs
    )


def _table(workers: list[WorkerInfo]) -> Table:
    columns = ("worker", "host", "pid", "version", "python", "state", "holds", "runs", "last beat")
    table = Table(*columns, box=None, header_style="dim")
    for worker in workers:
        more = ", ..." if worker.held > SHOWN_RUNS else ""
        ago = max(0.0, time.time() - worker.last_beat_ms / 1000)
        table.add_row(
            worker.id,
            *map(printable, (worker.host, str(worker.pid), worker.version, worker.python)),
            Text(printable(worker.state), STYLES.get(worker.state, "none")),
            f"{worker.held} of {worker.concurrency}",
            ", ".join(worker.runs[:SHOWN_RUNS]) + more,
            f"{ago:.1f} s ago",
        )
    return table


def _as_json(worker: WorkerInfo) -> dict[str, Any]:
    known = asdict(worker)
    moments = {
        "started_at": moment_json(known.pop("started_ms")),
        "last_beat_at": moment_json(known.pop("last_beat_ms")),
    }
    return known | moments
