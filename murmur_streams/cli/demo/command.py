"""``murmur-streams demo [PATH]``."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from murmur_streams.cli.shell.command import FAILED, INTERRUPTED, command
from murmur_streams.cli.shell.printing import print_message
from murmur_streams.cli.shell.session import Session

RunSource = Annotated[
    Path | None,
    typer.Argument(
        metavar="[PATH]",
        help="A folder with Python files. Default: this machine's standard library.",
    ),
]


def register(app: typer.Typer) -> None:
    """Add the command."""

    @command(app, "demo", examples=("murmur-streams demo", "murmur-streams demo src"))
    def demo(session: Session, path: RunSource = None) -> None:
        """Show all of it on real files, in less than a minute, and prove what it claims.

        It starts the embedded server and two workers, has them read every Python file under PATH,
        follows every run live, cuts one subscriber, kills one worker, and at the end compares the
        journals with what was seen. Exit code 0 when the proof holds. MURMUR_URL is not heeded:
        only --url takes it to another server.
        """
        # Its models take a while to build, and no other command needs them.
        from murmur_streams.cli.demo.corpus import find_corpus
        from murmur_streams.cli.demo.performance import own_session, perform

        corpus = find_corpus(path)
        try:
            holds = asyncio.run(perform(corpus, own_session(session)))
        except (KeyboardInterrupt, asyncio.CancelledError):
            print_message("stopped: its workers have ended, and its unfinished runs are removed")
            raise typer.Exit(INTERRUPTED) from None
        if not holds:
            raise typer.Exit(FAILED)
