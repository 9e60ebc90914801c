"""``murmur-streams import``: runs that ``export`` wrote become runs of this store."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path
from typing import Annotated

import typer

from murmur_streams.cli.command import FAILED, command
from murmur_streams.cli.printing import print_json, printable, tell
from murmur_streams.cli.run_files import RunReader
from murmur_streams.cli.session import Session
from murmur_streams.cli.tally import Tally, is_terminal, shown, tell_runs
from murmur_streams.core.archive import RunArchive
from murmur_streams.core.errors import (
    InvalidArchiveError,
    MurmurError,
    RunExistsError,
    RunNotFoundError,
)
from murmur_streams.core.protocol import RunStore

File = Annotated[
    Path | None,
    typer.Argument(metavar="FILE", help="What export wrote. Default: stdin.", show_default=False),
]
SkipExisting = Annotated[
    bool,
    typer.Option("--skip-existing", help="Leave ids that other runs have to them: no failure."),
]


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
        tally, taken = Tally(), list[str]()
        try:
            asyncio.run(_import(session, path, tally, taken))
        except KeyboardInterrupt:
            tell(f"interrupted after {tally.words}; {_AGAIN}")
            raise
        except MurmurError:
            if not session.as_json and tally.runs:
                tell(f"imported {tally.words} before that; {_AGAIN}")
            raise
        _conclude(session, tally, taken, is_failure=bool(taken) and not skip_existing)


_AGAIN = "import it again to go on: what is here is skipped"


async def _import(session: Session, path: Path | None, tally: Tally, taken: list[str]) -> None:
    with RunReader(path) as source:
        async with session.store() as store, aclosing(source.runs()) as runs:
            with shown(tally) as show:
                async for archive in runs:
                    await _restore(store, archive, source, tally, taken)
                    tally.bytes = source.bytes
                    show()


async def _restore(
    store: RunStore, archive: RunArchive, source: RunReader, tally: Tally, taken: list[str]
) -> None:
    try:
        is_new = await store.restore(archive)
    except RunExistsError:
        taken.append(archive.run_id)
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


def _conclude(session: Session, tally: Tally, taken: list[str], *, is_failure: bool) -> None:
    if session.as_json:
        print_json(tally.json() | {"taken": taken, "not_clean": tally.wrong})
    else:
        print(f"imported {tally.words} in {tally.seconds:.1f} s; the new ones were audited")
        if taken:
            tell_runs("not imported, since other runs here have these ids", taken)
        if tally.wrong:
            tell_runs("NOT CLEAN (see murmur-streams audit)", tally.wrong)
    if is_failure or tally.wrong:
        raise typer.Exit(FAILED)
