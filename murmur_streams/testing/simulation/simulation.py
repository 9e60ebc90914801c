"""Runs a scenario from a seed: the same seed gives the same order, time, numbers and faults."""

from __future__ import annotations

import asyncio
import gc
import random
import secrets
import time
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

from murmur_streams import threads
from murmur_streams.fleet import stores
from murmur_streams.stores.local.engine.store import LocalOptions
from murmur_streams.testing.simulation.handles import PROCESS, Process, SimulatedTask
from murmur_streams.testing.simulation.loop import SimulatedLoop
from murmur_streams.testing.simulation.store import Faults, SharedRows, SimulatedRunStore

BEGAN_MS = 1_800_000_000_000
"""Unix time at the beginning of each simulation."""
LOOK_SECONDS = 0.25
"""How often a simulated store looks for what others wrote."""
MOST_CANCELS, CANCEL_SECONDS = 20, 60.0
"""At the end, each task is cancelled so often at most, and has so long to end each time."""


@dataclass(eq=False)
class Simulation:
    """A simulated world: programs on an event loop, and the rows that their stores share."""

    seed: int
    loop: SimulatedLoop
    on_note: Callable[[str], object] | None = None
    """Called with a line for each thing that happens."""
    is_one_process: bool = False
    """Whether all fleets share one store, as with RocksDB; else each has one, as with SQLite."""
    clock_error_ms: int = 0
    """What the machine's clock is wrong by."""
    findings: list[str] = field(default_factory=list[str])
    """What was seen to go wrong."""
    processes: dict[Process, list[asyncio.Task[Any]]] = field(
        default_factory=dict[Process, list[asyncio.Task[Any]]]
    )
    stores: list[SimulatedRunStore] = field(default_factory=list[SimulatedRunStore])

    def __post_init__(self) -> None:
        self.choice = random.Random(f"scenario {self.seed}")  # noqa: S311  # choices of a test
        """For the choices of the scenario."""
        self.faults = Faults(random.Random(f"faults {self.seed}"))  # noqa: S311  # likewise
        self.rows = SharedRows(self.faults, self.clock_ms, self.loop.time)
        if self.on_note is not None:
            self.rows.note = self.faults.note = self.note
        self.history = self.rows.history

    def clock_ms(self) -> int:
        """Milliseconds of Unix time, by the machine's clock."""
        return BEGAN_MS + int(self.loop.time() * 1000) + self.clock_error_ms

    def open_store(self, **options: Any) -> SimulatedRunStore:
        """Open a store on the shared rows; options of other kinds of stores have no effect."""
        if self.is_one_process and self.stores:
            return self.stores[0]
        look_seconds = None if self.is_one_process else LOOK_SECONDS
        known = {name: options[name] for name in LocalOptions.__annotations__ if name in options}
        store = SimulatedRunStore(self.rows, look_seconds, **cast("LocalOptions", known))
        self.stores.append(store)
        return store

    def start(self, name: str, work: Coroutine[Any, Any, Any]) -> Process:
        """Start a program in a process of its own."""
        process = Process(name)
        before = PROCESS.set(process)
        try:
            task = asyncio.create_task(work, name=name)
        finally:
            PROCESS.reset(before)
        self.processes[process] = [task]
        return process

    async def wait_for(self, process: Process) -> None:
        """Wait until the program of a process has ended; raises what it raised."""
        for task in self.processes[process]:
            await task

    def kill(self, process: Process) -> None:
        """End a process as ``kill -9`` does: nothing of it runs any more."""
        process.is_dead = True
        self.note(f"{process.name} is killed")

    def note(self, text: str) -> None:
        """Describe something that happened, for a reader of the trace."""
        if self.on_note is not None:
            process = PROCESS.get()
            name = "-" if process is None else process.name
            self.on_note(f"{self.loop.time():9.3f}  {name:10}  {text}")

    def freeze(self, process: Process, seconds: float) -> None:
        """Let nothing of a process run for some time."""
        process.frozen_until = self.loop.time() + seconds
        self.note(f"{process.name} is frozen for {seconds:.3f} s")

    def living_tasks(self) -> list[SimulatedTask[Any]]:
        """All tasks that have not ended, without the running one and those of dead processes."""
        here = asyncio.current_task(self.loop)
        found = [task for task in _tasks(self.loop) if task is not here]
        return [task for task in found if task.process is None or not task.process.is_dead]


def _tasks(loop: SimulatedLoop) -> list[SimulatedTask[Any]]:
    """All tasks that have not ended, the oldest first: the order of a set depends on its past."""
    found = [task for task in asyncio.all_tasks(loop) if isinstance(task, SimulatedTask)]
    return sorted(found, key=lambda task: task.serial)


Scenario = Callable[[Simulation], Awaitable[None]]


def simulate(
    scenario: Scenario,
    seed: int,
    *,
    is_shuffled: bool = True,
    on_note: Callable[[str], object] | None = None,
) -> Simulation:
    """Run a scenario.

    Args:
        scenario: a coroutine function; it ends when all is done.
        seed: chooses everything that is left to chance.
        is_shuffled: whether ready tasks run in an order that the seed chooses.
        on_note: called with a line for each thing that happens, for people.

    Raises:
        StuckError: nothing is left to run, and the scenario has not ended.
    """
    loop = SimulatedLoop(seed, is_shuffled)
    simulation = Simulation(seed, loop, on_note)
    with controlled(simulation):
        try:
            loop.run_until_complete(scenario(simulation))
        finally:
            _end_all(simulation)
            loop.close()
    return simulation


@contextmanager
def controlled(simulation: Simulation) -> Generator[None]:
    """Take time, chance and threads of this process from the simulation, while the block runs."""
    loop = simulation.loop
    numbers = random.Random(f"numbers {simulation.seed}")  # noqa: S311  # for replays
    state = random.getstate()

    def token_hex(nbytes: int | None = None) -> str:
        return numbers.randbytes(32 if nbytes is None else nbytes).hex()

    async def open_work_store(url: str, options: dict[str, Any]) -> SimulatedRunStore:
        del url
        return simulation.open_store(**options)

    def start_thread(name: str, run: Callable[[], None]) -> None:
        del name
        loop.call_soon(run)

    replaced: tuple[tuple[Any, str, object], ...] = (
        (secrets, "token_hex", token_hex),
        (uuid, "uuid4", lambda: uuid.UUID(bytes=numbers.randbytes(16), version=4)),
        (time, "time", lambda: simulation.clock_ms() / 1000),
        (time, "time_ns", lambda: simulation.clock_ms() * 1_000_000),
        (time, "monotonic", loop.time),
        (stores, "open_work_store", open_work_store),
        (threads, "start_thread", start_thread),
    )
    before = [(home, name, getattr(home, name)) for home, name, _ in replaced]
    # The moment at which a cycle is collected depends on what ran before in this process.
    was_collecting = gc.isenabled()
    gc.disable()
    random.seed(simulation.seed)
    try:
        for home, name, value in replaced:
            setattr(home, name, value)
        yield
    finally:
        for home, name, value in before:
            setattr(home, name, value)
        random.setstate(state)
        if was_collecting:
            gc.enable()


def _end_all(simulation: Simulation) -> None:
    """End every task, also those of dead processes, so that none is collected while it waits."""
    loop = simulation.loop
    for process in simulation.processes:
        process.is_dead, process.frozen_until = False, 0.0
    simulation.faults.end()
    loop.revive()
    for _ in range(MOST_CANCELS):
        left = _tasks(loop)
        if not left:
            return
        for task in left:
            task.cancel()
        loop.run_for(CANCEL_SECONDS)
