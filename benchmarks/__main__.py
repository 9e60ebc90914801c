"""The benchmarks: rates, latencies and costs beside floors and peers, in interleaved rounds.

`run` measures on a server of its own (Valkey from its wheel, TCP on loopback, no AOF) and prints
each figure with its median, quartiles, lowest and highest value, its ratio to ours, and the CPU
time of client and server per operation; then each goal with what was measured. Only ratios inside
one run mean something: the same figure differs twofold from minute to minute on a busy machine.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import tables
from benchmarks.harness.results import Results
from benchmarks.harness.servers import server
from benchmarks.harness.session import FULL, QUICK, TINY, Session, Sizes
from benchmarks.harness.versions import setting, versions
from benchmarks.suites.all_suites import SUITES, USUAL

SIZES = {"full": FULL, "quick": QUICK, "tiny": TINY}
EXAMPLES = """examples:
  python -m benchmarks run                          everything, about half an hour
  python -m benchmarks run --only redis delivery    two suites
  python -m benchmarks run --size quick --json a.json

suites: """ + ", ".join(SUITES)


class UsageError(Exception):
    """What the command line asks for is not possible."""


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    run = commands.add_parser("run", help="measure, and print tables")
    _add_sizes(run)
    run.add_argument("--json", type=Path, metavar="FILE", help="save the results for later")
    run.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables as Markdown")
    show = commands.add_parser("show", help="print the tables of saved results")
    show.add_argument("file", type=Path, metavar="FILE")
    return parser.parse_args(arguments)


def _add_sizes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--only", nargs="+", choices=SUITES, default=USUAL, metavar="SUITE", help="which"
    )
    parser.add_argument(
        "--size", choices=SIZES, default="full", help="how much work; tiny shows that it works"
    )
    parser.add_argument("--rounds", type=int, metavar="N", help="rounds that count")


def sizes_of(options: argparse.Namespace) -> Sizes:
    """How much work the options ask for."""
    sizes = SIZES[options.size]
    return dataclasses.replace(sizes, rounds=options.rounds) if options.rounds else sizes


async def measure(results: Results, sizes: Sizes, suites: Sequence[str]) -> None:
    """Measure the suites, each on a server of its own."""
    for name in suites:
        async with server() as url:
            session = Session(url, sizes, results)
            session.show(name)
            await SUITES[name](session)


def measured(results: Results, sizes: Sizes, suites: Sequence[str]) -> bool:
    """Measure until the end or until Ctrl-C or SIGTERM; False when it was interrupted."""
    signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGINT))
    try:
        asyncio.run(measure(results, sizes, suites))
    except KeyboardInterrupt:
        results.notes.append("the run was interrupted")
        return False
    return True


def load(path: Path) -> Results:
    """The results in a file; UsageError when it has none."""
    try:
        return Results.load(path)
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: {error}") from error


def run(options: argparse.Namespace) -> int:
    """Measure, and write what was asked for."""
    sizes = sizes_of(options)
    results = Results(versions(), setting(sizes))
    is_whole = measured(results, sizes, options.only)
    print("\n" + tables.report(results))
    if options.json:
        options.json.write_text(results.to_json())
    if options.markdown:
        options.markdown.write_text(tables.report(results, is_markdown=True))
    return 0 if is_whole else 130


def main() -> int:
    """Do what the command line asks for."""
    options = parse()
    try:
        if options.command == "show":
            print(tables.report(load(options.file)))
            return 0
        return run(options)
    except UsageError as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
