"""``murmur-streams demo [PATH]``: runs the example ``code_review``."""

from __future__ import annotations

import asyncio
import importlib
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from murmur_streams.cli.shell.command import FAILED, INTERRUPTED, command
from murmur_streams.cli.shell.printing import print_json, print_message
from murmur_streams.cli.shell.session import Session
from murmur_streams.core.model.errors import StoreConfigurationError
from murmur_streams.core.redaction import redacted
from murmur_streams.fleet.stores import kind_on_disk

WIDTH = 100
_PACKAGE = Path(__file__).parents[2]

Sources = Annotated[
    Path | None,
    typer.Argument(
        metavar="[PATH]",
        help="A folder with Python files. Default: this machine's standard library.",
    ),
]


@command("demo")
async def demo(session: Session, path: Sources = None) -> None:
    """Show all of it on real files, in less than a minute, and prove what it claims.

    It starts the embedded server and two workers, has them read every Python file under PATH,
    follows every run live, cuts one subscriber, kills one worker, and at the end compares the
    journals with what was seen. Exit code 0 when the proof holds. MURMUR_URL is ignored: only
    --url chooses another server.

    Examples:
        murmur-streams demo
        murmur-streams demo src
    """
    url = session.given.url or "embedded:"
    if kind := kind_on_disk(url):
        raise StoreConfigurationError(
            f"the demo shows Redis itself, its keys too, and {redacted(url)} names {kind}: "
            "leave --url out for the embedded server, or name a Redis"
        )
    # Like any program that uses the package, the example is not a part of it.
    folders = (_PACKAGE / "_examples", _PACKAGE.parent / "examples")
    sys.path.insert(0, str(next(folder for folder in folders if folder.is_dir())))
    example = importlib.import_module("code_review.demo")
    # Commands that are copied from its output go where MURMUR_URL says, and the demo does not.
    is_elsewhere = url != (session.settings.url or "embedded:")
    at = ["--url", redacted(url)] if is_elsewhere else []
    try:
        holds, summary = await example.run(path, url, at, _console(session))
    except (KeyboardInterrupt, asyncio.CancelledError):
        print_message("stopped: its workers have ended, and its unfinished runs are removed")
        raise typer.Exit(INTERRUPTED) from None
    if session.as_json:
        print_json(summary)
    if not holds:
        raise typer.Exit(FAILED)


def _console(session: Session) -> Console:
    file = sys.stderr if session.as_json else sys.stdout
    is_terminal = file.isatty()
    return Console(
        file=file,
        highlight=False,
        emoji=False,
        width=None if is_terminal else WIDTH,
        soft_wrap=not is_terminal,
    )
