"""The options of a worker, and the command line that starts one as a child process."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from murmur_streams.settings import Settings

PROGRAMS = frozenset({"murmur-streams", "mstreams"})


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """The options of one worker command."""

    fleet: str
    settings: Settings
    """The environment's settings, with the options of the command line over them."""
    targets: tuple[str, ...] | None = None
    worker_id: str | None = None
    reload: bool = False
    parent: int | None = None
    """The descriptor of the socket to the supervisor, in a process that one has started."""

    @property
    def needs_supervisor(self) -> bool:
        """Whether this process executes no runs, and supervises others that do."""
        return self.parent is None and (self.settings.processes > 1 or self.reload)

    def child_command(self, number: int, parent: int) -> list[str]:
        """The command line of one child process; ``number`` counts them from 1."""
        command = [*_this_program(), "worker", self.fleet, "--parent", str(parent)]
        settings = self.settings
        command += ["--concurrency", str(settings.concurrency), "--loop", settings.loop]
        command += ["--lease-seconds", str(settings.lease_seconds)]
        command += ["--drain-seconds", str(settings.drain_seconds)]
        command += ["--targets", ",".join(self.targets)] if self.targets else []
        if self.worker_id is not None:
            own = self.worker_id if settings.processes == 1 else f"{self.worker_id}-{number}"
            command += ["--id", own]
        return command


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
