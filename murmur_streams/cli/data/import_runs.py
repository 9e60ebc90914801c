"""``murmur-streams import``: runs that ``export`` wrote become runs of this store."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from murmur_streams.cli.data.run_files import RunReader
from murmur_streams.cli.data.transfer_progress import Tally, is_terminal, shown, tell_runs
from murmur_streams.cli.shell.command import FAILED, command
from murmur_streams.cli.shell.printing import print_json, printable, tell
from murmur_streams.cli.shell.session import Session
from murmur_streams.core.archive.run_archive import RunArchive
from murmur_streams.core.model.errors import (
    InvalidArchiveError,
    MurmurError,
    RunDamagedError,
    RunExistsError,
    RunNotFoundError,
    StoreError,
)
from murmur_streams.stores.work_store import WorkStore

File = Annotated[
    Path | None,
    typer.Argument(metavar="FILE", help="What export wrote. Default: stdin.", show_default=False),
]
SkipExisting = Annotated[
    bool,
    typer.Option("--skip-existing", help="Leave ids that other runs have to them: no failure."),
]


@dataclass(slots=True)
class ImportTally(Tally):
    """What an import counts, too: ids that it left to those who have them."""

    taken: list[str] = field(default_factory=list[str])
    """By other runs."""
    older: list[str] = field(default_factory=list[str])
    """By a copy of the same run that has not come as far."""


def register(app: typer.Typer) -> None:
    """Add the command."""

    @command(
        app,
        "import",
        examples=(
            "murmur-streams import runs.ndjson",
            "gunzip -c completed.ndjson.gz | murmur-streams import --url redis://new",
        ),
    )
    def import_(session: Session, file: File = None, skip_existing: SkipExisting = False) -> None:
        """Read runs that export wrote, and audit each where it is now (docs/moving.md).

        Each is written whole or not at all, and one that is here already is skipped: an import
        that was interrupted is simply done again. Exit code 0 when all are here and clean, 1 when
        an id has another run here, or an audit finds something.
        """
        path = None if file is None or str(file) == "-" else file
        if path is None and is_terminal(0):
            raise typer.BadParameter("name the FILE, or send what export writes to stdin")
        tally = ImportTally(reads=True)
        try:
            asyncio.run(_import(session, path, tally))
        except KeyboardInterrupt:
            tell(f"interrupted after {tally.words}; {_AGAIN}")
            raise
        except MurmurError as error:
            if not session.as_json and tally.runs:
                # What is wrong with the file will be wrong with it again.
                again = f"; {_AGAIN}" if isinstance(error, StoreError) else ""
                tell(f"imported {tally.words} before that{again}")
            raise
        is_left = tally.taken or tally.older
        _conclude(session, tally, is_failure=bool(is_left) and not skip_existing)


_AGAIN = "import it again to go on: what is here is skipped"


async def _import(session: Session, path: Path | None, tally: ImportTally) -> None:
    with RunReader(path) as source:
        is_new = not session.is_there
        async with session.store(may_be_new=True) as store, aclosing(source.runs()) as runs:
            if is_new:
                tell(f"a new store at {session.path}")
            with shown(tally) as show:
                async for archive in runs:
                    await _restore(store, archive, source, tally)
                    tally.bytes = source.bytes
                    show()
                tally.bytes = source.bytes


async def _restore(
    store: WorkStore, archive: RunArchive, source: RunReader, tally: ImportTally
) -> None:
    try:
        is_new = await store.restore(archive)
    except RunExistsError:
        is_same = await _is_same_life(store, archive)
        (tally.older if is_same else tally.taken).append(archive.run_id)
        return
    except InvalidArchiveError as error:
        raise InvalidArchiveError(f"{source.name}: {error}") from None
    if not is_new:
        tally.skipped += 1
        return
    tally.add(len(archive.entries))
    try:
        report = await store.audit(archive.run_id)
    except RunNotFoundError:
        # It has expired, or was deleted, since it was written.
        return
    if not report.ok:
        tally.wrong.append(archive.run_id)
        tell(f"run {printable(archive.run_id)} is not clean: {report.problems[0]}")


async def _is_same_life(store: WorkStore, archive: RunArchive) -> bool:
    """Whether the run that has the id is this one at another moment, and not another one."""
    try:
        return (await store.snapshot(archive.run_id)).epoch == archive.epoch
    except (RunNotFoundError, RunDamagedError):
        return False


def _conclude(session: Session, tally: ImportTally, *, is_failure: bool) -> None:
    if session.as_json:
        more = {"taken": tally.taken, "older": tally.older, "not_clean": tally.wrong}
        print_json(tally.json() | more)
    else:
        print(f"imported {tally.words} in {tally.seconds:.1f} s; the new ones were audited")
        if tally.taken:
            tell_runs("not imported, since other runs here have these ids", tally.taken)
        if tally.older:
            tell_runs(
                "not imported, since an older copy of each is here (delete it first to have the "
                "newer one)",
                tally.older,
            )
        if tally.wrong:
            tell_runs("NOT CLEAN (see murmur-streams audit)", tally.wrong)
    if is_failure or tally.wrong:
        raise typer.Exit(FAILED)
