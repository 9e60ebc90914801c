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
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

from benchmarks import compare, docs, tables
from benchmarks.harness.results import Results
from benchmarks.harness.servers import server
from benchmarks.harness.session import FULL, QUICK, THIS, TINY, Session, Sizes, Subject
from benchmarks.harness.versions import setting, versions
from benchmarks.suites.all_suites import SUITES, USUAL

COMPARED = ("redis", "delivery", "jobs", "footprint", "growth", "journals")
"""The suites of a comparison that does not say which."""
COMPARED_ROUNDS = 7
INTERRUPTED = 130
"""The exit status after Ctrl-C."""
SIZES = {"full": FULL, "quick": QUICK, "tiny": TINY}
EXAMPLES = """examples:
  python -m benchmarks run                          everything, about 20 minutes
  python -m benchmarks run --only redis delivery    two suites
  python -m benchmarks run --size quick --json a.json
  python -m benchmarks run --write-docs             and rewrite docs/performance.md
  python -m benchmarks compare HEAD~1 .             a revision and the working tree, interleaved
  python -m benchmarks compare a.json b.json        two saved runs
  python -m benchmarks docs a.json                  docs/performance.md from a saved run

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
    run.add_argument("--write-docs", action="store_true", help="rewrite docs/performance.md")
    compare = commands.add_parser("compare", help="two revisions, or two files of saved results")
    _add_sizes(compare, "quick", COMPARED)
    for name in ("first", "second"):
        compare.add_argument(name, metavar="REVISION|FILE", help="`.` is the working tree")
    for name, text in (("show", "print the tables"), ("docs", "rewrite docs/performance.md")):
        saved = commands.add_parser(name, help=f"{text} of saved results")
        saved.add_argument("files", type=Path, nargs="+", metavar="FILE", help="later ones win")
    return parser.parse_args(arguments)


def _add_sizes(
    parser: argparse.ArgumentParser, size: str = "full", suites: Sequence[str] = USUAL
) -> None:
    parser.add_argument(
        "--only", nargs="+", choices=SUITES, default=suites, metavar="SUITE", help="which suites"
    )
    parser.add_argument(
        "--size", choices=SIZES, default=size, help="how much work; tiny shows that it works"
    )
    parser.add_argument("--rounds", type=int, metavar="N", help="rounds that count")


def sizes_of(options: argparse.Namespace) -> Sizes:
    """How much work the options ask for."""
    sizes = SIZES[options.size]
    return dataclasses.replace(sizes, rounds=options.rounds) if options.rounds else sizes


async def measure(
    results: Results,
    sizes: Sizes,
    suites: Sequence[str],
    ours: tuple[Subject, ...] = (THIS,),
    save: Callable[[], object] = lambda: None,
) -> None:
    """Measure the suites, each on a server of its own; two revisions without floors and peers.

    ``save`` is called after each suite.
    """
    began = time.monotonic()
    for name in suites:
        async with server() as url:
            has_others = ours == (THIS,)
            session = Session(url, sizes, results, ours, has_others=has_others, began=began)
            session.show(name)
            await SUITES[name](session)
        save()


async def measure_revisions(
    results: Results, sizes: Sizes, suites: Sequence[str], names: tuple[str, str]
) -> None:
    """Measure two revisions in interleaved rounds."""
    async with compare.revisions(names) as subjects:
        results.setting |= dict(zip("AB", names, strict=True))
        await measure(results, sizes, suites, subjects)


def measured(results: Results, work: Coroutine[Any, Any, None]) -> bool:
    """Measure until the end or until Ctrl-C or SIGTERM; False when it was interrupted."""
    # Not that of SIGINT: a shell's background job ignores it.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        asyncio.run(work)
    except KeyboardInterrupt:
        results.notes.append("the run was interrupted")
        return False
    return True


def load(*paths: Path) -> Results:
    """The results in files, which may have different suites; UsageError when one has none."""
    found: list[Results] = []
    for path in paths:
        try:
            found.append(Results.load(path))
        except (OSError, ValueError) as error:
            raise UsageError(f"{path}: {error}") from error
    whole = found[0]
    for other in found[1:]:
        whole.rows |= other.rows
        whole.notes += [note for note in other.notes if note not in whole.notes]
    return whole


def run(options: argparse.Namespace) -> int:
    """Measure, and write what was asked for."""
    sizes = sizes_of(options)
    results = Results(versions(), setting(sizes))

    def save() -> None:
        if options.json:
            options.json.write_text(results.to_json())

    is_whole = measured(results, measure(results, sizes, options.only, save=save))
    print("\n" + tables.report(results))
    save()
    if options.markdown:
        options.markdown.write_text(tables.report(results, is_markdown=True))
    if options.write_docs and is_whole:
        docs.write_docs(results)
    return 0 if is_whole else INTERRUPTED


def run_comparison(options: argparse.Namespace) -> int:
    """Compare two files, or measure two revisions and compare them."""
    files = Path(options.first), Path(options.second)
    is_whole = True
    if all(path.is_file() for path in files):
        found = compare.compared_files(*(load(path) for path in files))
    else:
        sizes = sizes_of(options)
        if options.rounds is None:
            sizes = dataclasses.replace(sizes, rounds=COMPARED_ROUNDS)
        results = Results(versions(), setting(sizes))
        names = (options.first, options.second)
        try:
            work = measure_revisions(results, sizes, options.only, names)
            is_whole = measured(results, work)
        except compare.RevisionError as error:
            raise UsageError(str(error)) from error
        print("\n" + tables.setting_text(results))
        found = compare.compared(results, *compare.titles(names))
    print(tables.as_text(compare.comparison_table(found)))
    return 0 if is_whole else INTERRUPTED


def main() -> int:
    """Do what the command line asks for."""
    options = parse()
    try:
        match options.command:
            case "run":
                return run(options)
            case "compare":
                return run_comparison(options)
            case "show":
                print(tables.report(load(*options.files)))
            case _:
                docs.write_docs(load(*options.files))
    except UsageError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
