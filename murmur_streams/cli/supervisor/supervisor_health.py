"""How the processes of one parent are, all together."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from murmur_streams.cli.supervisor.child import Child
from murmur_streams.cli.supervisor.health import Status

BLOCKED_SECONDS = 5.0
"""How long a process may say nothing beyond that; its event loop has no time for us."""


class CrewHealth:
    """What probes are told of all processes.

    Args:
        processes: how many there should be.
        fresh_seconds: how old the last beat of one that is ready may be.
        beaten: called at a beat while all of them are ready.
    """

    def __init__(
        self, processes: int, fresh_seconds: float, beaten: Callable[[], None] = lambda: None
    ) -> None:
        self._processes = processes
        self._fresh_seconds = fresh_seconds
        self._beaten = beaten
        self._children: list[Child] = []
        self._draining = False

    def watch(self, child: Child) -> None:
        """One more process."""
        self._children.append(child)

    def forget(self, child: Child) -> None:
        """It has ended."""
        self._children.remove(child)

    def hear(self, child: Child) -> None:
        """It has reported."""
        if child.beaten_at == child.reported_at and self._all(self._is_fresh):
            self._beaten()

    def drains(self) -> None:
        """They were told to stop."""
        self._draining = True

    @property
    def is_live(self) -> bool:
        """Whether no process is stuck; one that loads its code, or is replaced, is not."""
        return not any(map(self._is_stuck, self._children))

    @property
    def is_ready(self) -> bool:
        """Whether all of them take runs."""
        return not self._draining and self._all(self._is_ready)

    @property
    def is_warned(self) -> bool:
        """Whether something on the store is to be mended, as one of them says."""
        return any("warning" in child.report for child in self._children)

    def as_json(self) -> dict[str, Any]:
        """What a probe is told."""
        started = all(child.was_ready for child in self._children)
        status = Status.WORKING if started and self._children else Status.STARTING
        return {
            "status": str(Status.DRAINING if self._draining else status),
            "processes": [
                {"pid": child.pid, **_shown(child), "stuck": self._is_stuck(child)}
                for child in sorted(self._children, key=lambda child: child.number)
            ],
        }

    def _all(self, fine: Callable[[Child], bool]) -> bool:
        return len(self._children) == self._processes and all(map(fine, self._children))

    def _is_fresh(self, child: Child) -> bool:
        beaten = child.beaten_at
        return beaten is not None and time.monotonic() - beaten < self._fresh_seconds

    def _is_ready(self, child: Child) -> bool:
        is_working = child.report.get("status") == Status.WORKING and "refused" not in child.report
        return is_working and self._is_fresh(child)

    def _is_stuck(self, child: Child) -> bool:
        told = child.reported_at
        longest = self._fresh_seconds + BLOCKED_SECONDS
        return told is not None and time.monotonic() - told > longest


def _shown(child: Child) -> dict[str, Any]:
    status = child.report.get("status", str(Status.STARTING))
    shown = {"worker": child.report.get("worker"), "status": status}
    told = {name: child.report[name] for name in ("warning", "refused") if name in child.report}
    return shown | told
