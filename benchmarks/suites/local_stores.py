"""The stores without a server beside murmur-runtime's, and those on disk beside their floors."""

from __future__ import annotations

import tempfile
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from benchmarks.harness.program import Order, Program, program
from benchmarks.harness.results import Reading
from benchmarks.harness.session import Session, Step
from benchmarks.programs.bench import TASKS

ON_DISK = ("sqlite", "rocksdb")
DISK_FLOORS = "benchmarks.programs.disk_floors"
MEMORY_FACTOR = 10
"""The memory store gets so many times more appends: fewer end too soon to be timed."""
KINDS = ("memory", *ON_DISK)
LEAST_FACTOR = 5
RUN_ID = "the-long-run"


def local_store(kind: str) -> Callable[[Session], Awaitable[None]]:
    """The suite of one store."""

    async def measure(session: Session) -> None:
        with tempfile.TemporaryDirectory(prefix="murmur-bench-") as folder:
            async with session.stores() as stores:
                for steps in _works(session, kind, stores, Path(folder)):
                    await session.interleave(kind, steps, is_flushed=False)
            if kind in ON_DISK and session.has_others:
                async with program("floors", DISK_FLOORS) as floors:
                    await session.interleave(kind, _floors(session, kind, floors), is_flushed=False)

    return measure


def _works(
    session: Session, kind: str, stores: dict[str, Program], folder: Path
) -> list[list[Step]]:
    sizes = session.sizes
    count = sizes.local_appends * (MEMORY_FACTOR if kind == "memory" else 1)
    works: list[tuple[str, dict[str, object]]] = [
        ("create", {"count": sizes.local_appends}),
        ("append", {"figure": "append", "count": count, "tasks": 1, "runs": 1}),
        ("append", {"figure": "append_one_run", "count": count, "tasks": TASKS, "runs": 1}),
        ("append", {"figure": "append_many_runs", "count": count, "tasks": TASKS, "runs": TASKS}),
        ("deliver", {"count": sizes.deliveries}),
    ]
    if kind == "memory":
        works.insert(0, ("build", {"count": count}))
    steps = [
        [_step(name, each, work, kind, arguments) for name, each in stores.items()]
        for work, arguments in works
    ]
    replays = [
        _Replayed(each, kind, folder / name, sizes.replayed).step(name)
        for name, each in stores.items()
    ]
    return [*steps, replays]


def _floors(session: Session, kind: str, floors: Program) -> list[Step]:
    sizes = session.sizes
    least = {"count": sizes.local_appends * LEAST_FACTOR, "deliveries": sizes.deliveries}
    hop = {"count": sizes.local_appends, "deliveries": sizes.deliveries}
    return [
        _step(f"floor, {kind} alone", floors, kind, kind, {"count": sizes.replayed}),
        _step("floor, a thread", floors, "hop", kind, hop),
        _step("floor, least store", floors, "least", kind, least),
    ]


def _step(
    subject: str, program: Program, work: str, kind: str, arguments: Mapping[str, object]
) -> Step:
    """An order with a folder of its own."""

    async def do(_is_warm_up: bool) -> list[Reading]:
        with tempfile.TemporaryDirectory(prefix="murmur-bench-") as folder:
            address = folder if subject.startswith("floor") else _address(kind, Path(folder))
            return await program.do(Order(work, kind, address, dict(arguments)))

    return Step(subject, do)


class _Replayed:
    """A long run in a folder, filled by the first round."""

    def __init__(self, program: Program, kind: str, folder: Path, count: int) -> None:
        self._program = program
        self._kind = kind
        self._folder = folder
        self._count = count

    def step(self, subject: str) -> Step:
        """Read the run; a file also has a size."""
        return Step(subject, self._read)

    async def _read(self, _is_warm_up: bool) -> list[Reading]:
        long, empty = self._folder / "long", self._folder / "empty"
        if self._kind in ON_DISK and not long.exists():
            await self._fill(long, self._count)
            await self._fill(empty, 0)
        read = {"run_id": RUN_ID, "count": self._count}
        found = await self._program.do(Order("replay", self._kind, self._at(long), read))
        if self._kind not in ON_DISK:
            return found
        taken = (_size(long) - _size(empty)) / self._count
        return [*found, Reading("bytes", taken)]

    async def _fill(self, folder: Path, count: int) -> None:
        arguments = {"run_id": RUN_ID, "count": count}
        await self._program.do(Order("fill", self._kind, self._at(folder), arguments))

    def _at(self, folder: Path) -> str:
        return _address(self._kind, folder)


def _address(kind: str, folder: Path) -> str:
    if kind == "memory":
        return ""
    folder.mkdir(parents=True, exist_ok=True)
    return str(folder / "runs")


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
