"""Worker processes of a test, and what must be true of a run whatever happened to them."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

from murmur_streams import Fleet, RunHandle
from murmur_streams.core.model.entries import JournalEntry
from murmur_streams.core.model.states import RunState
from tests.warm import ROOT, WarmProcess

LEAKS = ("Exception ignored", "Traceback", "never awaited", "never retrieved", "was destroyed")
PATIENCE_SECONDS = 45.0


class WorkerProcess:
    """A worker process, and the lines that it has printed."""

    def __init__(self, options: str, environment: dict[str, str], log: Path) -> None:
        self.log = log
        with Path(os.devnull).open("rb") as nothing, log.open("wb") as file:
            self.process = WarmProcess(
                "tests.fleet.worker_process",
                options,
                cwd=ROOT,
                env=environment,
                stdin=nothing,
                stdout=file,
                stderr=file,
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    def text(self) -> str:
        """Everything it has printed and logged."""
        return self.log.read_text(encoding="utf-8")

    def has_printed(self, line: str, times: int = 1) -> bool:
        """Whether it printed a line, so many times."""
        return self.text().splitlines().count(line) >= times

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL, and collect it."""
        self.process.kill()
        self.process.wait()

    def exit_code(self) -> int:
        """Wait for its end; it must have left nothing behind that Python warns of."""
        code = self.process.wait(PATIENCE_SECONDS)
        assert not [leak for leak in LEAKS if leak in self.text()], self.text()
        return code


class Stage:
    """The processes of one test; all of them end with it.

    Args:
        url: the server.
        prefix: the test's key prefix.
        folder: a folder of the test's own.
        partitions: of the runs, for the fleet and its workers.
    """

    def __init__(self, url: str, prefix: str, folder: Path, partitions: int = 1) -> None:
        self.url = url
        self.prefix = prefix
        self.folder = folder
        self.partitions = partitions
        self.fleet = self.made_fleet()
        self.workers: list[WorkerProcess] = []

    def made_fleet(self) -> Fleet:
        """The test's own view of the runs."""
        return Fleet(self.url, key_prefix=self.prefix, partitions=self.partitions)

    def start(
        self,
        *,
        lease_seconds: float = 15.0,
        concurrency: int = 10,
        drain_seconds: float = 30.0,
        die_at: str = "",
        idle_seconds: float = 3600.0,
    ) -> WorkerProcess:
        """Start a worker, without waiting for it. By itself, it never looks at an idle queue."""
        options = {
            "worker": {
                "lease_seconds": lease_seconds,
                "concurrency": concurrency,
                "drain_seconds": drain_seconds,
            },
            "die_at": die_at,
            "idle_seconds": idle_seconds,
        }
        inherited = {name: value for name, value in os.environ.items() if "MURMUR" not in name}
        environment = inherited | {
            "MURMUR_URL": self.url,
            "MURMUR_KEY_PREFIX": self.prefix,
            "MURMUR_PARTITIONS": str(self.partitions),
        }
        log = self.folder / f"worker-{len(self.workers)}.log"
        worker = WorkerProcess(json.dumps(options), environment, log)
        self.workers.append(worker)
        return worker

    async def ready(self, worker: WorkerProcess) -> WorkerProcess:
        """Wait until it works."""
        await self.printed(worker, "ready")
        return worker

    async def printed(self, worker: WorkerProcess, line: str, times: int = 1) -> None:
        """Wait until it has printed a line, so many times."""

        async def has_printed() -> bool:
            assert worker.process.poll() is None, f"the worker has ended: {worker.text()}"
            return worker.has_printed(line, times)

        await wait_until(has_printed, f"worker {worker.pid} prints {line!r}")

    def gate(self) -> Path:
        """A file that does not exist yet, for agents that wait for one."""
        return self.folder / f"gate-{secrets.token_hex(4)}"

    async def in_state(self, handle: RunHandle[Any], state: RunState, attempt: int) -> None:
        """Wait until the run is in this state, at this attempt."""

        async def is_in() -> bool:
            run = await handle.snapshot()
            return (run.state, run.attempt) == (state, attempt)

        await wait_until(is_in, f"run {handle.run_id} is {state} at attempt {attempt}")

    async def journal(self, run_id: str) -> list[JournalEntry]:
        """The whole journal of a run."""
        store = await self.fleet.store()
        return [entry async for entry in store.journal(run_id)]

    async def check(self, handles: Iterable[RunHandle[Any]]) -> list[int]:
        """All runs ended once and no stale write is in their journals; their attempts."""
        store, attempts = await self.fleet.store(), list[int]()
        for handle in handles:
            journal = await self.journal(handle.run_id)
            assert stale_entries(journal) == []
            states = [entry.fields["state"] for entry in journal if entry.type == "run.state"]
            assert sum(RunState(state).is_terminal for state in states) == 1, states
            assert journal[-1].is_seal
            report = await store.audit(handle.run_id)
            assert report.ok, report
            attempts.append((await handle.snapshot()).attempt)
        return attempts

    def close(self) -> None:
        """Kill what still runs."""
        for worker in self.workers:
            if worker.process.poll() is None:
                worker.kill()


def stale_entries(journal: list[JournalEntry]) -> list[JournalEntry]:
    """The events that an attempt wrote before it began or after it was over."""
    stale, running = list[JournalEntry](), 0
    for entry in journal:
        if entry.type == "run.state":
            running = entry.attempt or 0 if entry.fields["state"] == RunState.RUNNING else 0
        elif entry.attempt is not None and entry.attempt != running:
            stale.append(entry)
    return stale


async def wait_until(
    condition: Callable[[], Awaitable[bool]], why: str, within_seconds: float = PATIENCE_SECONDS
) -> None:
    """Poll the condition; fail, saying what was waited for, when it never holds."""
    deadline = time.monotonic() + within_seconds
    while not await condition():
        assert time.monotonic() < deadline, f"waited {within_seconds} s in vain: {why}"
        await asyncio.sleep(0.01)
