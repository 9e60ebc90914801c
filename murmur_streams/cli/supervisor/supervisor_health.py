"""The health of all processes of one supervisor together."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from murmur_streams.cli.supervisor.child import Child
from murmur_streams.cli.supervisor.health import Status

BLOCKED_SECONDS = 5.0
"""How long after a beat is too old a process counts as stuck: its event loop does not run."""


class SupervisorHealth:
    """The health of all processes, for probes.

    Args:
        processes: how many there should be.
        fresh_seconds: how old the last beat of a ready process may be.
        on_beat: called at a beat while all of them are ready.
    """

    def __init__(
        self, processes: int, fresh_seconds: float, on_beat: Callable[[], None] = lambda: None
    ) -> None:
        self._processes = processes
        self._fresh_seconds = fresh_seconds
        self._on_beat = on_beat
        self._children: list[Child] = []
        self._draining = False

    def add(self, child: Child) -> None:
        """Count one more process."""
        self._children.append(child)

    def remove(self, child: Child) -> None:
        """Forget a process that has ended."""
        self._children.remove(child)

    def on_report(self, child: Child) -> None:
        """Take notice of a report."""
        if child.beaten_at == child.reported_at and self._all(self._is_fresh):
            self._on_beat()

    def set_draining(self) -> None:
        """The processes are stopping."""
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
        """Whether one of them reports something on the store that needs mending."""
        return any("warning" in child.report for child in self._children)

    def as_json(self) -> dict[str, Any]:
        """The body of a probe's answer."""
        started = all(child.was_ready for child in self._children)
        status = Status.WORKING if started and self._children else Status.STARTING
        return {
            "status": str(Status.DRAINING if self._draining else status),
            "processes": [
                {"pid": child.pid, **_shown(child), "stuck": self._is_stuck(child)}
                for child in sorted(self._children, key=lambda child: child.number)
            ],
        }

    def _all(self, check: Callable[[Child], bool]) -> bool:
        return len(self._children) == self._processes and all(map(check, self._children))

    def _is_fresh(self, child: Child) -> bool:
        beaten = child.beaten_at
        return beaten is not None and time.monotonic() - beaten < self._fresh_seconds

    def _is_ready(self, child: Child) -> bool:
        is_working = child.report.get("status") == Status.WORKING and "refused" not in child.report
        return is_working and self._is_fresh(child)

    def _is_stuck(self, child: Child) -> bool:
        longest = self._fresh_seconds + BLOCKED_SECONDS
        last = child.reported_at
        return last is not None and time.monotonic() - last > longest


def _shown(child: Child) -> dict[str, Any]:
    report = child.report
    shown = {"worker": report.get("worker"), "status": report.get("status", str(Status.STARTING))}
    return shown | {name: report[name] for name in ("warning", "refused") if name in report}
