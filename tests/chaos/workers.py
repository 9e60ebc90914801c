"""The worker processes of a chaos run, and what happens to them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator
from pathlib import Path

from murmur_streams.testing.faults import Act

LEASE_SECONDS = 2.0
ROOT = Path(__file__).resolve().parents[2]


class WorkerProcess:
    """A worker that is started again whenever it ends."""

    def __init__(self, environ: dict[str, str], log: Path) -> None:
        self._environ = environ
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self.starts = 0

    async def watch(self) -> None:
        """Start it, and again whenever it has ended, until cancelled."""
        while True:
            if self._process is None or self._process.poll() is not None:
                await asyncio.to_thread(self._start)
            await asyncio.sleep(0.1)

    def _start(self) -> None:
        self.starts += 1
        command = [sys.executable, "-m", "murmur_streams", "worker", "tests.chaos.agents:fleet"]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command, cwd=ROOT, env=os.environ | self._environ, stdout=log, stderr=log
            )

    def send(self, number: int) -> None:
        """Send it a signal, if it runs."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    def kill(self) -> None:
        """End it with SIGKILL, also while it is frozen."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()


@contextlib.asynccontextmanager
async def workers(
    count: int, folder: Path, url: str, options: dict[str, str]
) -> AsyncGenerator[list[WorkerProcess]]:
    """Run so many worker processes while the block lasts."""
    environ = {
        "MURMUR_URL": url,
        "MURMUR_LEASE_SECONDS": str(LEASE_SECONDS),
        "MURMUR_DRAIN_SECONDS": "2",
        "MURMUR_LOG_LEVEL": "warning",
        **options,
    }
    started = [WorkerProcess(environ, folder / f"worker{number}.log") for number in range(count)]
    watching = [asyncio.create_task(worker.watch()) for worker in started]
    try:
        yield started
    finally:
        for task in watching:
            task.cancel()
        await asyncio.gather(*watching, return_exceptions=True)
        for worker in started:
            worker.kill()


def worker_faults(workers: list[WorkerProcess], choice: random.Random) -> dict[str, Act]:
    """A worker is killed, stopped in order, frozen for a moment, and for longer than its lease."""

    async def killed() -> None:
        choice.choice(workers).send(signal.SIGKILL)
        await asyncio.sleep(choice.uniform(0.5, 1.5))

    async def stopped() -> None:
        choice.choice(workers).send(signal.SIGTERM)
        await asyncio.sleep(choice.uniform(0.5, 2.0))

    def frozen(least: float, most: float) -> Act:
        async def act() -> None:
            worker = choice.choice(workers)
            worker.send(signal.SIGSTOP)
            await asyncio.sleep(choice.uniform(least, most))
            worker.send(signal.SIGCONT)

        return act

    return {
        "a worker is killed": killed,
        "a worker is stopped in order": stopped,
        "a worker is frozen for a moment": frozen(0.1, 0.8),
        "a worker is frozen for longer than its lease": frozen(
            1.5 * LEASE_SECONDS, 2.5 * LEASE_SECONDS
        ),
    }
