"""A program that works in a process of its own: it reads orders and answers with readings.

An order is a line of JSON, ``{"work": ..., "store": ..., "address": ..., "arguments": {...}}``; the
answer is a line with a list of readings. A work that needs a moment when others may begin calls
``ready()``, which sends a line of its own first.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.harness.results import Reading

ROOT = Path(__file__).resolve().parents[2]
ORDER_SECONDS = 600.0
"""More than any order takes: a program that hangs ends the benchmark."""
LINE_BYTES = 1 << 26
READY = "ready"


@dataclass(frozen=True, slots=True)
class Order:
    """One measurement."""

    work: str
    store: str = "redis"
    address: str = ""
    """A path, or a URL; the memory store needs none."""
    arguments: dict[str, Any] = field(default_factory=dict[str, Any])


class Program:
    """The other end of a program: gives it orders."""

    def __init__(self, name: str, process: Process) -> None:
        self.name = name
        self._process = process

    async def do(self, order: Order) -> list[Reading]:
        """Give an order and wait for its answer."""
        await self.begin(order, is_awaited=False)
        return await self.answer()

    async def begin(self, order: Order, *, is_awaited: bool = True) -> None:
        """Give an order; with ``is_awaited``, return when the program says that it is ready."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{json.dumps(dataclasses.asdict(order))}\n".encode())
        await self._process.stdin.drain()
        if is_awaited and (said := await self._line()) != READY:
            raise RuntimeError(f"{self.name} answered {said!r} before it was ready")

    async def answer(self) -> list[Reading]:
        """The answer to the order that was begun."""
        return [Reading(**each) for each in await self._line()]

    async def _line(self) -> Any:
        assert self._process.stdout is not None
        async with asyncio.timeout(ORDER_SECONDS):
            line = await self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the program {self.name!r} has ended; its error is above")
        return json.loads(line)


@contextlib.asynccontextmanager
async def process_of(
    *command: str,
    folder: Path = ROOT,
    path: str | None = None,
    is_silent: bool = False,
    environment: Mapping[str, str] | None = None,
) -> AsyncGenerator[Process]:
    """A process with pipes; it and what it has started are killed at the end of the block.

    Args:
        folder: where it works, and where Python finds modules first.
        path: the PYTHONPATH, if any.
        is_silent: what it prints is thrown away.
        environment: more variables.
    """
    inherited = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"}
    variables = inherited | dict(environment or {}) | ({} if path is None else {"PYTHONPATH": path})
    # A session of its own: Ctrl-C reaches only the harness, which ends what it has started.
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=folder,
        env=variables,
        stdin=PIPE,
        stdout=DEVNULL if is_silent else PIPE,
        stderr=DEVNULL if is_silent else None,
        limit=LINE_BYTES,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await asyncio.shield(process.communicate())


@contextlib.asynccontextmanager
async def program(
    name: str, module: str, *arguments: str, folder: Path = ROOT, path: str | None = None
) -> AsyncGenerator[Program]:
    """A program that runs a module of this package with this Python."""
    command = (sys.executable, "-m", module, *arguments)
    async with process_of(*command, folder=folder, path=path) as process:
        yield Program(name, process)


def serve(do: Callable[[Order], Coroutine[Any, Any, list[Reading]]]) -> None:
    """Answer each order on stdin until it closes. Prints of libraries must not mix with answers."""
    for line in sys.stdin:
        order = Order(**json.loads(line))
        with contextlib.redirect_stdout(sys.stderr):
            found = asyncio.run(do(order))
        _say([dataclasses.asdict(each) for each in found])


def ready() -> None:
    """Report that this program is ready, before the answer."""
    _say(READY)


def _say(value: object) -> None:
    print(json.dumps(value), file=sys.__stdout__, flush=True)
