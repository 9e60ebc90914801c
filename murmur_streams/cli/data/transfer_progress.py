"""Counts of an export or import, shown while it runs and in its summary."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console

from murmur_streams.cli.shell.printing import print_message, printable

SHOWN_IDS = 10


@dataclass(slots=True)
class TransferCounts:
    """Counts of one export or import."""

    runs: int = 0
    """Transferred by this command."""
    entries: int = 0
    bytes: int = 0
    skipped: int = 0
    """Already complete at the destination."""
    gone: int = 0
    """Expired or deleted since they were listed."""
    wrong: list[str] = field(default_factory=list[str])
    """Damaged runs: left out of an export, or not clean after an import."""
    has_begun: bool = False
    """Whether the file exists, so that --resume can continue it."""
    reads: bool = False
    """Whether the bytes were read, not written."""
    began: float = field(default_factory=time.monotonic)

    def add(self, entries: int) -> None:
        """Count a transferred run."""
        self.runs += 1
        self.entries += entries

    @property
    def seconds(self) -> float:
        """The time since it began."""
        return time.monotonic() - self.began

    @property
    def text(self) -> str:
        """The counts for people."""
        text = f"{_counted(self.runs, 'run', 'runs')}, "
        text += f"{_counted(self.entries, 'entry', 'entries')}, {_size(self.bytes)}"
        text += " read" if self.reads else ""
        text += f", {self.skipped:,} there already" if self.skipped else ""
        return text + (f", {self.gone:,} gone meanwhile" if self.gone else "")

    @property
    def text_with_rate(self) -> str:
        """The counts and their rates."""
        seconds = max(self.seconds, 0.001)
        return f"{self.text}  ({self.runs / seconds:,.0f} runs/s, {_size(self.bytes / seconds)}/s)"

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
def shown(counts: TransferCounts) -> Generator[Callable[[], None]]:
    """Show the counts on stderr while the block runs, and clear them; only on a terminal.

    Yields:
        A function that shows the current counts.
    """
    screen = Console(stderr=True)
    with screen.status(counts.text) as status:
        yield lambda: status.update(counts.text_with_rate)


def print_run_ids(what: str, run_ids: list[str]) -> None:
    """Print the first of the ids on stderr, and how many more there are; nothing without ids."""
    if not run_ids:
        return
    names = ", ".join(run_ids[:SHOWN_IDS])
    more = len(run_ids) - SHOWN_IDS
    print_message(f"{what}: {printable(names)}" + (f" and {more:,} more" if more > 0 else ""))


def _counted(count: int, one: str, many: str) -> str:
    return f"{count:,} {one if count == 1 else many}"


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:  # noqa: PLR2004  # the step between the units
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"
