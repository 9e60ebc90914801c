"""The demo's workers: real processes, started, killed and stopped by their pid."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import BinaryIO

from murmur_streams.core.model.errors import MurmurError

CONCURRENCY = 4
LEASE_SECONDS = 2
STOP_SECONDS = 5.0
FLEET = "murmur_streams.cli.demo.agents:fleet"
_LOG_CHARACTERS = 2_000


class WorkerDiedError(MurmurError):
    """A worker of the demo ended that nobody had killed."""


@dataclass
class WorkerProcess:
    """One worker."""

    name: str
    process: asyncio.subprocess.Process
    log: BinaryIO
    was_killed: bool = False

    @property
    def pid(self) -> int:
        return self.process.pid

    def last_words(self) -> str:
        """The end of what it wrote to stderr, on one line."""
        self.log.seek(0)
        lines = self.log.read().decode("utf-8", "backslashreplace").split("\n")
        return " | ".join(line for line in lines if line.strip())[-_LOG_CHARACTERS:]


@dataclass
class Crew:
    """All workers of one demo; none of them outlives the ``async with``."""

    environ: Mapping[str, str]
    workers: list[WorkerProcess] = field(default_factory=list[WorkerProcess])

    async def __aenter__(self) -> Crew:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> WorkerProcess:
        """Start one more worker."""
        name = f"worker-{len(self.workers) + 1}"
        log: BinaryIO = tempfile.TemporaryFile()  # noqa: SIM115  # stop() closes it
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",  # no file in the current folder shall stand in for a module of ours
            *("-m", "murmur_streams", "worker", FLEET),
            *("--id", name),
            *("--concurrency", str(CONCURRENCY)),
            *("--lease-seconds", str(LEASE_SECONDS)),
            *("--drain-seconds", "1"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=log,
            env={**os.environ, **self.environ},
        )
        worker = WorkerProcess(name, process, log)
        self.workers.append(worker)
        return worker

    async def kill(self, name: str) -> WorkerProcess:
        """SIGKILL: the worker cannot say goodbye."""
        worker = next(worker for worker in self.workers if worker.name == name)
        worker.was_killed = True
        worker.process.kill()
        await worker.process.wait()
        return worker

    def check(self) -> None:
        """Raise WorkerDiedError when one has ended that should live."""
        for worker in self.workers:
            if worker.process.returncode is not None and not worker.was_killed:
                raise WorkerDiedError(
                    f"{worker.name} ended with exit code {worker.process.returncode}: "
                    f"{worker.last_words() or 'it wrote nothing'}"
                )

    async def stop(self) -> None:
        """SIGTERM to all, then SIGKILL to who is still there."""
        alive = [worker for worker in self.workers if worker.process.returncode is None]
        for worker in alive:
            worker.was_killed = True
            _signal(worker.process.terminate)
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STOP_SECONDS):
                    await asyncio.gather(*(worker.process.wait() for worker in alive))
        finally:
            for worker in self.workers:
                if worker.process.returncode is None:
                    _signal(worker.process.kill)
                worker.log.close()


def _signal(send: Callable[[], None]) -> None:
    with contextlib.suppress(ProcessLookupError):
        send()
