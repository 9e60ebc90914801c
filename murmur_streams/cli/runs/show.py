"""``murmur-streams show RUN``."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.text import Text

from murmur_streams.cli.shell.command import RunId, command
from murmur_streams.cli.shell.outcome import failure_text, print_pretty, result_json
from murmur_streams.cli.shell.printing import (
    compact,
    console,
    duration_text,
    error_lines,
    moment_text,
    print_json,
    printable,
    progress_text,
    run_json,
    state_text,
)
from murmur_streams.cli.shell.run_source import open_run_source
from murmur_streams.cli.shell.session import Session
from murmur_streams.core.model.entries import JournalEntry
from murmur_streams.core.model.results import RunResult
from murmur_streams.core.model.run import Run
from murmur_streams.wire.run_json import moment_of

FAILURES_AT_EACH_END = 3
"""How many of the first and of the last failures are printed."""

Last = Annotated[
    int, typer.Option("--last", metavar="N", min=0, max=10_000, help="Journal entries to show.")
]


@dataclass(frozen=True, slots=True)
class ShownRun:
    """A run with everything that is printed about it."""

    run: Run
    result: RunResult | None
    dead_reason: str | None
    """Why it is a dead letter."""
    entries: list[JournalEntry]


def register(app: typer.Typer) -> None:
    """Add the command."""

    @command(
        app,
        "show",
        over_http=True,
        examples=("murmur-streams show my-run", "murmur-streams show my-run --json | jq .state"),
    )
    def show(session: Session, run: RunId, last: Last = 5) -> None:
        """Print a run: its state, progress, times, worker, result and last entries.

        Also its retries, its cancellation and its dead letter, if it has them.
        """
        found = asyncio.run(_read(session, run, last))
        if session.as_json:
            print_json(
                run_json(found.run)
                | {
                    "result": result_json(found.result),
                    "dead": found.dead_reason,
                    "journal": [_entry_json(each) for each in found.entries],
                }
            )
            return
        _print_run(found.run, found.dead_reason)
        _print_result(found.run, found.result)
        _print_entries(found.entries, found.run.version)


async def _read(session: Session, run_id: str, last: int) -> ShownRun:
    async with open_run_source(session) as source:
        run = await source.snapshot(run_id)
        return ShownRun(
            run,
            await source.result(run),
            await source.dead_reason(run),
            await source.last_entries(run, last) if last else [],
        )


def shown_fields(entry: JournalEntry) -> dict[str, str]:
    """An entry's fields without the fencing token, which lets its holder write as the worker."""
    return {name: value for name, value in entry.fields.items() if name != "claim"}


def _entry_json(entry: JournalEntry) -> dict[str, Any]:
    return {"id": entry.id, "cursor": entry.cursor, "seq": entry.seq, **shown_fields(entry)}


def _print_run(run: Run, dead_reason: str | None) -> None:
    took = duration_text(run.started_ms, run.ended_ms)
    rows: list[tuple[str, str | Text]] = [
        ("run", run.run_id),
        ("target", run.target),
        ("state", state_text(run.state)),
        ("progress", progress_text(run.progress)),
        ("attempt", _attempt_text(run)),
        (
            "worker",
            printable(run.worker or "-") + (f" on {printable(run.host)}" if run.host else ""),
        ),
        ("created", moment_text(run.created_at)),
        ("started", moment_text(run.started_at)),
        ("ended", f"{moment_text(run.ended_at)}  {took}".strip()),
        *_plans(run),
        *_cancel_rows(run),
        ("journal", f"{run.version} entries"),
    ]
    if run.checkpoint_size is not None:
        rows.append(("saved", f"a checkpoint of {run.checkpoint_size:,} bytes"))
    if dead_reason is not None:
        rows.append(("dead", f"{printable(dead_reason)}; murmur-streams dead show {run.run_id}"))
    if run.metadata is not None:
        rows.append(("metadata", compact(run.metadata)))
    screen = console()
    for name, value in rows:
        shown = Text(value) if isinstance(value, str) else value
        screen.print(Text.assemble((f"{name:<9} ", "dim"), shown))


def _attempt_text(run: Run) -> str:
    text = f", {run.failures} failed" if run.failures else ""
    return f"{run.attempt}{text}"


def _plans(run: Run) -> list[tuple[str, str]]:
    """The options of the submission or of a retry."""
    rows: list[tuple[str, str]] = []
    if run.due_ms is not None:
        rows.append(("due", moment_text(moment_of(run.due_ms))))
    if run.deadline_ms is not None:
        rows.append(("deadline", moment_text(moment_of(run.deadline_ms))))
    if run.priority:
        rows.append(("priority", str(run.priority)))
    return rows


def _cancel_rows(run: Run) -> list[tuple[str, str]]:
    if run.cancel_requested is None:
        return []
    reason = f"  {printable(run.cancel_reason)}" if run.cancel_reason else ""
    rows = [("cancel", f"requested {moment_text(moment_of(run.cancel_requested))}{reason}")]
    if run.cancel_delivered is not None:
        rows.append(("", f"delivered {moment_text(moment_of(run.cancel_delivered))}"))
    return rows


def _print_result(run: Run, result: RunResult | None) -> None:
    found = result_json(result)
    output = None if found is None else found.get("outputs", found.get("output"))
    screen = console()
    if output is not None:
        screen.print(Text("result", style="dim"))
        print_pretty(output)
    wrong = failure_text(run, result)
    if wrong:
        screen.print(Text("error     ", style="dim").append(wrong, style="red"))
    for line in _first_and_last(error_lines(run)):
        screen.print(Text("attempt   ", style="dim").append(printable(line), style="none"))


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
    screen = console()
    screen.print(Text(f"last {len(entries)} of {version} entries (UTC)", style="dim"))
    for entry in entries:
        moment = datetime.fromtimestamp(entry.ms / 1000, UTC).strftime("%H:%M:%S.%f")[:-3]
        text = "  ".join(
            f"{printable(name)}={compact(value)}"
            for name, value in shown_fields(entry).items()
            if name not in {"type", "ts"}
        )
        screen.print(
            Text(f"  {moment}  #{entry.seq:<4} ", style="dim")
            .append(f"{printable(entry.type):<15} ", style="cyan")
            .append(text)
        )
