"""The entry point of ``murmur-streams`` and ``mstreams``."""

from __future__ import annotations

import contextlib
import io
import sys

INTERRUPTED = 130


def main() -> None:
    """Run the command line; without its extra, say what to install."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal that cannot show a character gets an escape instead of a traceback.
            with contextlib.suppress(ValueError):
                stream.reconfigure(errors="backslashreplace")
    try:
        from murmur_streams.cli.app import app
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
        # The imports take half a second; from then on, typer and the commands see to it.
        raise SystemExit(INTERRUPTED) from None
    app(prog_name="murmur-streams")
