"""The entry point of ``murmur-streams`` and ``mstreams``."""

from __future__ import annotations

import sys
from collections.abc import Callable

from murmur_streams.cli.shell.standard_streams import OutputError, give_up, prepare

INTERRUPTED = 130


def main() -> None:
    """Run the command line, and end with its exit code."""
    prepare()
    try:
        try:
            _run()
        finally:
            sys.stdout.flush()
    except OutputError as error:
        raise SystemExit(give_up(error)) from None


def _run() -> None:
    """Run the command line; without the extra ``cli``, print what to install."""
    try:
        from murmur_streams.cli.shell.app import app
    except ModuleNotFoundError as error:
        if error.name not in {"typer", "rich"}:
            raise
        print(
            "murmur-streams: the command line needs typer and rich: "
            "pip install 'murmur-streams[cli]'",
            file=sys.stderr,
        )
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        # The imports take half a second; after them, typer and the commands handle Ctrl-C.
        raise SystemExit(INTERRUPTED) from None
    if "--json" not in sys.argv[1:]:
        app(prog_name="murmur-streams")
    raise SystemExit(_answer_in_json(app))


def _answer_in_json(app: Callable[..., int | None]) -> int:
    """Run a command for a program: errors of usage are JSON, too."""
    try:
        return app(prog_name="murmur-streams", standalone_mode=False) or 0
    except Exception as error:
        message: Callable[[], str] | None = getattr(error, "format_message", None)
        if message is None:
            raise
        from murmur_streams.cli.shell.command import USAGE, error_json

        print(error_json("UsageError", message(), USAGE), file=sys.stderr)
        return USAGE
