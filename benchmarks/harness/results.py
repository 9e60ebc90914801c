"""What a run of the benchmarks found: readings, rows of rounds, their medians and ratios."""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

QUANTILES = 200
"""A distribution is saved as so many steps from its lowest to its highest value."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One figure of one round, as a program reports it."""

    figure: str
    value: float
    at: float | None = None
    """Where on a curve: the number of runs, subscribers or events."""
    client_us: float | None = None
    """CPU time of the client process per operation."""
    server_us: float | None = None
    """CPU time of the server process per operation."""
    script_us: float | None = None
    """The server's time in calls of scripts and functions per operation, from its statistics."""
    commands: float | None = None
    """Commands per operation, those inside scripts included and the calls of scripts not."""
    samples: list[float] = field(default_factory=list[float])


@dataclass(frozen=True, slots=True)
class Spread:
    """The middle of several rounds, and how far they lie apart."""

    median: float
    lowest: float
    highest: float
    lower_quartile: float
    upper_quartile: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        """The spread of at least one value."""
        ordered = sorted(values)
        quartiles = [quantile(ordered, part) for part in (0.25, 0.75)]
        return cls(statistics.median(ordered), ordered[0], ordered[-1], *quartiles)


@dataclass(slots=True)
class Row:
    """One figure of one subject, round by round."""

    suite: str
    figure: str
    subject: str
    at: float | None = None
    values: list[float] = field(default_factory=list[float])
    client_us: list[float] = field(default_factory=list[float])
    server_us: list[float] = field(default_factory=list[float])
    script_us: list[float] = field(default_factory=list[float])
    commands: list[float] = field(default_factory=list[float])
    samples: list[float] = field(default_factory=list[float])
    """Every sample of all rounds; in a saved file, quantiles."""

    def add(self, reading: Reading) -> None:
        """Add a round."""
        self.values.append(reading.value)
        for name in COSTS:
            if (cost := getattr(reading, name)) is not None:
                getattr(self, name).append(cost)
        self.samples.extend(reading.samples)

    @property
    def key(self) -> tuple[str, str, str, float | None]:
        """What this row is the only one of."""
        return self.suite, self.figure, self.subject, self.at


COSTS = ("client_us", "server_us", "script_us", "commands")
"""The columns of a row beside its values."""


@dataclass(slots=True)
class Results:
    """All rows of a run, and what it ran on."""

    versions: dict[str, str]
    setting: dict[str, Any]
    rows: dict[tuple[str, str, str, float | None], Row] = field(
        default_factory=dict[tuple[str, str, str, "float | None"], Row]
    )
    notes: list[str] = field(default_factory=list[str])
    """What could not be measured, and why."""

    def record(self, suite: str, subject: str, reading: Reading) -> None:
        """Add one round of one figure."""
        row = Row(suite, reading.figure, subject, reading.at)
        self.rows.setdefault(row.key, row).add(reading)

    def find(self, suite: str, figure: str, subject: str, at: float | None = None) -> Row | None:
        """The row, or None when it was not measured."""
        return self.rows.get((suite, figure, subject, at))

    def curve(self, suite: str, figure: str, subject: str) -> list[Row]:
        """The rows of a figure that was measured at several positions, in their order."""
        wanted = (suite, figure, subject)
        found = [row for key, row in self.rows.items() if key[:3] == wanted]
        return sorted((row for row in found if row.at is not None), key=lambda row: row.at or 0)

    def to_json(self) -> str:
        """As a text that `from_json` reads; distributions become quantiles."""
        rows = [
            dataclasses.asdict(row) | {"samples": quantiles(row.samples)}
            for row in self.rows.values()
        ]
        parts = {"versions": self.versions, "setting": self.setting, "notes": self.notes}
        lines = ",\n".join(f"  {json.dumps(_rounded(row))}" for row in rows)
        return f'{json.dumps(parts, indent=1)[:-2]},\n "rows": [\n{lines}\n ]\n}}\n'

    @classmethod
    def from_json(cls, text: str) -> Results:
        """The results that were saved; ValueError when it is another text."""
        saved: Any = json.loads(text)
        try:
            rows = [Row(**row) for row in saved["rows"]]
        except (TypeError, KeyError) as error:
            raise ValueError(f"not a file of benchmark results: {error}") from error
        found = {row.key: row for row in rows}
        return cls(saved["versions"], saved["setting"], found, saved["notes"])

    @classmethod
    def load(cls, path: Path) -> Results:
        """The results in a file."""
        return cls.from_json(path.read_text())


def quantile(ordered: list[float], part: float) -> float:
    """The value below which ``part`` of the sorted values lie, between two of them by weight."""
    position = part * (len(ordered) - 1)
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


def quantiles(samples: list[float]) -> list[float]:
    """A distribution in ``QUANTILES`` steps; few samples stay as they are, sorted."""
    ordered = sorted(samples)
    if len(ordered) <= QUANTILES + 1:
        return ordered
    return [quantile(ordered, step / QUANTILES) for step in range(QUANTILES + 1)]


def ratio(first: list[float], second: list[float]) -> Spread:
    """The ratio of two medians; its spread is that of the ratios round by round.

    The rounds of both are interleaved, so a machine that slows down slows both of a pair.
    """
    pairs = Spread.of(one / other for one, other in zip(first, second, strict=False))
    middle = statistics.median(first) / statistics.median(second)
    return dataclasses.replace(pairs, median=middle)


def _rounded(row: dict[str, Any]) -> dict[str, Any]:
    rounded: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, list):
            numbers = cast("list[float]", value)
            rounded[name] = [float(f"{each:.5g}") for each in numbers]
        else:
            rounded[name] = value
    return {name: value for name, value in rounded.items() if value not in ([], None)}
