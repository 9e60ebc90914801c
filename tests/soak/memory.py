"""Does it grow? A series of measurements of one process or server, and the verdict on it."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field

LEAST_SECONDS = 600.0
"""A shorter series is not judged: a process that has just begun still loads code and caches."""


@dataclass(frozen=True, slots=True)
class Measure:
    """What is measured, and how much it may grow from the middle third of a series to the last."""

    unit: str
    part: float
    """Of what it was in the middle third."""
    least: float
    """So much is always allowed, in the unit."""


RESIDENT = Measure("MiB", 0.05, 4.0)
"""Of a process. A process of 80 MiB may grow by 4 MiB in ten minutes of a soak of half an hour."""
USED = Measure("MiB", 0.05, 1.0)
"""Of the server, by its own account."""
KEYS = Measure("keys", 0.05, 100.0)


@dataclass(slots=True)
class Series:
    """Measurements of one process, from its start to its end, or of the server."""

    name: str
    measure: Measure
    points: list[tuple[float, float]] = field(default_factory=list[tuple[float, float]])
    """Seconds since the beginning of the soak, and values."""

    @property
    def seconds(self) -> float:
        """From the first point to the last."""
        return self.points[-1][0] - self.points[0][0] if self.points else 0.0


@dataclass(frozen=True, slots=True)
class Growth:
    """How a series grew: the medians of its middle third and of its last third.

    The first third is for warming up: caches fill, and the first runs have not expired yet.
    Medians do not see a peak, such as that of a worker that takes over the runs of another one.
    """

    series: Series
    middle: float
    last: float

    @property
    def allowed(self) -> float:
        """How much the last third may be above the middle one."""
        measure = self.series.measure
        return max(measure.least, measure.part * self.middle)

    @property
    def is_flat(self) -> bool:
        """Whether it grew no more than that."""
        return self.last - self.middle <= self.allowed

    def __str__(self) -> str:
        unit = self.series.measure.unit
        change = self.last - self.middle
        return (
            f"{self.series.name}: {self.middle:,.1f} {unit}, then {self.last:,.1f} "
            f"({change:+,.1f}, at most {self.allowed:+,.1f})"
        )


def growth(series: Series, least_seconds: float = LEAST_SECONDS) -> Growth | None:
    """How a series grew; None for one that is too short to judge."""
    if series.seconds < least_seconds:
        return None
    began, third = series.points[0][0], series.seconds / 3
    middle = [value for at, value in series.points if third <= at - began < 2 * third]
    last = [value for at, value in series.points if at - began >= 2 * third]
    if not middle:
        return None  # The server could not be asked all that time.
    return Growth(series, statistics.median(middle), statistics.median(last))
