"""``murmur-streams export``: runs as lines of JSON, for ``import`` into any store."""

from __future__ import annotations

import asyncio
import json
import shlex
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Annotated

import typer

from murmur_streams.cli.data.audit import concerns_one_run, damage_reason
from murmur_streams.cli.data.resume_export import Asked, Whole, check_resumable, read_whole
from murmur_streams.cli.data.run_files import RunWriter, writing
from murmur_streams.cli.data.transfer_progress import TransferCounts, print_run_ids, shown
from murmur_streams.cli.shell.command import FAILED, command
from murmur_streams.cli.shell.options import State, Target
from murmur_streams.cli.shell.printing import print_json, print_message, printable
from murmur_streams.cli.shell.run_source import every_run
from murmur_streams.cli.shell.session import Session
from murmur_streams.core.archive.run_archive import verify
from murmur_streams.core.model.errors import MurmurError, RunNotFoundError, StoreError
from murmur_streams.core.model.pages import RunFilter
from murmur_streams.stores.work_store import WorkStore

AnyRuns = Annotated[
    list[str] | None,
    typer.Argument(metavar="RUN", help="Ids of runs. Default: all.", show_default=False),
]
Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="FILE", help="A new file. Default: stdout."),
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on after the last whole run in FILE.")]


def resume_command(session: Session, asked: Asked, path: Path) -> str:
    """The command that continues this export."""
    which = asked.which
    options = {"--state": which.state and str(which.state), "--target": which.target}
    argv = ["murmur-streams", "export", *asked.run_ids, *session.given.argv()]
    argv += [part for name, value in options.items() if value for part in (name, value)]
    return shlex.join([*argv, "--resume", "-o", str(path)])


@command(
    "export",
    examples=(
        "murmur-streams export -o runs.ndjson",
        "murmur-streams export --state completed | gzip > completed.ndjson.gz",
        "murmur-streams export --url redis://old | murmur-streams import --url redis://new",
    ),
)
async def export(
    session: Session,
    runs: AnyRuns = None,
    state: State = None,
    target: Target = None,
    output: Output = None,
    resume: Resume = False,
) -> None:
    """Write runs with their journals and payloads as lines of JSON (docs/moving.md).

    Newest first. With --resume an export that was interrupted goes on in the same file; runs
    created meanwhile are only in a new export. Exit code 0 when all were written, 1 when a run
    is damaged and was left out.
    """
    path = None if output is None or str(output) == "-" else output
    if runs and (state is not None or target is not None):
        raise typer.BadParameter("name runs, or choose them by --state and --target")
    if resume and path is None:
        raise typer.BadParameter("--resume needs the file to go on with: -o FILE")
    if path is None and sys.stdout.isatty():
        raise typer.BadParameter("this is for a file or a program, not a terminal: -o FILE")
    # Duplicates are removed, and the filter is checked before the file is created.
    asked = Asked(tuple(dict.fromkeys(runs or [])), RunFilter.of(state, target, None))
    counts = TransferCounts()
    try:
        await _export(session, asked, path, counts, resume=resume)
    except (KeyboardInterrupt, asyncio.CancelledError, MurmurError) as error:
        is_interrupted = not isinstance(error, MurmurError)
        is_shown = is_interrupted or (counts.has_begun and not session.as_json)
        if path is not None and is_shown:
            again = resume_command(session, asked, path)
            print_message(f"interrupted after {counts.text}; go on with: {again}")
        raise
    _conclude(session, counts, path)


async def _export(
    session: Session, asked: Asked, path: Path | None, counts: TransferCounts, *, resume: bool
) -> None:
    async with session.store() as store:
        for run_id in asked.run_ids:
            # Raises RunNotFoundError.
            await store.get_status(run_id)
        whole, size = Whole(), None
        if resume and path is not None:
            whole = read_whole(path, frozenset(asked.run_ids))
            await check_resumable(path, whole, asked, store)
            counts.skipped, size = whole.runs, whole.size
        with writing(path, size) as out, shown(counts) as show:
            counts.has_begun = True
            if not size:
                out.begin(asked.members)
            async with aclosing(_ids(store, asked, whole)) as run_ids:
                async for run_id in run_ids:
                    await _write(store, run_id, out, counts, show)
            out.finish()


async def _ids(store: WorkStore, asked: Asked, whole: Whole) -> AsyncGenerator[str]:
    """The runs that the file lacks: the named ones in their order, or all, newest first."""
    for run_id in asked.run_ids:
        if run_id not in whole.run_ids:
            yield run_id
    if not asked.run_ids:
        which = asked.which
        async for run in every_run(
            store.list_runs, state=which.state, target=which.target, cursor=whole.cursor
        ):
            yield run.run_id


async def _write(
    store: WorkStore, run_id: str, out: RunWriter, counts: TransferCounts, show: Callable[[], None]
) -> None:
    try:
        archive = await store.archive(run_id)
    except RunNotFoundError:
        counts.gone += 1
        return
    except StoreError as error:
        if not concerns_one_run(error):
            raise
        wrong = f"cannot be read and is left out: {damage_reason(error)}"
    else:
        if not (problems := verify(archive).problems):
            out.write(archive)
            counts.add(len(archive.entries))
            counts.bytes = out.bytes
            show()
            return
        wrong = f"is damaged and left out: {problems[0]}"
    counts.wrong.append(run_id)
    print_message(f"run {printable(run_id)} {wrong}")


def _conclude(session: Session, counts: TransferCounts, path: Path | None) -> None:
    if session.as_json:
        summary = counts.json() | {"gone": counts.gone, "damaged": counts.wrong}
        # Where stdout has the runs, the summary goes to stderr.
        print_message(json.dumps(summary)) if path is None else print_json(summary)
    else:
        print_message(f"exported {counts.text} in {counts.seconds:.1f} s")
        print_run_ids("damaged, and left out (see murmur-streams audit)", counts.wrong)
    if counts.wrong:
        raise typer.Exit(FAILED)
