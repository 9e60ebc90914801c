"""``murmur-streams show RUN``."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.text import Text

from murmur_streams.cli.shell import printing
from murmur_streams.cli.shell.command import command
from murmur_streams.cli.shell.options import RunId
from murmur_streams.cli.shell.run_source import open_run_source
from murmur_streams.cli.shell.session import Session
from murmur_streams.core.model.entries import JournalEntry
from murmur_streams.core.model.results import RunResult
from murmur_streams.core.model.run import Run

FAILURES_AT_EACH_END = 3
"""How many of the first and of the last failures are printed."""

Last = Annotated[
    int, typer.Option("--last", metavar="N", min=0, max=10_000, help="Journal entries to show.")
]


@command(
    "show",
    over_http=True,
    examples=("murmur-streams show my-run", "murmur-streams show my-run --json | jq .state"),
)
async def show(session: Session, run: RunId, last: Last = 5) -> None:
    """Print a run: its state, progress, times, worker, result and last entries.

    Also its retries, its cancellation and its dead letter, if it has them.
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
