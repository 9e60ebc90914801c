"""Rounds, medians, spreads, and script calls per event."""

from __future__ import annotations

import statistics
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

Round = Callable[[], Awaitable[float]]


@dataclass(slots=True)
class Figure:
    """One measured quantity, round by round."""

    name: str
    unit: str
    round: Round
    floors: tuple[str, ...] = ()
    """The names of the figures that this one is compared with."""
    events: int = 0
    """How many events a round writes; 0: its calls are not counted."""
    values: list[float] = field(default_factory=list[float])
    calls: list[float] = field(default_factory=list[float])
    """Script calls per event, round by round; those that set a round up are included."""
    server_us: list[float] = field(default_factory=list[float])
    """The server's time for a script call, by its own count, round by round."""

    @property
    def median(self) -> float:
        """The middle of the rounds."""
        return statistics.median(self.values)


async def interleaved(rounds: int, figures: list[Figure], admin: Any) -> None:
    """Run all in turn, A B A B …, so that a machine that slows down slows all of them.

    The first round is a warm-up and is not counted.
    """
    for number in range(rounds + 1):
        for figure in figures:
            calls, busy_us = await _script_calls(admin)
            value = await figure.round()
            if number:
                figure.values.append(value)
                if figure.events:
                    calls_after, busy_us_after = await _script_calls(admin)
                    figure.calls.append((calls_after - calls) / figure.events)
                    figure.server_us.append((busy_us_after - busy_us) / (calls_after - calls))


async def rate(count: int, work: Callable[[], Awaitable[object]]) -> float:
    """How many per second, when one call of ``work`` does ``count``."""
    began = time.perf_counter()
    await work()
    return count / (time.perf_counter() - began)


async def _script_calls(admin: Any) -> tuple[int, int]:
    stats = await admin.info("commandstats")
    found = stats.get("cmdstat_evalsha", {})
    return int(found.get("calls", 0)), int(found.get("usec", 0))
