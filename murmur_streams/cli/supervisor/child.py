"""One worker process, as its supervisor sees it: options, start, signals, reports, end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from murmur_streams.cli.shell.command import INTERRUPTED
from murmur_streams.settings import Settings

PROGRAMS = frozenset({"murmur-streams", "mstreams"})
STOPPED_CODES = frozenset({0, INTERRUPTED, -signal.SIGTERM, -signal.SIGINT})
"""Exit codes of a worker that was stopped, also one that had not yet installed its handlers."""


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


@dataclass
class Child:
    """A worker process. Nothing of it is left once ``ended`` has returned."""

    number: int
    process: asyncio.subprocess.Process
    on_report: Callable[[Child], None]
    report: dict[str, Any] = field(default_factory=dict[str, Any])
    reported_at: float | None = None
    beaten_at: float | None = None
    beats: int = 0
    stops_sent: int = 0
    stop_requested: asyncio.Event = field(default_factory=asyncio.Event)
    _reading: asyncio.Task[None] | None = None

    @classmethod
    async def start(
        cls,
        number: int,
        options: WorkerOptions,
        extra: list[str],
        on_report: Callable[[Child], None],
    ) -> Child:
        """Start it in a process group of its own: Ctrl-C on a terminal reaches only the parent."""
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                process = await asyncio.create_subprocess_exec(
                    *options.child_command(number, theirs.fileno()),
                    *extra,
                    stdin=asyncio.subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(),),
                    process_group=0,
                    env=_environment(options),
                )
            except BaseException:
                ours.close()
                raise
        child = cls(number, process, on_report)
        child._reading = asyncio.create_task(child._read_reports(ours))
        return child

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def was_ready(self) -> bool:
        """Whether it has ever worked."""
        return self.beaten_at is not None

    def request_stop(self) -> None:
        """First call: drain. Second: hand the runs back. Third and later: it is killed."""
        # The kernel may merge two signals of the same number into one, so each call sends another.
        sequence = (signal.SIGTERM, signal.SIGINT, signal.SIGKILL)
        number = sequence[min(self.stops_sent, len(sequence) - 1)]
        self.stops_sent += 1
        self.stop_requested.set()
        self.send(number)

    def send(self, number: signal.Signals) -> None:
        """Send a signal, if the process still runs."""
        if self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(number)

    async def ended(self) -> int:
        """Wait for its end; the exit code, or the negative number of the signal that ended it."""
        code = await self.process.wait()
        if self._reading is not None:
            await self._reading
        return code

    async def _read_reports(self, ours: socket.socket) -> None:
        reader, writer = await asyncio.open_connection(sock=ours)
        try:
            # The socket closes with the process: programs that it started do not inherit it.
            while line := await reader.readline():
                self._take_report(_parse_report(line))
        except (OSError, ValueError):
            return
        finally:
            writer.close()

    def _take_report(self, report: dict[str, Any]) -> None:
        self.report, self.reported_at = report, time.monotonic()
        if report.get("beats", self.beats) != self.beats:
            self.beats, self.beaten_at = report["beats"], self.reported_at
        self.on_report(self)


def describe_exit(code: int) -> str:
    """An exit code as the end of a sentence."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"


def _environment(options: WorkerOptions) -> dict[str, str]:
    environ = dict(os.environ)
    if options.reload:
        # Python compares compiled files by the second: of two saves in one second, it would miss
        # the later one.
        environ["PYTHONDONTWRITEBYTECODE"] = "1"
    if sys.flags.dev_mode:
        environ["PYTHONDEVMODE"] = "1"
    return environ


def _parse_report(line: bytes) -> dict[str, Any]:
    """A child's report; empty for half a line, which a child leaves that dies while it writes."""
    try:
        found: object = json.loads(line)
    except ValueError:
        return {}
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}


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
