"""An agent may fork children and end them: the process that executes it works on."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from murmur_streams import Fleet
from tests.cli.conftest import CommandLine
from tests.cli.waiting import PATIENCE_SECONDS, next_object

APP = '''
import asyncio
import multiprocessing
import os
import subprocess
import time

from murmur_streams import Fleet

fleet = Fleet()
forking = multiprocessing.get_context("fork")


@fleet.agent
async def process() -> list[int]:
    """Start a process and terminate it at once, often enough for every moment of its start."""
    codes = []
    for _ in range(20):
        child = forking.Process(target=time.sleep, args=(600,))
        child.start()
        child.terminate()
        await asyncio.to_thread(child.join)
        codes.append(child.exitcode)
    return codes


@fleet.agent
def pool() -> list[int]:
    """Leave a pool, which terminates its processes."""
    with forking.Pool(2) as processes:
        return processes.map(abs, [-1, -2])


@fleet.agent
async def signalled(number: int) -> int:
    """Fork, and send the child a signal."""
    pid = os.fork()
    if pid == 0:
        try:
            time.sleep(600)
        finally:
            os._exit(3)
    os.kill(pid, number)
    return os.waitstatus_to_exitcode((await asyncio.to_thread(os.waitpid, pid, 0))[1])


@fleet.agent
def program() -> int:
    """Start another program, by a fork that runs Python code before it, and terminate it."""
    child = subprocess.Popen(["sleep", "600"], preexec_fn=lambda: None)
    child.terminate()
    return child.wait()
'''
COMMANDS = {
    "worker": ("worker", "app:fleet"),
    "pod": ("serve", "app:fleet", "--port", "0", "--with-worker"),
    "process of a parent": ("worker", "app:fleet", "--processes", "1"),
}
RUNS = {
    "process": ("process", [[-signal.SIGTERM] * 20]),
    "pool": ("pool", [[1, 2]]),
    "SIGTERM": ("signalled", [-signal.SIGTERM]),
    "SIGHUP": ("signalled", [-signal.SIGHUP]),
    # A KeyboardInterrupt, once the child runs; before that the signal itself.
    "SIGINT": ("signalled", [3, -signal.SIGINT]),
    "another program": ("program", [-signal.SIGTERM]),
}


async def output_of(agent: str, name: str) -> object:
    """Submit a run to the worker; what its agent returned."""
    async with Fleet() as fleet:
        given = (int(signal.Signals[name]),) if name in signal.Signals.__members__ else ()
        return await (await fleet.submit(agent, *given)).output(timeout=PATIENCE_SECONDS)


@pytest.mark.slow
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("command", COMMANDS)
def test_a_child_that_an_agent_ends_ends_nothing_else(
    line: CommandLine, tmp_path: Path, command: str, loop: str
) -> None:
    """The child dies of its signal, the agent returns, and the worker takes the next run."""
    (tmp_path / "app.py").write_text(APP)
    process = line.start(*COMMANDS[command], "--loop", loop, "--json", cwd=tmp_path)
    next_object(process, "worker")
    for name, (agent, outputs) in RUNS.items():
        assert asyncio.run(output_of(agent, name)) in outputs
        assert process.poll() is None, name
    process.send_signal(signal.SIGTERM)
    _, reported = process.communicate(timeout=60)
    assert process.returncode == 0, reported
    assert "queued again" not in reported


PROGRAM = """
import asyncio
import multiprocessing
import signal
import time

from murmur_streams import Fleet
from murmur_streams.fleet.worker import Worker

fleet = Fleet()


@fleet.agent
def stops_a_child() -> int | None:
    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,))
    child.start()
    child.terminate()
    child.join()
    return child.exitcode


async def main() -> None:
    worker = Worker(fleet)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, worker.stop)
    async with fleet:
        working = asyncio.create_task(worker.run())
        for _ in range(2):
            handle = await fleet.submit(stops_a_child)
            assert await handle.output() == -signal.SIGTERM
        assert not working.done()
        worker.stop()
        await working


asyncio.run(main())
"""


def test_a_program_with_a_worker_may_fork(line: CommandLine, tmp_path: Path) -> None:
    """A worker in a program of the user's: its signal handlers stay the parent's, too."""
    (tmp_path / "program.py").write_text(PROGRAM)
    done = subprocess.run(
        [sys.executable, "program.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
