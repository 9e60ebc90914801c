"""``murmur-streams show RUN``."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Annotated, Any, cast

import typer
from rich.text import Text

from murmur_streams.cli.command import RunId, command
from murmur_streams.cli.outcome import error_words, print_pretty, result_json
from murmur_streams.cli.printing import (
    compact,
    console,
    moment_words,
    print_json,
    printable,
    progress_words,
    run_json,
    seconds_words,
    state_text,
)
from murmur_streams.cli.session import Session
from murmur_streams.core.entries import JournalEntry
from murmur_streams.core.results import RunResult
from murmur_streams.core.run import Run
from murmur_streams.stores.redis.store import RedisRunStore
from murmur_streams.stores.redis.tail import read_entry

Last = Annotated[
    int, typer.Option("--last", metavar="N", min=0, max=10_000, help="Journal entries to show.")
]


def register(app: typer.Typer) -> None:
    """Add the command."""

    @command(
        app,
        "show",
        examples=("murmur-streams show my-run", "murmur-streams show my-run --json | jq .state"),
    )
    def show(session: Session, run: RunId, last: Last = 5) -> None:
        """Print what is known of a run: state, progress, times, worker, result, last entries."""
        found, result, entries = asyncio.run(_read(session, run, last))
        if session.as_json:
            print_json(
                run_json(found)
                | {"result": result_json(result), "journal": [_entry_json(e) for e in entries]}
            )
            return
        _print_run(found)
        _print_result(found, result)
        _print_entries(entries, found.version)


async def _read(
    session: Session, run_id: str, last: int
) -> tuple[Run, RunResult | None, list[JournalEntry]]:
    async with session.store() as store:
        run = await store.snapshot(run_id)
        result = await store.get_result(run_id)
        return run, result, await last_entries(store, run, last) if last else []


async def last_entries(store: RedisRunStore, run: Run, count: int) -> list[JournalEntry]:
    """The newest entries of the run's journal, oldest first."""
    journal = store.keys.journal(run.run_id)
    page = cast(
        "list[Any]", await store.server.read("XREVRANGE", journal, "+", "-", "COUNT", count)
    )
    return [read_entry(run.run_id, run.epoch, raw) for raw in reversed(page)]


def _entry_json(entry: JournalEntry) -> dict[str, Any]:
    return {"id": entry.id, "cursor": entry.cursor, "seq": entry.seq, **entry.fields}


def _print_run(run: Run) -> None:
    took = seconds_words(run.started_ms, run.ended_ms)
    rows: list[tuple[str, str | Text]] = [
        ("run", run.run_id),
        ("target", run.target),
        ("state", state_text(run.state)),
        ("progress", progress_words(run.progress)),
        ("attempt", str(run.attempt)),
        ("worker", printable(run.worker or "-")),
        ("created", moment_words(run.created_at)),
        ("started", moment_words(run.started_at)),
        ("ended", f"{moment_words(run.ended_at)}  {took}".strip()),
        ("journal", f"{run.version} entries"),
    ]
    if run.metadata is not None:
        rows.append(("metadata", compact(run.metadata)))
    screen = console()
    for name, value in rows:
        screen.print(Text(f"{name:<9} ", style="dim").append(value))


def _print_result(run: Run, result: RunResult | None) -> None:
    found = result_json(result)
    output = None if found is None else found.get("outputs", found.get("output"))
    if output is not None:
        console().print(Text("result", style="dim"))
        print_pretty(output)
    wrong = error_words(run, result)
    if wrong:
        console().print(Text("error     ", style="dim").append(wrong, style="red"))


def _print_entries(entries: list[JournalEntry], version: int) -> None:
    if not entries:
        return
    screen = console()
    screen.print(Text(f"last {len(entries)} of {version} entries (UTC)", style="dim"))
    for entry in entries:
        moment = datetime.fromtimestamp(entry.ms / 1000, UTC).strftime("%H:%M:%S.%f")[:-3]
        words = "  ".join(
            f"{printable(name)}={compact(value)}"
            for name, value in entry.fields.items()
            if name not in {"type", "ts"}
        )
        screen.print(
            Text(f"  {moment}  #{entry.seq:<4} ", style="dim")
            .append(f"{printable(entry.type):<15} ", style="cyan")
            .append(words)
        )
