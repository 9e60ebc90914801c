"""The worker processes of a chaos run, and what happens to them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from pathlib import Path

from murmur_streams.testing.faults import Act

LEASE_SECONDS = 2.0
ROOT = Path(__file__).resolve().parents[2]
_FLEET = "tests.chaos.agents:fleet"
WORKER = ("worker", _FLEET)
"""The arguments of the command."""


def pod(port: int) -> tuple[str, ...]:
    """The arguments of a pod on this port."""
    return ("serve", _FLEET, "--port", str(port))


class RestartedProcess:
    """A process of the command line that is started again whenever it ends.

    Args:
        arguments: of ``murmur-streams``.
        environ: is added to the environment.
        log: the file of its output.
    """

    def __init__(self, arguments: Sequence[str], environ: Mapping[str, str], log: Path) -> None:
        self._arguments = arguments
        self._environ = environ
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self.starts = 0

    @property
    def pid(self) -> int | None:
        """Of the process, if it runs."""
        runs = self._process is not None and self._process.poll() is None
        return self._process.pid if self._process is not None and runs else None

    async def watch(self) -> None:
        """Start it, and again whenever it has ended, until cancelled."""
        while True:
            if self.pid is None:
                await asyncio.to_thread(self._start)
            await asyncio.sleep(0.1)

    def _start(self) -> None:
        self.starts += 1
        command = [sys.executable, "-m", "murmur_streams", *self._arguments]
        environ = {**os.environ, **self._environ}
        with self._log.open("ab") as log:
            # Ctrl-C in the terminal is for the program that judges; it ends the others itself.
            self._process = subprocess.Popen(
                command, cwd=ROOT, env=environ, stdout=log, stderr=log, start_new_session=True
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


def environ_of(url: str, options: Mapping[str, object]) -> dict[str, str]:
    """The environment of workers and pods.

    Args:
        url: of the server.
        options: of the store, each by its name in the settings.
    """
    return {
        "MURMUR_URL": url,
        "MURMUR_LEASE_SECONDS": str(LEASE_SECONDS),
        "MURMUR_DRAIN_SECONDS": "2",
        "MURMUR_LOG_LEVEL": "warning",
        **{f"MURMUR_{name.upper()}": str(value) for name, value in options.items()},
    }


def workers(count: int, folder: Path, environ: Mapping[str, str]) -> list[RestartedProcess]:
    """So many worker processes, which do not run yet."""
    logs = [folder / f"worker{number}.log" for number in range(count)]
    return [RestartedProcess(WORKER, environ, log) for log in logs]


@contextlib.asynccontextmanager
async def running(processes: Iterable[RestartedProcess]) -> AsyncGenerator[None]:
    """Run the processes while the block lasts."""
    started = [*processes]
    watching = [asyncio.create_task(each.watch()) for each in started]
    try:
        yield
    finally:
        for task in watching:
            task.cancel()
        await asyncio.gather(*watching, return_exceptions=True)
        for each in started:
            each.kill()


def worker_faults(workers: list[RestartedProcess], choice: random.Random) -> dict[str, Act]:
    """A worker is killed, stopped in order, frozen for a moment, and for longer than its lease."""
    long = _frozen(workers, choice, 1.5 * LEASE_SECONDS, 2.5 * LEASE_SECONDS)
    return process_faults("worker", workers, choice) | {
        "a worker is frozen for longer than its lease": long
    }


def process_faults(
    what: str, processes: list[RestartedProcess], choice: random.Random
) -> dict[str, Act]:
    """One of the processes is killed, stopped in order, and frozen for a moment.

    Args:
        what: they are, in the names of the faults.
        processes: to choose from.
        choice: of the process and of the moments.
    """

    def ended(number: int, most: float) -> Act:
        async def act() -> None:
            choice.choice(processes).send(number)
            await asyncio.sleep(choice.uniform(0.5, most))

        return act

    return {
        f"a {what} is killed": ended(signal.SIGKILL, 1.5),
        f"a {what} is stopped in order": ended(signal.SIGTERM, 2.0),
        f"a {what} is frozen for a moment": _frozen(processes, choice, 0.1, 0.8),
    }


def _frozen(
    processes: list[RestartedProcess], choice: random.Random, least: float, most: float
) -> Act:
    async def act() -> None:
        process = choice.choice(processes)
        process.send(signal.SIGSTOP)
        await asyncio.sleep(choice.uniform(least, most))
        process.send(signal.SIGCONT)

    return act
