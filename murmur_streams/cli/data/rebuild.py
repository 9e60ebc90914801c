"""``murmur-streams rebuild RUN...``."""

from __future__ import annotations

import asyncio

import typer
from rich.text import Text

from murmur_streams.cli.data.audit import Runs
from murmur_streams.cli.shell.command import FAILED, command
from murmur_streams.cli.shell.printing import console, print_json, printable
from murmur_streams.cli.shell.session import Session


def register(app: typer.Typer) -> None:
    """Add the command."""

    @command(
        app,
        "rebuild",
        examples=("murmur-streams audit my-run", "murmur-streams rebuild my-run"),
    )
    def rebuild(session: Session, runs: Runs) -> None:
        """Write what is stored for a run anew from its journal, then audit it.

        The journal is the truth: whatever else was damaged is mended. Exit code 0 when all of
        them are clean afterwards, 1 when not.
        """
        if not asyncio.run(_rebuild_all(session, runs)):
            raise typer.Exit(FAILED)


async def _rebuild_all(session: Session, runs: list[str]) -> bool:
    all_clean, screen = True, console()
    async with session.store() as store:
        for run_id in runs:
            await store.rebuild(run_id)
            report = await store.audit(run_id)
            all_clean = all_clean and report.ok
            if session.as_json:
                print_json({"run_id": run_id, "ok": report.ok, "problems": report.problems})
                continue
            verdict = Text("rebuilt", "green") if report.ok else Text("NOT CLEAN", "bold red")
            line = Text(f"{report.run_id}  ").append(verdict)
            screen.print(line.append(f"  from {report.entries} entries", "dim"))
            for problem in report.problems:
                screen.print(Text(f"  problem: {printable(problem)}", "red"))
    return all_clean
