"""``murmur-streams import``: runs that ``export`` wrote become runs of this store."""

from __future__ import annotations

import asyncio
import sys
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from murmur_streams.cli.data.transfer import RunReader, TransferCounts, print_run_ids, shown
from murmur_streams.cli.shell.command import FAILED, command
from murmur_streams.cli.shell.printing import print_json, print_message, printable
from murmur_streams.cli.shell.session import Session
from murmur_streams.core.archive.run_archive import RunArchive
from murmur_streams.core.model import errors
from murmur_streams.stores.work_store import WorkStore

File = Annotated[
    Path | None,
    typer.Argument(
        metavar="FILE", help="A file that export wrote. Default: stdin.", show_default=False
    ),
]
SkipExisting = Annotated[
    bool,
    typer.Option("--skip-existing", help="Skip runs whose ids other runs here have: no failure."),
]


@dataclass(slots=True)
class ImportCounts(TransferCounts):
    """Counts of an import, with the runs that it left out because their ids exist here."""

    taken: list[str] = field(default_factory=list[str])
    """Ids that belong to other runs here."""
    older: list[str] = field(default_factory=list[str])
    """Ids of runs of which an older copy is here."""


_AGAIN = "import it again to go on: what is here is skipped"


@command("import")
async def import_(session: Session, file: File = None, skip_existing: SkipExisting = False) -> None:
    """Read runs that export wrote into this store, and audit each one there (docs/moving.md).

    Each is written whole or not at all, and one that is here already is skipped: to resume an
    import that was interrupted, start it again. Exit code 0 when all are here and clean, 1
    when an id has another run here, or an audit finds something.

    Examples:
        murmur-streams import runs.ndjson
        gunzip -c completed.ndjson.gz | murmur-streams import --url redis://new
    """
    path = None if file is None or str(file) == "-" else file
    if path is None and sys.stdin.isatty():
        raise typer.BadParameter("name the FILE, or send what export writes to stdin")
    counts = ImportCounts(reads=True)
    try:
        await _import(session, path, counts)
    except (KeyboardInterrupt, asyncio.CancelledError):
        print_message(f"interrupted after {counts.text}; {_AGAIN}")
        raise
    except errors.MurmurError as error:
        if not session.as_json and counts.runs:
            # A damaged file stays damaged: only after an error of the store is a retry useful.
            again = f"; {_AGAIN}" if isinstance(error, errors.StoreError) else ""
            print_message(f"imported {counts.text} before that{again}")
        raise
    _conclude(session, counts)
    is_left = (counts.taken or counts.older) and not skip_existing
    if is_left or counts.wrong:
        raise typer.Exit(FAILED)


async def _import(session: Session, path: Path | None, counts: ImportCounts) -> None:
    with RunReader(path) as source:
        is_new = not session.store_exists
        async with session.store(may_be_new=True) as store, aclosing(source.runs()) as runs:
            if is_new:
                print_message(f"a new store at {session.path}")
            with shown(counts):
                async for archive in runs:
                    await _restore(store, archive, source, counts)
                    counts.bytes = source.bytes
                    counts.show()
                counts.bytes = source.bytes


async def _restore(
    store: WorkStore, archive: RunArchive, source: RunReader, counts: ImportCounts
) -> None:
    try:
        is_new = await store.restore(archive)
    except errors.RunExistsError:
        is_same = await _is_same_life(store, archive)
        (counts.older if is_same else counts.taken).append(archive.run_id)
        return
    except errors.InvalidArchiveError as error:
        raise errors.InvalidArchiveError(f"{source.name}: {error}") from None
    if not is_new:
        counts.skipped += 1
        return
    counts.add(len(archive.entries))
    try:
        report = await store.audit(archive.run_id)
    except errors.RunNotFoundError:
        # It expired or was deleted after it was written here.
        return
    if not report.ok:
        counts.wrong.append(archive.run_id)
        print_message(f"run {printable(archive.run_id)} is not clean: {report.problems[0]}")


async def _is_same_life(store: WorkStore, archive: RunArchive) -> bool:
    """Whether the run with this id here is the same run, at an earlier or a later version."""
    try:
        return (await store.snapshot(archive.run_id)).epoch == archive.epoch
    except (errors.RunNotFoundError, errors.RunDamagedError):
        return False


def _conclude(session: Session, counts: ImportCounts) -> None:
    if session.as_json:
        more = {"taken": counts.taken, "older": counts.older, "not_clean": counts.wrong}
        print_json(counts.json() | more)
        return
    print(f"imported {counts.text} in {counts.seconds:.1f} s; the new ones were audited")
    print_run_ids("not imported, since other runs here have these ids", counts.taken)
    print_run_ids(
        "not imported, since an older copy of each is here (delete it first to have the newer one)",
        counts.older,
    )
    print_run_ids("NOT CLEAN (see murmur-streams audit)", counts.wrong)
