"""What a worker is started with, and how that is told to a process of its own."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

PROGRAMS = frozenset({"murmur-streams", "mstreams"})


@dataclass(frozen=True, slots=True)
class Probes:
    """Where others look whether it is alive: a file, a port, both or nothing."""

    file: Path | None = None
    host: str = "127.0.0.1"
    port: int | None = None
    """0 takes any free one."""


@dataclass(frozen=True, slots=True)
class Options:
    """What a worker is started with."""

    fleet: str
    concurrency: int
    lease_seconds: float
    drain_seconds: float
    targets: tuple[str, ...] | None = None
    worker_id: str | None = None
    loop: str = "auto"
    processes: int = 1
    reload: bool = False
    probes: Probes = Probes()
    parent: int | None = None
    """The descriptor of the socket to the parent, in a process that one has started."""

    @property
    def needs_parent(self) -> bool:
        """Whether this process only keeps others that work."""
        return self.parent is None and (self.processes > 1 or self.reload)

    def words_for_child(self, number: int, parent: int) -> list[str]:
        """The command of one process; ``number`` counts them from 1."""
        words = [*_this_program(), "worker", self.fleet, "--parent", str(parent)]
        words += ["--concurrency", str(self.concurrency), "--loop", self.loop]
        words += ["--lease-seconds", str(self.lease_seconds)]
        words += ["--drain-seconds", str(self.drain_seconds)]
        words += ["--targets", ",".join(self.targets)] if self.targets else []
        if self.worker_id is not None:
            own = self.worker_id if self.processes == 1 else f"{self.worker_id}-{number}"
            words += ["--id", own]
        return words


def _this_program() -> list[str]:
    """How to start this program once more.

    The installed script is called as such: ``-m`` puts the current folder first on the path, where
    a file of the user's may have the name of a module that we need.
    """
    safe = ["-P"] if sys.flags.safe_path else []
    script = Path(sys.argv[0])
    if script.stem in PROGRAMS and script.exists():
        return [sys.executable, *safe, os.fspath(script)]
    return [sys.executable, *safe, "-m", "murmur_streams"]
