"""``murmur-streams runs``: lists runs, newest first, once or live."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Annotated

import typer
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from murmur_streams.cli.shell import printing
from murmur_streams.cli.shell.command import command
from murmur_streams.cli.shell.options import Every, Limit, State, Target
from murmur_streams.cli.shell.run_source import every_run, open_run_source
from murmur_streams.cli.shell.session import Session
from murmur_streams.core.model.pages import RunPage
from murmur_streams.core.model.run import Run
from murmur_streams.core.model.states import RunState

WATCH_SECONDS = 1.0
NEW_LINE_FIELDS = (
    *("state", "progress", "attempt", "failures", "worker", "error"),
    *("cancel_requested", "cancel_delivered"),
)
"""A watched run gets another line when one of these has changed."""

Watch = Annotated[
    bool, typer.Option("--watch", help="Look again every second until Ctrl-C; not with --all.")
]


@command(
    "runs",
    over_http=True,
    examples=(
        "murmur-streams runs --state running --watch",
        "murmur-streams runs --target researcher --all --json | jq -r .run_id",
    ),
)
async def runs(
    session: Session,
    state: State = None,
    target: Target = None,
    limit: Limit = 20,
    every: Every = False,
    watch: Watch = False,
) -> None:
    """List runs, newest first.

    With --json: one run a line. With --watch on a terminal the list is kept up to date;
    elsewhere each run gets a line when it is new or has changed.
    """
    if watch and every:
        raise typer.BadParameter("--watch looks at the newest runs: leave --all out")
    screen = printing.console()
    async with open_run_source(session) as source:
        newest = partial(source.list_runs, state=state, target=target, limit=limit)
        if watch:
            await _watch(session, screen, newest)
        elif every:
            async for run in every_run(source.list_runs, state=state, target=target):
                _print_run(session, screen, run)
        else:
            for run in (await newest()).runs:
                _print_run(session, screen, run)


async def _watch(
    session: Session, screen: Console, newest: Callable[[], Awaitable[RunPage]]
) -> None:
    if screen.is_terminal and not session.as_json:
        with Live(console=screen, auto_refresh=False) as live:
            while True:
                live.update(_table((await newest()).runs), refresh=True)
                await asyncio.sleep(WATCH_SECONDS)
    printed: dict[str, object] = {}
    while True:
        for run in reversed((await newest()).runs):
            current = [getattr(run, name) for name in NEW_LINE_FIELDS]
            if printed.get(run.run_id) != current:
                printed[run.run_id] = current
                _print_run(session, screen, run)
        await asyncio.sleep(WATCH_SECONDS)


def _print_run(session: Session, screen: Console, run: Run) -> None:
    if session.as_json:
        printing.print_json(printing.run_json(run))
        return
    line = Text(f"{printing.moment_text(run.created_ms)}  ", "dim")
    state = printing.state_text(run.state)
    state.pad_right(max(0, 9 - len(state)))
    line.append(state).append(f"  {run.target}  {run.run_id}")
    line.append(f"  {_details(run)}".rstrip(), "dim")
    screen.print(line)


def _table(runs: tuple[Run, ...]) -> Table:
    table = Table("created", "state", "target", "run", "", box=None, header_style="dim")
    for run in runs:
        created = printing.moment_text(run.created_ms)
        table.add_row(
            created, printing.state_text(run.state), run.target, run.run_id, _details(run)
        )
    return table


def _details(run: Run) -> str:
    now_ms = time.time_ns() // 1_000_000
    parts = [] if run.progress is None else [printing.progress_text(run.progress)]
    if run.attempt > 1:
        parts.append(f"attempt {run.attempt}")
    if run.failures:
        parts.append(f"{run.failures} failed")
    if run.state is RunState.PENDING and run.due_ms is not None and run.due_ms > now_ms:
        parts.append(f"due in {printing.duration_text(now_ms, run.due_ms)}")
    if run.cancel_requested is not None and not run.state.is_terminal:
        parts.append("to be cancelled")
    took = printing.duration_text(run.started_ms, run.ended_ms or now_ms)
    return "  ".join([*parts, took] if took else parts)
