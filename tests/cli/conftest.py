"""A server of its own for each test, the command line in a process, and a worker on demand."""

from __future__ import annotations

import asyncio
import os
import subprocess
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TypeVar, cast

import pytest

from murmur_streams.embedded import stop_server
from murmur_streams.stores.open import open_store
from murmur_streams.stores.redis.store import RedisRunStore
from tests.key_audit import audit_folder, left_by_hand
from tests.warm import StartedProcess, WarmProcess

HERE = Path(__file__).parent
T = TypeVar("T")


@pytest.fixture(autouse=True)
def data_dir(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """The folder of the test's embedded server, which is stopped at the end."""
    for name in [name for name in os.environ if name.startswith("MURMUR_")]:
        monkeypatch.delenv(name)
    folder = tmp_path / "data"
    monkeypatch.setenv("MURMUR_DATA_DIR", str(folder))
    monkeypatch.setenv("TEST_GATE", str(tmp_path / "gate"))
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    yield folder
    try:
        audit_folder(folder, others=left_by_hand(request))
    finally:
        stop_server(folder)


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    """Touch it, and the agent ``gated`` goes on."""
    return tmp_path / "gate"


class CommandLine:
    """``murmur-streams`` as a process; what still runs at the end of the test is killed."""

    def __init__(self) -> None:
        self._started: list[subprocess.Popen[str]] = []

    def run(
        self, *argv: str, stdin: str = "", cwd: Path = HERE, **environ: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        with (
            tempfile.TemporaryFile() as given,
            tempfile.TemporaryFile() as out,
            tempfile.TemporaryFile() as err,
        ):
            given.write(stdin.encode())
            given.seek(0)
            process = WarmProcess(
                "murmur_streams",
                *argv,
                cwd=cwd,
                env={**os.environ, **environ},
                stdin=given,
                stdout=out,
                stderr=err,
            )
            try:
                process.wait(90)
            finally:
                process.kill()
            code = process.wait()
            out.seek(0)
            err.seek(0)
            return subprocess.CompletedProcess(argv, code, out.read().decode(), err.read().decode())

    def start(self, *argv: str, cwd: Path = HERE) -> subprocess.Popen[str]:
        """Start a command with pipes on its stdout and stderr."""
        process = StartedProcess("murmur_streams", *argv, cwd=cwd, env=os.environ)
        started = cast("subprocess.Popen[str]", process)  # it has the part that tests use
        self._started.append(started)
        return started

    def worker(self, *argv: str) -> subprocess.Popen[str]:
        """Start a worker of the tests' fleet and wait until it works."""
        process = self.start("worker", "fleet_app:fleet", "--lease-seconds", "2", "--json", *argv)
        assert process.stdout is not None
        assert '"worker"' in process.stdout.readline()
        return process

    def end(self) -> None:
        """Kill what still runs."""
        for process in self._started:
            process.kill()
            process.communicate()


@pytest.fixture
def line(data_dir: Path) -> Iterator[CommandLine]:
    """The command line of this test."""
    command_line = CommandLine()
    yield command_line
    command_line.end()


@pytest.fixture
def in_store(data_dir: Path) -> Callable[[Callable[[RedisRunStore], Awaitable[T]]], T]:
    """Do something in the test's store."""

    def call(body: Callable[[RedisRunStore], Awaitable[T]]) -> T:
        async def inside() -> T:
            store = open_store("embedded:")
            assert isinstance(store, RedisRunStore)
            async with store:
                return await body(store)

        return asyncio.run(inside())

    return call
