"""The health of workers for probes: of one process, of all of a supervisor, and as a file."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from murmur_streams.cli.supervisor.child import Child
from murmur_streams.core.model.errors import InvalidInputError
from murmur_streams.fleet.worker.worker import REGISTER_SECONDS

logger = logging.getLogger("murmur_streams.worker")

BEATS = 3
"""A worker beats every few seconds; after so many missed beats it counts as silent."""


BLOCKED_SECONDS = 5.0
"""How long after a beat is too old a process counts as stuck: its event loop does not run."""
MOST_TARGETS = 20
"""How many targets an answer names; `murmur-streams workers` names them all."""


def fresh_seconds(lease_seconds: float) -> float:
    """How old the last beat of a ready worker may be."""
    return max(lease_seconds, BEATS * REGISTER_SECONDS)


class Status(StrEnum):
    """Where a worker process is in its life."""

    STARTING = "starting"
    WORKING = "working"
    DRAINING = "draining"


@dataclass
class WorkerHealth:
    """The health of one worker process, by its beats.

    Args:
        fresh_seconds: how old its last beat may be while it is ready.
        changed: called at each beat and each change.
    """

    fresh_seconds: float
    changed: Callable[[WorkerHealth], None] = lambda _: None
    status: Status = Status.STARTING
    worker: str | None = None
    targets: tuple[str, ...] = ()
    warning: Callable[[], str | None] = field(default=lambda: None, repr=False)
    """The warning of a store that works but should be mended."""
    refusal: Callable[[], str | None] = field(default=lambda: None, repr=False)
    """Why the server lets the worker claim no runs."""
    beats: int = 0
    beaten_at: float | None = field(default=None, repr=False)

    def beat(self) -> None:
        """The server has just answered a beat of this worker."""
        self.beats += 1
        self.beaten_at = time.monotonic()
        if self.status is Status.STARTING:
            self.status = Status.WORKING
        self.changed(self)

    def set_draining(self) -> None:
        """The worker claims no more runs."""
        self.status = Status.DRAINING
        self.changed(self)

    @property
    def is_fresh(self) -> bool:
        """Whether its last beat is recent enough."""
        return self.beaten_at is not None and _since(self.beaten_at) < self.fresh_seconds

    @property
    def is_live(self) -> bool:
        """Always true: an answer itself shows that the event loop runs."""
        return True

    @property
    def is_ready(self) -> bool:
        """Whether it claims runs: it works, the server took its last beat and refuses no claim."""
        return self.status is Status.WORKING and self.is_fresh and self.refusal() is None

    @property
    def is_warned(self) -> bool:
        """Whether something on the store should be mended."""
        return self.warning() is not None

    def as_json(self) -> dict[str, Any]:
        """The body of a probe's answer."""
        beaten, warning, refusal = self.beaten_at, self.warning(), self.refusal()
        return {
            "status": "no heartbeat" if self._is_silent else str(self.status),
            "worker": self.worker,
            "targets": list(self.targets[:MOST_TARGETS]),
            "last_beat_seconds_ago": None if beaten is None else round(_since(beaten), 1),
            **({} if warning is None else {"warning": warning}),
            **({} if refusal is None else {"refused": refusal}),
        }

    @property
    def _is_silent(self) -> bool:
        return self.status is Status.WORKING and not self.is_fresh


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


class HealthFile:
    """A file that is touched at each beat and removed when the worker has ended.

    Raises:
        InvalidInputError: it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            # A process that was killed left its file: it must not count as a beat of this one.
            path.unlink(missing_ok=True)
            if not path.parent.is_dir():
                raise FileNotFoundError(2, "its folder does not exist")
        except OSError as error:
            raise InvalidInputError(f"--health-file {path}: {error.strerror}") from None

    def touch(self) -> None:
        """Record a beat. A full disk or a missing folder is logged, and the worker goes on."""
        try:
            self._path.touch()
        except OSError as error:
            logger.warning("the health file %s cannot be touched: %s", self._path, error.strerror)

    def remove(self) -> None:
        """Remove the file: the worker has ended."""
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)


def _since(moment: float) -> float:
    return time.monotonic() - moment
