"""``python -m tests.soak``: does a fleet stay well for hours, and does its memory stay flat?

    make soak                                # half an hour on one server
    make soak MINUTES=600 SEED=7 TOPOLOGY=cluster REPORT=soak.json

Ctrl-C (or SIGTERM) ends the load, and reports what was measured. A second one reports at once.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import signal
import sys
from pathlib import Path

from tests.chaos.worlds import WORLDS
from tests.soak.report import write
from tests.soak.soak import Soak


def main(argv: list[str]) -> int:
    """Soak, and print the report; 1 when there is a problem."""
    parser = argparse.ArgumentParser("python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--topology", choices=[*WORLDS], default="standalone")
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    parser.add_argument("--report", type=Path, help="a file for JSON; .md and .svg come beside it")
    given = parser.parse_args(argv)
    soak = Soak(given.topology, given.seed, given.minutes, _show)
    _show(f"{given.topology}, seed {given.seed}, {given.minutes:g} minutes")
    try:
        asyncio.run(_run(soak))
    finally:
        print("\n".join(soak.report.markdown()))  # noqa: T201  # it is a command
        if given.report is not None:
            write(soak.report, given.report)
    return 1 if soak.report.problems() else 0


async def _run(soak: Soak) -> None:
    running = asyncio.ensure_future(soak.run())

    def interrupt() -> None:
        if soak.report.was_interrupted:
            running.cancel()
        else:
            _show("interrupted: the load ends; a second interrupt reports at once")
            soak.stop()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, interrupt)
    with contextlib.suppress(asyncio.CancelledError):
        await running


def _show(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
