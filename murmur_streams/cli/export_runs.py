"""``murmur-streams export``: runs as lines of JSON, for ``import`` into any store."""

from __future__ import annotations

import asyncio
import json
import shlex
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from murmur_streams.cli.command import FAILED, command
from murmur_streams.cli.printing import print_json, printable, tell
from murmur_streams.cli.run_files import RunWriter, Whole, read_whole, writing
from murmur_streams.cli.runs import State, Target
from murmur_streams.cli.session import Session
from murmur_streams.cli.tally import Tally, is_terminal, shown, tell_runs
from murmur_streams.core.archive import verify
from murmur_streams.core.errors import RunNotFoundError
from murmur_streams.core.pages import MOST_RUNS
from murmur_streams.core.protocol import RunStore
from murmur_streams.core.states import RunState

AnyRuns = Annotated[
    list[str] | None,
    typer.Argument(metavar="RUN", help="Ids of runs. Default: all.", show_default=False),
]
Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="FILE", help="A new file. Default: stdout."),
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on after the last whole run in FILE.")]


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which runs are to be exported."""

    run_ids: list[str]
    state: RunState | None
    target: str | None

    async def ids(self, store: RunStore, whole: Whole) -> AsyncGenerator[str]:
        """Those that the file does not have, newest first, or in the order of their ids."""
        for run_id in self.run_ids:
            if run_id not in whole.run_ids:
                yield run_id
        cursor = whole.cursor
        while not self.run_ids:
            page = await store.list_runs(
                state=self.state, target=self.target, limit=MOST_RUNS, cursor=cursor
            )
            for run in page.runs:
                yield run.run_id
            cursor = page.cursor
            if cursor is None:
                return

    async def check(self, store: RunStore) -> None:
        """RunNotFoundError for an id without a run, before there is a file."""
        for run_id in self.run_ids:
            await store.get_status(run_id)

    def words(self, path: Path) -> str:
        """The command that goes on where this one stopped."""
        state = [] if self.state is None else ["--state", str(self.state)]
        target = [] if self.target is None else ["--target", self.target]
        words = [*self.run_ids, *state, *target, "--resume", "-o", str(path)]
        return shlex.join(["murmur-streams", "export", *words])


def register(app: typer.Typer) -> None:
    """Add the command."""

    @command(
        app,
        "export",
        examples=(
            "murmur-streams export -o runs.ndjson",
            "murmur-streams export --state completed | gzip > completed.ndjson.gz",
            "murmur-streams export --url redis://old | murmur-streams import --url redis://new",
        ),
    )
    def export(
        session: Session,
        runs: AnyRuns = None,
        state: State = None,
        target: Target = None,
        output: Output = None,
        resume: Resume = False,
    ) -> None:
        """Write runs with their journals and payloads as lines of JSON (docs/moving.md).

        Newest first. With --resume an export that was interrupted goes on in the same file; runs
        created meanwhile come when it is done again from the beginning. Exit code 0 when all were
        written, 1 when a run is damaged and was left out.
        """
        path = None if output is None or str(output) == "-" else output
        if runs and (state is not None or target is not None):
            raise typer.BadParameter("name runs, or choose them by --state and --target")
        if resume and path is None:
            raise typer.BadParameter("--resume needs the file to go on with: -o FILE")
        if path is None and is_terminal(1):
            raise typer.BadParameter("this is for a file or a program, not a terminal: -o FILE")
        chosen, tally = Chosen(runs or [], state, target), Tally()
        try:
            asyncio.run(_export(session, chosen, path, tally, resume=resume))
        except KeyboardInterrupt:
            if path is not None:
                tell(f"interrupted after {tally.words}; go on with: {chosen.words(path)}")
            raise
        _conclude(session, tally, path)


async def _export(
    session: Session, chosen: Chosen, path: Path | None, tally: Tally, *, resume: bool
) -> None:
    async with session.store() as store:
        await chosen.check(store)
        whole = read_whole(path, frozenset(chosen.run_ids)) if resume and path else None
        tally.skipped = whole.runs if whole else 0
        with writing(path, whole) as out, shown(tally) as show:
            async with aclosing(chosen.ids(store, whole or Whole())) as run_ids:
                async for run_id in run_ids:
                    await _write(store, run_id, out, tally, show)
            out.finish()


async def _write(
    store: RunStore, run_id: str, out: RunWriter, tally: Tally, show: Callable[[], None]
) -> None:
    try:
        archive = await store.archive(run_id)
    except RunNotFoundError:
        tally.gone += 1
        return
    report = verify(archive)
    if not report.ok:
        tally.wrong.append(run_id)
        tell(f"run {printable(run_id)} is damaged and left out: {report.problems[0]}")
        return
    out.write(archive)
    tally.add(len(archive.entries))
    tally.bytes = out.bytes
    show()


def _conclude(session: Session, tally: Tally, path: Path | None) -> None:
    if session.as_json:
        told = tally.json() | {"gone": tally.gone, "damaged": tally.wrong}
        # What goes to stdout is runs, and nothing else.
        tell(json.dumps(told)) if path is None else print_json(told)
    else:
        tell(f"exported {tally.words} in {tally.seconds:.1f} s")
        if tally.wrong:
            tell_runs("damaged, and left out (see murmur-streams audit)", tally.wrong)
    if tally.wrong:
        raise typer.Exit(FAILED)
