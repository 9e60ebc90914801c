"""Seeded faults: which one happens when, and what became of it."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

MOST_FAILED = 10
"""A lane whose faults fail so often in a row ends."""
Act = Callable[[], Awaitable[None]]
"""Makes a fault, and returns when it is over."""


@dataclass(slots=True)
class FaultReport:
    """What a schedule did."""

    happened: Counter[str] = field(default_factory=Counter[str])
    """How often each kind of fault happened."""
    failed: Counter[str] = field(default_factory=Counter[str])
    """How often each kind could not be made, because another fault was in its way."""
    reasons: dict[str, str] = field(default_factory=dict[str, str])
    """Why each of these could not be made, the last time."""
    log: list[tuple[float, str]] = field(default_factory=list[tuple[float, str]])
    """When each fault began, in seconds after the start, and its kind."""

    @property
    def total(self) -> int:
        """How many faults happened."""
        return self.happened.total()


class FaultSchedule:
    """Lets faults happen in lanes: one after the other in a lane, and the lanes side by side.

    Every choice of a lane comes from the seed and from the lane's name, so that a seed gives each
    lane the same faults in the same order. How the lanes meet differs from run to run.

    Args:
        lanes: the kinds of faults by lane and name.
        seed: of all choices.
        pause_seconds: the shortest and the longest time between two faults of a lane.
    """

    def __init__(
        self,
        lanes: Mapping[str, Mapping[str, Act]],
        seed: int,
        pause_seconds: tuple[float, float] = (0.05, 0.3),
    ) -> None:
        self.report = FaultReport()
        self._lanes = lanes
        self._seed = seed
        self._pause_seconds = pause_seconds
        self._left = 0
        self._began = 0.0
        self._is_over = asyncio.Event()

    async def run(self, count: int, show: Callable[[int, str], None] | None = None) -> FaultReport:
        """Let so many faults happen.

        Each kind happens once before its lane chooses among all of them.

        Args:
            count: of all lanes together.
            show: called with the number and the kind of each fault when it begins.
        """
        self._left, self._began = count, time.monotonic()
        lanes = [asyncio.create_task(self._lane(name, count, show)) for name in self._lanes]
        try:
            await asyncio.gather(*lanes)
        finally:
            for lane in lanes:
                lane.cancel()
            await asyncio.gather(*lanes, return_exceptions=True)
        return self.report

    def stop(self) -> None:
        """Let no further fault begin: ``run`` returns when those of this moment are over."""
        self._is_over.set()

    async def _lane(self, lane: str, count: int, show: Callable[[int, str], None] | None) -> None:
        choice, kinds = random.Random(f"{self._seed}:{lane}"), self._lanes[lane]  # noqa: S311
        names = sorted(kinds)
        first = random.Random(f"{self._seed}:{lane}:first").sample(names, len(names))  # noqa: S311
        failed_in_a_row = 0
        while self._left > 0 and names and failed_in_a_row < MOST_FAILED:
            if self._is_over.is_set():
                return
            self._left -= 1
            name = first.pop() if first else choice.choice(names)
            if show is not None:
                show(count - self._left, name)
            self.report.log.append((time.monotonic() - self._began, name))
            try:
                await kinds[name]()
            except Exception as error:  # noqa: BLE001  # it is a result, and the others go on
                self.report.failed[name] += 1
                self.report.reasons[name] = f"{type(error).__name__}: {error}"
                self._left += 1
                failed_in_a_row += 1
                await self._pause(self._pause_seconds[1])
            else:
                self.report.happened[name] += 1
                failed_in_a_row = 0
            await self._pause(choice.uniform(*self._pause_seconds))

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._is_over.wait(), seconds)
