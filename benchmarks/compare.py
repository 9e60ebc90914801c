"""Compares two revisions in interleaved rounds, or two files of results."""

from __future__ import annotations

import contextlib
import io
import subprocess
import tarfile
import tempfile
from collections.abc import AsyncGenerator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks.figures import figure_of, shown
from benchmarks.harness.program import ROOT
from benchmarks.harness.results import Results, Row, Spread, ratio
from benchmarks.harness.session import OURS, Subject, revision_subject
from benchmarks.harness.versions import commit
from benchmarks.tables import Table

HEAD = ("", "A", "B", "B/A", "quartiles", "client µs B/A", "server µs B/A", "")
WORK_TREE = "."
FEWEST_ROUNDS = 4
"""Fewer rounds say nothing about the noise."""
SMALLEST = 0.02
"""A difference of less than two percent is never called one."""
PACKAGE = ("murmur_streams", "lua")


class RevisionError(ValueError):
    """A name is neither a file nor a revision."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One figure of both.

    Args:
        first: of A.
        second: of B.
        is_paired: whether their rounds were interleaved.
    """

    first: Row
    second: Row
    is_paired: bool

    @property
    def ratio(self) -> Spread:
        """B over A; without interleaved rounds, its quartiles are the farthest possible ones."""
        if self.is_paired:
            return ratio(self.second.values, self.first.values)
        one, other = Spread.of(self.first.values), Spread.of(self.second.values)
        return Spread(
            other.median / one.median,
            other.lowest / one.highest,
            other.highest / one.lowest,
            other.lower_quartile / one.upper_quartile,
            other.upper_quartile / one.lower_quartile,
        )

    @property
    def verdict(self) -> str:
        """Which is better; within the noise when the quartiles of the ratio span 1."""
        if min(len(self.first.values), len(self.second.values)) < FEWEST_ROUNDS:
            return "too few rounds"
        found, is_rate = self.ratio, figure_of(self.first.figure).is_rate
        is_noise = found.lower_quartile <= 1 <= found.upper_quartile
        if is_noise or abs(found.median - 1) < SMALLEST:
            return "within the noise"
        return "B is better" if (found.median > 1) is is_rate else "B is worse"


def compared(results: Results, first: str, second: str) -> list[Comparison]:
    """The comparisons of two subjects that were measured in interleaved rounds."""
    pairs = _pairs(results, first, results, second)
    return [Comparison(one, other, is_paired=True) for one, other in pairs]


def compared_files(first: Results, second: Results) -> list[Comparison]:
    """The comparisons of our rows in two files; those of other subjects stay out."""
    pairs = _pairs(first, OURS, second, OURS)
    return [Comparison(one, other, is_paired=False) for one, other in pairs]


def comparison_table(comparisons: list[Comparison]) -> Table:
    """A line for each figure."""
    return [HEAD, *(_line(each) for each in comparisons)]


def titles(names: tuple[str, str]) -> tuple[str, str]:
    """The subjects of two revisions; the same revision twice has two."""
    return f"A: {names[0]}", f"B: {names[1]}"


@contextlib.asynccontextmanager
async def revisions(names: tuple[str, str]) -> AsyncGenerator[tuple[Subject, Subject]]:
    """The packages of two revisions, each in a folder of its own; ``.`` is the working tree.

    Raises:
        RevisionError: a name is not a revision.
    """
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="murmur-bench-")))
        subjects = [
            _revision(title, name, folder / title[0])
            for title, name in zip(titles(names), names, strict=True)
        ]
        yield subjects[0], subjects[1]


def _revision(title: str, name: str, folder: Path) -> Subject:
    if name == WORK_TREE:
        return Subject(title, revision_subject(title, ROOT).module)
    if not (found := commit(name)):
        raise RevisionError(f"{name!r} is neither a file of results nor a revision")
    command = ["git", "-C", str(ROOT), "archive", found, *PACKAGE]
    packed = subprocess.run(command, capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        archive.extractall(folder, filter="data")
    return revision_subject(title, folder)


def _pairs(first: Results, subject: str, second: Results, other: str) -> Iterator[tuple[Row, Row]]:
    for row in first.rows.values():
        if row.subject != subject:
            continue
        match = second.find(row.suite, row.figure, other, row.at)
        if match is not None and all(row.values) and all(match.values):
            yield row, match


def _line(found: Comparison) -> tuple[str, ...]:
    row, figure, spread = found.first, figure_of(found.first.figure), found.ratio
    at = f" ({row.at:,.0f})" if row.at is not None else ""
    medians = (Spread.of(each.values).median for each in (found.first, found.second))
    return (
        f"{row.suite}: {figure.title}{at}",
        *(f"{shown(median)} {figure.unit}".strip() for median in medians),
        shown(spread.median),
        f"{shown(spread.lower_quartile)} to {shown(spread.upper_quartile)}",
        *(_cost(found, column) for column in ("client_us", "server_us")),
        found.verdict,
    )


def _cost(found: Comparison, column: str) -> str:
    first, second = getattr(found.first, column), getattr(found.second, column)
    return shown(ratio(second, first).median) if first and second and all(first) else ""
