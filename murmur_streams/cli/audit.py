"""``murmur-streams audit RUN...``."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Annotated

import typer
from rich.text import Text

from murmur_streams.cli.command import FAILED, command
from murmur_streams.cli.printing import console, print_json, printable
from murmur_streams.cli.session import Session
from murmur_streams.core.audit import AuditReport

Runs = Annotated[list[str], typer.Argument(metavar="RUN", help="Ids of runs.")]


def register(app: typer.Typer) -> None:
    """Add the command."""

    @command(
        app,
        "audit",
        examples=("murmur-streams audit my-run", "murmur-streams audit run-1 run-2 --json"),
    )
    def audit(session: Session, runs: Runs) -> None:
        """Check that what is stored for a run is what its journal says.

        Exit code 0 when all of them are clean, 1 when not.
        """
        if not asyncio.run(_audit_all(session, runs)):
            raise typer.Exit(FAILED)


async def _audit_all(session: Session, runs: list[str]) -> bool:
    all_clean = True
    async with session.store() as store:
        for run_id in runs:
            report = await store.audit(run_id)
            all_clean = all_clean and report.ok
            if session.as_json:
                print_json(asdict(report) | {"ok": report.ok})
            else:
                _print_report(report)
    return all_clean


def _print_report(report: AuditReport) -> None:
    screen = console()
    verdict = Text("clean", "green") if report.ok else Text("NOT CLEAN", "bold red")
    screen.print(
        Text(f"{report.run_id}  ").append(verdict).append(f"  {report.entries} entries", "dim")
    )
    for problem in report.problems:
        screen.print(Text(f"  problem: {printable(problem)}", "red"))
    for note in report.notes:
        screen.print(Text(f"  note: {printable(note)}", "dim"))
