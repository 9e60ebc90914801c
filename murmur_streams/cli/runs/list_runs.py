"""``murmur-streams runs``: what there is, newest first, once or live."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from typing import Annotated

import typer
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from murmur_streams.cli.shell.command import command
from murmur_streams.cli.shell.printing import (
    console,
    moment_words,
    print_json,
    progress_words,
    run_json,
    seconds_words,
    state_text,
)
from murmur_streams.cli.shell.run_source import Place, open_place
from murmur_streams.cli.shell.session import Session
from murmur_streams.core.model.pages import MOST_RUNS
from murmur_streams.core.model.run import Run
from murmur_streams.core.model.states import RunState

WATCH_SECONDS = 1.0
NEW_LINE_FIELDS = (
    *("state", "progress", "attempt", "failures", "worker", "error"),
    *("cancel_requested", "cancel_delivered"),
)
"""What has to change before a watched run gets another line."""

State = Annotated[RunState | None, typer.Option("--state", help="Only runs in this state.")]
Target = Annotated[
    str | None, typer.Option("--target", metavar="TARGET", help="Only runs of this agent.")
]
Limit = Annotated[
    int, typer.Option("--limit", metavar="N", min=1, max=MOST_RUNS, help="How many, at most.")
]
Every = Annotated[bool, typer.Option("--all", help="All of them, however many.")]
Watch = Annotated[
    bool, typer.Option("--watch", help="Look again every second until Ctrl-C; not with --all.")
]


def register(app: typer.Typer) -> None:
    """Add the command."""

    @command(
        app,
        "runs",
        over_http=True,
        examples=(
            "murmur-streams runs --state running --watch",
            "murmur-streams runs --target researcher --all --json | jq -r .run_id",
        ),
    )
    def runs(
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
        look = _Look(state, target, limit)
        asyncio.run(_watch(session, look) if watch else _list(session, look, every=every))


class _Look:
    """Which runs are asked for."""

    def __init__(self, state: RunState | None, target: str | None, limit: int) -> None:
        self._state, self._target, self._limit = state, target, limit

    async def newest(self, place: Place) -> tuple[Run, ...]:
        page = await place.list_runs(state=self._state, target=self._target, limit=self._limit)
        return page.runs

    async def every(self, place: Place) -> AsyncGenerator[Run]:
        cursor: str | None = None
        while True:
            page = await place.list_runs(
                state=self._state, target=self._target, limit=MOST_RUNS, cursor=cursor
            )
            for run in page.runs:
                yield run
            cursor = page.cursor
            if cursor is None:
                return


async def _list(session: Session, look: _Look, *, every: bool) -> None:
    screen = console()
    async with open_place(session) as place:
        if every:
            async for run in look.every(place):
                _print_run(session, screen, run)
            return
        for run in await look.newest(place):
            _print_run(session, screen, run)


async def _watch(session: Session, look: _Look) -> None:
    screen = console()
    async with open_place(session) as place:
        if screen.is_terminal and not session.as_json:
            with Live(console=screen, auto_refresh=False) as live:
                while True:
                    live.update(_table(await look.newest(place)), refresh=True)
                    await asyncio.sleep(WATCH_SECONDS)
        told: dict[str, object] = {}
        while True:
            for run in reversed(await look.newest(place)):
                news = [getattr(run, name) for name in NEW_LINE_FIELDS]
                if told.get(run.run_id) != news:
                    told[run.run_id] = news
                    _print_run(session, screen, run)
            await asyncio.sleep(WATCH_SECONDS)


def _print_run(session: Session, screen: Console, run: Run) -> None:
    if session.as_json:
        print_json(run_json(run))
        return
    line = Text(f"{moment_words(run.created_at)}  ", "dim")
    state = state_text(run.state)
    state.pad_right(max(0, 9 - len(state)))
    line.append(state).append(f"  {run.target}  {run.run_id}")
    line.append(f"  {_words(run)}".rstrip(), "dim")
    screen.print(line)


def _table(runs: tuple[Run, ...]) -> Table:
    table = Table("created", "state", "target", "run", "", box=None, header_style="dim")
    for run in runs:
        created = moment_words(run.created_at)
        table.add_row(created, state_text(run.state), run.target, run.run_id, _words(run))
    return table


def _words(run: Run) -> str:
    now_ms = time.time_ns() // 1_000_000
    words = [] if run.progress is None else [progress_words(run.progress)]
    if run.attempt > 1:
        words.append(f"attempt {run.attempt}")
    if run.failures:
        words.append(f"{run.failures} failed")
    if run.state is RunState.PENDING and run.due_ms is not None and run.due_ms > now_ms:
        words.append(f"due in {seconds_words(now_ms, run.due_ms)}")
    if run.cancel_requested is not None and not run.state.is_terminal:
        words.append("to be cancelled")
    took = seconds_words(run.started_ms, run.ended_ms or now_ms)
    return "  ".join([*words, took] if took else words)
