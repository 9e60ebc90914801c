"""``murmur-streams demo [PATH]``."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from murmur_streams.cli.command import FAILED, INTERRUPTED, command
from murmur_streams.cli.demo.agents import KEY_PREFIX, fleet
from murmur_streams.cli.demo.corpus import Corpus, find_corpus
from murmur_streams.cli.demo.play import play
from murmur_streams.cli.demo.proof import look_by_hand, prove
from murmur_streams.cli.demo.ranking import print_ranking
from murmur_streams.cli.demo.reports import merge
from murmur_streams.cli.demo.screen import Screen
from murmur_streams.cli.printing import tell
from murmur_streams.cli.session import Globals, Session

Place = Annotated[
    Path | None,
    typer.Argument(
        metavar="[PATH]", help="A folder with Python files. [this machine's standard library]"
    ),
]


def register(app: typer.Typer) -> None:
    """Add the command."""

    @command(app, "demo", examples=("murmur-streams demo", "murmur-streams demo src"))
    def demo(session: Session, path: Place = None) -> None:
        """Show all of it on real files, in less than a minute, and prove what it claims.

        It starts the embedded server and two workers, has them read every Python file under PATH,
        follows every run live, cuts one subscriber, kills one worker, and at the end compares the
        journals with what was seen. Exit code 0 when the proof holds.
        """
        corpus = find_corpus(path)
        # The demo is not for somebody's production server, unless it is named on purpose.
        own = Session(Globals(session.given.url or "embedded:", KEY_PREFIX), session.settings)
        try:
            holds = asyncio.run(_show(corpus, own))
        except (KeyboardInterrupt, asyncio.CancelledError):
            tell("stopped: its workers have ended, and its unfinished runs are removed")
            raise typer.Exit(INTERRUPTED) from None
        if not holds:
            raise typer.Exit(FAILED)


async def _show(corpus: Corpus, session: Session) -> bool:
    _end_well_on_signals()
    environ = session.to_environment()
    os.environ.update(environ)  # the demo's fleet, here and in the workers, has no URL of its own
    async with fleet:
        with Screen() as screen:
            screen.line(Text("murmur-streams demo", "bold"), f": reading {corpus.title}")
            story = await play(corpus, screen, environ)
            screen.say(f"all {len(story.runs)} runs have ended")
            print_ranking(screen, merge(story.reports.values()))
            store = await fleet.store()
            holds = await prove(story, screen, store, session)
            await look_by_hand(story, screen, store.keys, session)
            verdict = ("The proof holds.", "bold green")
            if not holds:
                verdict = ("The proof does NOT hold; please report this.", "bold red")
            screen.console.print()
            screen.line(Text(*verdict), f" {screen.seconds:.1f} s in all.")
            return holds


def _end_well_on_signals() -> None:
    """SIGTERM and a closed terminal stop the workers, too."""
    task = asyncio.current_task()
    if task is not None:
        for number in (signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
