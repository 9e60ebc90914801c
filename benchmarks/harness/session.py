"""One run of the benchmarks: its sizes, its subjects, and rounds that are interleaved."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from benchmarks.harness import program
from benchmarks.harness.program import ROOT, Order, Program
from benchmarks.harness.results import Reading, Results
from benchmarks.harness.servers import driver

TASKIQ, DRAMATIQ, BULLMQ = "taskiq", "dramatiq", "BullMQ"
PEERS = (TASKIQ, "streaq", "pydocket", "arq", DRAMATIQ, BULLMQ)
OURS, PEER, FLOOR = "murmur-streams", "murmur-runtime", "floor"
PACKAGES = Path(sys.prefix) / "interop"
"""`make` installs murmur-runtime and its dependencies here."""
STORE_PROGRAM = "benchmarks.programs.store"


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much work the benchmarks do."""

    rounds: int = 5
    warm_ups: int = 1
    appends: int = 5_000
    in_turn: int = 2_000
    lifecycles: int = 1_000
    deliveries: int = 300
    replayed: int = 10_000
    idle: int = 10_000
    idle_seconds: float = 10.0
    live: int = 5_000
    live_seconds: float = 10.0
    fan_out: tuple[int, ...] = (1, 10, 100, 1_000, 5_000)
    lengths: tuple[int, ...] = (10, 100, 1_000, 10_000)
    runs: tuple[int, ...] = (1_000, 10_000, 100_000)
    growth: int = 300
    jobs: int = 4_000
    asked: int = 200
    streams: int = 5_000
    local_appends: int = 2_000
    peers: tuple[str, ...] = PEERS
    """The job engines beside ours."""


FULL = Sizes()
QUICK = Sizes(
    rounds=2,
    appends=2_000,
    in_turn=300,
    lifecycles=200,
    deliveries=60,
    replayed=2_000,
    idle=500,
    idle_seconds=1.0,
    live=200,
    live_seconds=1.0,
    fan_out=(1, 100),
    lengths=(10, 1_000),
    runs=(500, 5_000),
    growth=100,
    jobs=1_000,
    asked=30,
    streams=100,
    local_appends=200,
    peers=(TASKIQ,),
)
TINY = Sizes(
    rounds=1,
    warm_ups=0,
    appends=100,
    in_turn=10,
    lifecycles=100,
    deliveries=5,
    replayed=100,
    idle=10,
    idle_seconds=0.1,
    live=10,
    live_seconds=0.1,
    fan_out=(1, 5),
    lengths=(10, 20),
    runs=(10, 20),
    growth=5,
    jobs=200,
    asked=3,
    streams=10,
    local_appends=100,
)


@dataclass(frozen=True, slots=True)
class Subject:
    """A library to measure.

    Args:
        name: as the tables name it.
        module: which has the names of ``murmur.runs``.
        folder: where Python finds modules first.
        path: the PYTHONPATH, if any.
    """

    name: str
    module: str
    folder: Path = ROOT
    path: str | None = None

    def program(self) -> AbstractAsyncContextManager[Program]:
        """A process with the stores of this library."""
        arguments = (self.name, STORE_PROGRAM, self.module)
        return program.program(*arguments, folder=self.folder, path=self.path)


THIS = Subject(OURS, "murmur_streams.runs")


def revision_subject(name: str, folder: Path) -> Subject:
    """The library of another revision, whose package lies in ``folder``."""
    return Subject(name, THIS.module, folder, str(ROOT))


def peer_subject() -> Subject | None:
    """murmur-runtime, or None when it is not installed."""
    is_there = (PACKAGES / "murmur").is_dir()
    return Subject(PEER, "murmur.runs", ROOT, str(PACKAGES)) if is_there else None


@dataclass(frozen=True, slots=True)
class Step:
    """What one subject does in a round.

    Args:
        subject: as the tables name it.
        work: returns its readings; it is passed whether this is a warm-up.
    """

    subject: str
    work: Callable[[bool], Awaitable[list[Reading]]]


def ordered(subject: str, program: Program, order: Order) -> Step:
    """A step that gives a program one order."""

    async def work(_is_warm_up: bool) -> list[Reading]:
        return await program.do(order)

    return Step(subject, work)


@dataclass(slots=True)
class Session:
    """A run of the benchmarks.

    Args:
        url: of a server that nothing else uses.
        sizes: how much work is done.
        results: where readings are recorded.
        ours: this library; two revisions of it, when those are compared.
        has_others: whether peers and floors are measured, too.
        progress: where the progress is written.
    """

    url: str
    sizes: Sizes
    results: Results
    ours: tuple[Subject, ...] = (THIS,)
    has_others: bool = True
    progress: TextIO = field(default_factory=lambda: sys.stderr)
    began: float = field(default_factory=time.monotonic)

    async def interleave(
        self, suite: str, steps: list[Step], *, is_once: bool = False, is_flushed: bool = True
    ) -> None:
        """Do all steps in turn, A B, B A, A B, ..., so that a machine that slows down slows all.

        Args:
            suite: whose readings these are.
            steps: in their order.
            is_once: one round without a warm-up, because the programs make rounds of their own.
            is_flushed: the server is emptied after each step.
        """
        rounds, warm_ups = (1, 0) if is_once else (self.sizes.rounds, self.sizes.warm_ups)
        async with driver(self.url) as admin:
            for number in range(-warm_ups, rounds):
                name = f"round {number + 1} of {rounds}" if number >= 0 else "warm-up"
                for step in steps if number % 2 == 0 else reversed(steps):
                    self.show(f"{suite}: {name}: {step.subject}")
                    found = await step.work(number < 0)
                    for reading in found if number >= 0 else ():
                        self.results.record(suite, step.subject, reading)
                    if is_flushed:
                        await admin.flushall()

    def show(self, text: str) -> None:
        """Show the progress: one line on a terminal, else a line for each change of suite."""
        seconds = time.monotonic() - self.began
        if self.progress.isatty():
            self.progress.write(f"\r\x1b[K[{seconds:4.0f} s] {text}")
        elif "round" not in text and "warm-up" not in text:
            self.progress.write(f"[{seconds:4.0f} s] {text}\n")
        self.progress.flush()

    @contextlib.asynccontextmanager
    async def stores(self, *, has_peer: bool = True) -> AsyncGenerator[dict[str, Program]]:
        """A program for each library that has stores, by the subject's name."""
        subjects = list(self.ours)
        if has_peer and self.has_others:
            if (peer := peer_subject()) is None:
                self.miss(f"{PEER} is not installed: `make .venv/.stamp-interop` installs it")
            else:
                subjects.append(peer)
        async with AsyncExitStack() as stack:
            yield {each.name: await stack.enter_async_context(each.program()) for each in subjects}

    def miss(self, note: str) -> None:
        """Note what cannot be measured."""
        if note not in self.results.notes:
            self.results.notes.append(note)
            self.show(note)
