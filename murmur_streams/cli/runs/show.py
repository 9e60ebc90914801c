"""``murmur-streams runs``: lists runs, once or live; ``show RUN``: all that is known of one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from murmur_streams.cli.shell import printing
from murmur_streams.cli.shell.command import command
from murmur_streams.cli.shell.options import Every, Limit, RunId, State, Target
from murmur_streams.cli.shell.run_source import every_run, open_run_source
from murmur_streams.cli.shell.session import Session
from murmur_streams.core.model.entries import JournalEntry
from murmur_streams.core.model.results import RunResult
from murmur_streams.core.model.run import Run, RunPage
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
FAILURES_AT_EACH_END = 3
"""How many of the first and of the last failures are printed."""

Last = Annotated[
    int, typer.Option("--last", metavar="N", min=0, max=10_000, help="Journal entries to show.")
]


@command("runs", over_http=True)
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

    Examples:
        murmur-streams runs --state running --watch
        murmur-streams runs --target researcher --all --json | jq -r .run_id
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
                _print_listed(session, screen, run)
        else:
            for run in (await newest()).runs:
                _print_listed(session, screen, run)


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
                _print_listed(session, screen, run)
        await asyncio.sleep(WATCH_SECONDS)


def _print_listed(session: Session, screen: Console, run: Run) -> None:
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


@command("show", over_http=True)
async def show(session: Session, run: RunId, last: Last = 5) -> None:
    """Print a run: its state, progress, times, worker, result and last entries.

    Also its retries, its cancellation and its dead letter, if it has them.

    Examples:
        murmur-streams show my-run
        murmur-streams show my-run --json | jq .state
    """
    async with open_run_source(session) as source:
        found = await source.handle(run).snapshot()
        result = await source.result(found)
        dead_reason = await source.dead_reason(found)
        entries = await source.last_entries(found, last) if last else []
    if session.as_json:
        more = {"result": printing.result_json(result), "dead": dead_reason}
        printing.print_json(
            printing.run_json(found) | more | {"journal": [_entry_json(each) for each in entries]}
        )
        return
    _print_run(found, dead_reason)
    _print_result(found, result)
    _print_entries(entries, found.version)


def _shown_fields(entry: JournalEntry) -> dict[str, str]:
    """An entry's fields without the fencing token, which lets its holder write as the worker."""
    return {name: value for name, value in entry.fields.items() if name != "claim"}


def _entry_json(entry: JournalEntry) -> dict[str, Any]:
    return {"id": entry.id, "cursor": entry.cursor, "seq": entry.seq, **_shown_fields(entry)}


def _print_run(run: Run, dead_reason: str | None) -> None:
    took = printing.duration_text(run.started_ms, run.ended_ms)
    failed = f", {run.failures} failed" if run.failures else ""
    host = f" on {run.host}" if run.host else ""
    checkpoint = run.checkpoint_size
    printing.print_rows(
        ("run", run.run_id),
        ("target", run.target),
        ("state", printing.state_text(run.state)),
        ("progress", printing.progress_text(run.progress)),
        ("attempt", f"{run.attempt}{failed}"),
        ("worker", f"{run.worker or '-'}{host}"),
        ("created", printing.moment_text(run.created_ms)),
        ("started", printing.moment_text(run.started_ms)),
        ("ended", f"{printing.moment_text(run.ended_ms)}  {took}".strip()),
        ("due", run.due_ms and printing.moment_text(run.due_ms)),
        ("deadline", run.deadline_ms and printing.moment_text(run.deadline_ms)),
        ("priority", run.priority),
        *_cancel_rows(run),
        ("journal", f"{run.version} entries"),
        ("saved", None if checkpoint is None else f"a checkpoint of {checkpoint:,} bytes"),
        ("dead", dead_reason and f"{dead_reason}; murmur-streams dead show {run.run_id}"),
        ("metadata", None if run.metadata is None else printing.compact(run.metadata)),
    )


def _cancel_rows(run: Run) -> list[tuple[str, str | int | None]]:
    if run.cancel_requested is None:
        return []
    reason = f"  {run.cancel_reason}" if run.cancel_reason else ""
    delivered = run.cancel_delivered
    return [
        ("cancel", f"requested {printing.moment_text(run.cancel_requested)}{reason}"),
        ("", delivered and f"delivered {printing.moment_text(delivered)}"),
    ]


def _print_result(run: Run, result: RunResult | None) -> None:
    found = printing.result_json(result)
    output = None if found is None else found.get("outputs", found.get("output"))
    screen = printing.console()
    if output is not None:
        screen.print(Text("result", style="dim"))
        printing.print_pretty(output)
    wrong = printing.failure_text(run, result)
    if wrong:
        screen.print(Text.assemble(("error     ", "dim"), (wrong, "red")))
    errors = run.errors.splitlines() if run.errors else []
    printing.print_rows(*(("attempt", line) for line in _first_and_last(errors)))


def _first_and_last(lines: list[str]) -> list[str]:
    """The lines, without the middle where they are many; --json has them all."""
    left_out = len(lines) - 2 * FAILURES_AT_EACH_END
    if left_out <= 0:
        return lines
    first, last = lines[:FAILURES_AT_EACH_END], lines[-FAILURES_AT_EACH_END:]
    return [*first, f"… and {left_out} more", *last]


def _print_entries(entries: list[JournalEntry], version: int) -> None:
    if not entries:
        return
    screen = printing.console()
    screen.print(Text(f"last {len(entries)} of {version} entries (UTC)", style="dim"))
    for entry in entries:
        text = "  ".join(
            f"{printing.printable(name)}={printing.compact(value)}"
            for name, value in _shown_fields(entry).items()
            if name not in {"type", "ts"}
        )
        screen.print(
            Text.assemble(
                (f"  {printing.clock_text(entry.ms)}  #{entry.seq:<4} ", "dim"),
                (f"{printing.printable(entry.type):<15} ", "cyan"),
                text,
            )
        )
