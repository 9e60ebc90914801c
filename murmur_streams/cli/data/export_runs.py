"""``murmur-streams export``: runs as lines of JSON, for ``import`` into any store.

An export that was interrupted goes on in its file, if that holds the same selection of the store.
"""

from __future__ import annotations

import asyncio
import json
import shlex
import sys
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, BinaryIO, cast

import typer

from murmur_streams.cli.data import transfer
from murmur_streams.cli.data.audit import concerns_one_run, damage_reason
from murmur_streams.cli.shell.command import FAILED, command
from murmur_streams.cli.shell.options import State, Target
from murmur_streams.cli.shell.printing import print_json, print_message, printable
from murmur_streams.cli.shell.run_source import every_run
from murmur_streams.cli.shell.session import Session
from murmur_streams.core.archive import lines
from murmur_streams.core.archive.run_archive import verify
from murmur_streams.core.model import errors
from murmur_streams.core.model.run import Run, RunFilter, listing_key
from murmur_streams.core.rules.evolve import fold
from murmur_streams.stores.work_store import WorkStore

_INSTEAD = "go on with the options that it was begun with, or export to another file"

AnyRuns = Annotated[
    list[str] | None,
    typer.Argument(metavar="RUN", help="Ids of runs. Default: all.", show_default=False),
]
Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="FILE", help="A new file. Default: stdout."),
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on after the last whole run in FILE.")]


@dataclass(slots=True)
class Whole:
    """The contents of an unfinished file up to the end of its last whole run."""

    runs: int = 0
    size: int = 0
    """In bytes; 0: the first line is missing or incomplete."""
    of: object = None
    """The selection of runs that its first line names; None when it names none."""
    last: Run | None = None
    """The last run, as it was when it was written."""
    cursor: str | None = None
    """The cursor of a listing that continues after the last run."""
    run_ids: set[str] = field(default_factory=set[str])
    """The wanted runs that it contains."""


@dataclass(frozen=True, slots=True)
class Asked:
    """The selection of runs of an export."""

    run_ids: tuple[str, ...]
    which: RunFilter

    @property
    def members(self) -> dict[str, object]:
        """The selection for the first line of a file, without the ids, which may be many."""
        state, target = self.which.state, self.which.target
        return {"state": state and str(state), "target": target, "ids": bool(self.run_ids)}


def resume_command(session: Session, asked: Asked, path: Path) -> str:
    """The command that continues this export."""
    which = asked.which
    options = {"--state": which.state and str(which.state), "--target": which.target}
    argv = ["murmur-streams", "export", *asked.run_ids, *session.given.argv()]
    argv += [part for name, value in options.items() if value for part in (name, value)]
    return shlex.join([*argv, "--resume", "-o", str(path)])


@command("export")
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

    Examples:
        murmur-streams export -o runs.ndjson
        murmur-streams export --state completed | gzip > completed.ndjson.gz
        murmur-streams export --url redis://old | murmur-streams import --url redis://new
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
    counts = transfer.TransferCounts()
    try:
        await _export(session, asked, path, counts, resume=resume)
    except (KeyboardInterrupt, asyncio.CancelledError, errors.MurmurError) as error:
        is_interrupted = not isinstance(error, errors.MurmurError)
        is_shown = is_interrupted or (counts.has_begun and not session.as_json)
        if path is not None and is_shown:
            again = resume_command(session, asked, path)
            print_message(f"interrupted after {counts.text}; go on with: {again}")
        raise
    _conclude(session, counts, path)


async def _export(
    session: Session,
    asked: Asked,
    path: Path | None,
    counts: transfer.TransferCounts,
    *,
    resume: bool,
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
        with transfer.writing(path, size) as out, transfer.shown(counts):
            counts.has_begun = True
            if not size:
                out.begin(asked.members)
            async with aclosing(_ids(store, asked, whole)) as run_ids:
                async for run_id in run_ids:
                    await _write(store, run_id, out, counts)
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
    store: WorkStore, run_id: str, out: transfer.RunWriter, counts: transfer.TransferCounts
) -> None:
    try:
        archive = await store.archive(run_id)
    except errors.RunNotFoundError:
        counts.gone += 1
        return
    except errors.StoreError as error:
        if not concerns_one_run(error):
            raise
        wrong = f"cannot be read and is left out: {damage_reason(error)}"
    else:
        if not (problems := verify(archive).problems):
            out.write(archive)
            counts.add(len(archive.entries))
            counts.bytes = out.bytes
            counts.show()
            return
        wrong = f"is damaged and left out: {problems[0]}"
    counts.wrong.append(run_id)
    print_message(f"run {printable(run_id)} {wrong}")


def _conclude(session: Session, counts: transfer.TransferCounts, path: Path | None) -> None:
    if session.as_json:
        summary = counts.json() | {"gone": counts.gone, "damaged": counts.wrong}
        # Where stdout has the runs, the summary goes to stderr.
        print_message(json.dumps(summary)) if path is None else print_json(summary)
    else:
        print_message(f"exported {counts.text} in {counts.seconds:.1f} s")
        transfer.print_run_ids("damaged, and left out (see murmur-streams audit)", counts.wrong)
    if counts.wrong:
        raise typer.Exit(FAILED)


def read_whole(path: Path, wanted: frozenset[str]) -> Whole:
    """Read how far an interrupted export got.

    Args:
        path: its file; one that does not exist is created, and counts as empty.
        wanted: the ids of the named runs; those found go into ``run_ids``.

    Raises:
        InvalidArchiveError: the file is not an export, or has other damage than a missing end.
    """
    transfer.check_plain(path)
    whole = Whole()
    with transfer.file_errors(str(path)):
        path.touch()
    with transfer.file_errors(str(path)), path.open("rb") as stream:
        if not (first := stream.readline(lines.LONGEST_HEADER_BYTES)).endswith(b"\n"):
            if len(first) < lines.LONGEST_HEADER_BYTES and lines.may_be_header(first):
                return whole
            raise errors.InvalidArchiveError(
                f"{path} is not an export of runs; choose another file"
            )
        stream.seek(0)
        try:
            _read_runs(stream, whole, wanted)
        except lines.CutOffError:
            return whole
        except errors.InvalidArchiveError as error:
            raise errors.InvalidArchiveError(
                f"{path}: {error}; --resume goes on only where an export stopped: export to "
                "another file"
            ) from None
    return whole


def _read_runs(stream: BinaryIO, whole: Whole, wanted: frozenset[str]) -> None:
    decoder, size = lines.ArchiveDecoder(), 0
    while (line := stream.readline(transfer.LONGEST_LINE_BYTES)).endswith(b"\n"):
        archive = decoder.feed(line)
        size += len(line)
        if archive is not None:
            run = fold(archive.entries)
            whole.runs += 1
            whole.last = run
            whole.cursor = None if run is None else listing_key(run.created_ms, run.run_id)
            whole.run_ids |= wanted & {archive.run_id}
        if archive is not None or decoder.line == 1:
            whole.size = size
        whole.of = decoder.of
    # A run without its last newline is written again, so that the next one begins on a new line.


async def check_resumable(path: Path, whole: Whole, asked: Asked, store: WorkStore) -> None:
    """Refuse to resume a file that has other runs, or runs of another store.

    Otherwise the listing would continue at a cursor of another selection or store and end without
    an error, and the file would lack runs.

    Raises:
        StoreConfigurationError: the file must not be resumed; nothing was written.
    """
    if whole.of is not None and whole.of != asked.members:
        raise errors.StoreConfigurationError(
            f"{path} is an export of {_describe(whole.of)}, and this command asks for "
            f"{_describe(asked.members)}: {_INSTEAD}"
        )
    last = whole.last
    if last is None:
        return
    if not _is_asked(last, whole, asked):
        raise errors.StoreConfigurationError(
            f"the last run of {path}, {last.run_id}, is not one of those that this command "
            f"exports: {_INSTEAD}"
        )
    try:
        is_here = (await store.snapshot(last.run_id)).epoch == last.epoch
    except errors.RunNotFoundError:
        is_here = False
    except errors.RunDamagedError:
        is_here = True
    if not is_here:
        raise errors.StoreConfigurationError(
            f"the last run of {path}, {last.run_id}, is not in this store: go on with the --url "
            "and --prefix that it was begun with; if the run has expired or was deleted since, "
            "export to another file"
        )


def _is_asked(last: Run, whole: Whole, asked: Asked) -> bool:
    if asked.run_ids:
        return last.run_id in asked.run_ids
    # A run may change its state between the listing and its export, so the selection in the first
    # line counts, where it is there.
    return whole.of is not None or asked.which.wants(last)


def _describe(of: object) -> str:
    if not isinstance(of, Mapping):
        return "other runs"
    members = cast("Mapping[str, object]", of)
    if members.get("ids"):
        return "named runs"
    options = [f"--{name} {value}" for name in ("state", "target") if (value := members.get(name))]
    return " ".join(options) or "all runs"
