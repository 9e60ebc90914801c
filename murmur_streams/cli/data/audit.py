"""``murmur-streams audit RUN...``, ``audit --all`` and ``rebuild RUN...``."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from murmur_streams.cli.shell.command import FAILED, command
from murmur_streams.cli.shell.printing import console, print_json, printable
from murmur_streams.cli.shell.run_source import every_run
from murmur_streams.cli.shell.session import Session
from murmur_streams.core.model import errors
from murmur_streams.core.rules.audit import AuditReport
from murmur_streams.stores.work_store import WorkStore

Runs = Annotated[list[str], typer.Argument(metavar="RUN", help="Ids of runs.")]
AnyRuns = Annotated[
    list[str] | None, typer.Argument(metavar="RUN", help="Ids of runs.", show_default=False)
]
AllRuns = Annotated[bool, typer.Option("--all", help="All runs of the listing, instead of ids.")]

_NO_REBUILD = "its journal is damaged, so rebuild cannot mend it: import it from an older export"
_REBUILD = "`murmur-streams rebuild` may mend it"


@command("audit")
async def audit(session: Session, runs: AnyRuns = None, every: AllRuns = False) -> None:
    """Check that what is stored for a run is what its journal says.

    With --all those that are clean are only counted; with --json each has a line. Exit code 0
    when all of them are clean, 1 when not.

    Examples:
        murmur-streams audit my-run
        murmur-streams audit --all --json
    """
    if bool(runs) == every:
        raise typer.BadParameter("name runs, or --all")
    count = unclean = 0
    # On a terminal only, and gone at the end.
    with Console(stderr=True).status("") as status:
        async with session.store() as store:
            async for report in _reports(store, runs):
                count += 1
                unclean += not report.ok
                if session.as_json:
                    print_json(asdict(report) | {"ok": report.ok})
                elif not (every and report.ok):
                    _print_report(report, "clean", f"{report.entries} entries")
                status.update(_summary(count, unclean))
    if every and not session.as_json:
        print(_summary(count, unclean))
    if unclean:
        raise typer.Exit(FAILED)


@command("rebuild")
async def rebuild(session: Session, runs: Runs) -> None:
    """Write what is stored for a run anew from its journal, then audit it.

    The journal is the truth: whatever else was damaged is mended. Exit code 0 when all of
    them are clean afterwards, 1 when not.

    Examples:
        murmur-streams audit my-run
        murmur-streams rebuild my-run
    """
    all_clean = True
    async with session.store() as store:
        for run_id in runs:
            await store.rebuild(run_id)
            report = await store.audit(run_id)
            all_clean = all_clean and report.ok
            if session.as_json:
                print_json({"run_id": run_id, "ok": report.ok, "problems": report.problems})
            else:
                _print_report(report, "rebuilt", f"from {report.entries} entries")
    if not all_clean:
        raise typer.Exit(FAILED)


async def _reports(store: WorkStore, run_ids: list[str] | None) -> AsyncGenerator[AuditReport]:
    """The reports of these runs; without any, of all runs."""
    for run_id in run_ids or ():
        yield await _audit_run(store, run_id)
    if run_ids:
        return
    async for run in every_run(store.list_runs):
        try:
            report = await _audit_run(store, run.run_id)
        except errors.RunNotFoundError:
            # It has expired, or was deleted, since it was listed.
            continue
        yield report


async def _audit_run(store: WorkStore, run_id: str) -> AuditReport:
    """The store's report; a run that cannot be read is not clean, and the next one is audited."""
    try:
        return await store.audit(run_id)
    except errors.StoreError as error:
        if not concerns_one_run(error):
            raise
        return AuditReport(run_id, 0, (f"it cannot be read: {damage_reason(error)}",))


def concerns_one_run(error: errors.StoreError) -> bool:
    """Whether only this run cannot be read, so that a command may go on with the next one."""
    # Errors of the connection, the settings or a full disk have classes of their own.
    return (
        isinstance(error, errors.RunDamagedError | errors.StoreDamagedError)
        or type(error) is errors.StoreError
    )


def damage_reason(error: errors.StoreError) -> str:
    """Why a run cannot be read, and what may help; without the run's id."""
    if not isinstance(error, errors.RunDamagedError):
        return str(error)
    return f"{error.what}; {_REBUILD if error.can_rebuild else _NO_REBUILD}"


def _summary(count: int, unclean: int) -> str:
    return f"{count:,} {'run' if count == 1 else 'runs'} audited, {unclean:,} not clean"


def _print_report(report: AuditReport, verdict: str, entries: str) -> None:
    """Print a report; ``verdict``: for a run that is clean."""
    screen = console()
    shown = (verdict, "green") if report.ok else ("NOT CLEAN", "bold red")
    screen.print(Text.assemble(f"{report.run_id}  ", shown, (f"  {entries}", "dim")))
    for problem in report.problems:
        screen.print(Text(f"  problem: {printable(problem)}", "red"))
    for note in report.notes:
        screen.print(Text(f"  note: {printable(note)}", "dim"))
