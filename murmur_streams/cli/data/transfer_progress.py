"""What a move of runs has done so far: for the line that is shown, and for the last word."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console

from murmur_streams.cli.shell.printing import printable, tell

SHOWN_IDS = 10


@dataclass(slots=True)
class Tally:
    """Counts of one move."""

    runs: int = 0
    """Moved by this command."""
    entries: int = 0
    bytes: int = 0
    skipped: int = 0
    """Whole already where they should go."""
    gone: int = 0
    """Expired or deleted since they were listed."""
    wrong: list[str] = field(default_factory=list[str])
    """Runs that did not arrive as they should."""
    has_begun: bool = False
    """Whether there is something to go on with."""
    reads: bool = False
    """Whether the bytes are of what was read, not of what was written."""
    began: float = field(default_factory=time.monotonic)

    def add(self, entries: int) -> None:
        """Count a run that was moved."""
        self.runs += 1
        self.entries += entries

    @property
    def seconds(self) -> float:
        """How long it has taken."""
        return time.monotonic() - self.began

    @property
    def words(self) -> str:
        """The counts as a person reads them."""
        said = f"{_counted(self.runs, 'run', 'runs')}, "
        said += f"{_counted(self.entries, 'entry', 'entries')}, {_size(self.bytes)}"
        said += " read" if self.reads else ""
        said += f", {self.skipped:,} there already" if self.skipped else ""
        return said + (f", {self.gone:,} gone meanwhile" if self.gone else "")

    @property
    def words_with_rate(self) -> str:
        """The counts, and how fast they grow."""
        seconds = max(self.seconds, 0.001)
        return f"{self.words}  ({self.runs / seconds:,.0f} runs/s, {_size(self.bytes / seconds)}/s)"

    def json(self) -> dict[str, Any]:
        """The counts for programs."""
        return {
            "runs": self.runs,
            "entries": self.entries,
            "bytes": self.bytes,
            "skipped": self.skipped,
            "seconds": round(self.seconds, 3),
        }


@contextmanager
def shown(tally: Tally) -> Generator[Callable[[], None]]:
    """Show the counts while the block lasts: on a terminal only, on stderr, gone at the end.

    Yields:
        A function that shows what the counts are now.
    """
    screen = Console(stderr=True)
    with screen.status(tally.words) as status:
        yield lambda: status.update(tally.words_with_rate)


def tell_runs(what: str, run_ids: list[str]) -> None:
    """Name some runs on stderr, the first ones of many."""
    names = ", ".join(run_ids[:SHOWN_IDS])
    more = len(run_ids) - SHOWN_IDS
    tell(f"{what}: {printable(names)}" + (f" and {more:,} more" if more > 0 else ""))


def is_terminal(descriptor: int) -> bool:
    """Whether a person sits at this end."""
    stream = {0: sys.stdin, 1: sys.stdout}[descriptor]
    return stream.isatty()


def _counted(count: int, one: str, many: str) -> str:
    return f"{count:,} {one if count == 1 else many}"


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:  # noqa: PLR2004  # the step between the units
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"
