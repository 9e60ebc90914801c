"""One worker process, as its parent sees it: started, told to stop, listened to, waited for."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from murmur_streams.cli.supervisor.child_pipe import read_report
from murmur_streams.cli.supervisor.options import Options

INTERRUPTED = 130
STOPPED_CODES = frozenset({0, INTERRUPTED, -signal.SIGTERM, -signal.SIGINT})
"""How a worker ends that was told to stop, also before it could heed that."""


@dataclass
class Child:
    """A worker process. Nothing of it is left once ``ended`` has returned."""

    number: int
    process: asyncio.subprocess.Process
    heard: Callable[[Child], None]
    report: dict[str, Any] = field(default_factory=dict[str, Any])
    reported_at: float | None = None
    beaten_at: float | None = None
    beats: int = 0
    times_told: int = 0
    told: asyncio.Event = field(default_factory=asyncio.Event)
    _listening: asyncio.Task[None] | None = None

    @classmethod
    async def start(
        cls, number: int, options: Options, more: list[str], heard: Callable[[Child], None]
    ) -> Child:
        """Start it. In a process group of its own: Ctrl-C on a terminal is for the parent."""
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                process = await asyncio.create_subprocess_exec(
                    *options.words_for_child(number, theirs.fileno()),
                    *more,
                    stdin=asyncio.subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(),),
                    process_group=0,
                    env=_environment(options),
                )
            except BaseException:
                ours.close()
                raise
        child = cls(number, process, heard)
        child._listening = asyncio.create_task(child._listen(ours))
        return child

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def was_ready(self) -> bool:
        """Whether it has ever worked."""
        return self.beaten_at is not None

    def tell_to_stop(self) -> None:
        """Once: drain. Twice: hand back. More often: it is killed."""
        # Two of the same signal may arrive as one; the last one is heeded by every process.
        sequence = (signal.SIGTERM, signal.SIGINT, signal.SIGKILL)
        number = sequence[min(self.times_told, len(sequence) - 1)]
        self.times_told += 1
        self.told.set()
        self.send(number)

    def send(self, number: signal.Signals) -> None:
        """Send a signal, if it still runs."""
        if self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(number)

    async def ended(self) -> int:
        """Wait for its end; the exit code, or the negative number of the signal that ended it."""
        code = await self.process.wait()
        if self._listening is not None:
            await self._listening
        return code

    async def _listen(self, ours: socket.socket) -> None:
        reader, writer = await asyncio.open_connection(sock=ours)
        try:
            # It ends with the process: what that has started itself does not hold the socket.
            while line := await reader.readline():
                self._hear(read_report(line))
        except (OSError, ValueError):
            return
        finally:
            writer.close()

    def _hear(self, report: dict[str, Any]) -> None:
        self.report, self.reported_at = report, time.monotonic()
        if report.get("beats", self.beats) != self.beats:
            self.beats, self.beaten_at = report["beats"], self.reported_at
        self.heard(self)


def how_it_ended(code: int) -> str:
    """An exit code in words."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"


def _environment(options: Options) -> dict[str, str]:
    environ = dict(os.environ)
    if options.reload:
        # Compiled files are told apart by the second: two saves in one would look the same.
        environ["PYTHONDONTWRITEBYTECODE"] = "1"
    if sys.flags.dev_mode:
        environ["PYTHONDEVMODE"] = "1"
    return environ
