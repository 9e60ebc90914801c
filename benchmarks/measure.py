"""Rounds, medians and spreads."""

from __future__ import annotations

import statistics
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

Round = Callable[[], Awaitable[float]]


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured quantity over several rounds."""

    name: str
    unit: str
    values: tuple[float, ...]
    floor: str | None = None
    """The name of the figure that this one is held against."""

    @property
    def median(self) -> float:
        """The middle of the rounds."""
        return statistics.median(self.values)


async def interleaved(rounds: int, parts: dict[str, Round]) -> dict[str, tuple[float, ...]]:
    """Run the parts in turn, A B A B …, so that a drifting machine drifts for all of them.

    One warm-up of each is not counted.
    """
    values: dict[str, list[float]] = {name: [] for name in parts}
    for number in range(rounds + 1):
        for name, part in parts.items():
            value = await part()
            if number:
                values[name].append(value)
    return {name: tuple(found) for name, found in values.items()}


async def rate(count: int, work: Callable[[], Awaitable[object]]) -> float:
    """How many a second when ``work`` does ``count``."""
    began = time.perf_counter()
    await work()
    return count / (time.perf_counter() - began)
