"""Compares every store with that of murmur-runtime, and the disk stores with their floors."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import shutil
import sys
import tempfile
from asyncio.subprocess import PIPE, Process
from collections import defaultdict
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import floors
from benchmarks.store_floors import hop_floors, rocksdb_floors, sqlite_floors
from benchmarks.store_least import least_floors
from benchmarks.store_program import Found, Order

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = Path(sys.prefix) / "interop"
"""`make` installs murmur-runtime and its dependencies here."""
PEER = "murmur-runtime 0.1.0"
STORES = ("memory", "sqlite", "rocksdb", "redis")
ON_DISK = ("sqlite", "rocksdb")
RUN_ID = "the-long-run"
ORDER_SECONDS = 300.0
"""More than any order takes: a program that hangs ends the benchmark."""
DATABASE = 3
"""The server's database that is emptied after each order; the next two hold the long runs."""
LEAST_FACTOR = 5
MEMORY_FACTOR = 10
"""The memory store gets so many times more appends: fewer end too soon to be timed."""


@dataclass(frozen=True, slots=True)
class StoreSizes:
    """How much work the benchmark does."""

    rounds: int
    appends: int
    deliveries: int
    replayed: int
    warm_ups: int = 1
    """Rounds before those that count."""


WARM_UP = StoreSizes(1, 200, 10, 0)


@dataclass(slots=True)
class Side:
    """One of the two libraries: its program and its figures."""

    name: str
    process: Process
    database: int
    folder: Path
    found: defaultdict[tuple[str, str], list[float]] = field(
        default_factory=lambda: defaultdict[tuple[str, str], list[float]](list)
    )

    async def do(self, order: Order) -> Found:
        """Send an order, and return its figures."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{json.dumps(dataclasses.asdict(order))}\n".encode())
        async with asyncio.timeout(ORDER_SECONDS):
            line = await self.process.stdout.readline()
        assert line, f"{self.name} has ended at {order}"
        return json.loads(line)

    def record(self, store: str, found: Found) -> None:
        """Add the figures of a round."""
        for name, value in found.items():
            self.found[store, name].append(value)


@dataclass(frozen=True, slots=True)
class Stores:
    """The figures of both libraries and of the floors, round by round."""

    sizes: StoreSizes
    ours: Side
    theirs: Side
    floors: dict[str, list[float]]


async def measure_stores(url: str, sizes: StoreSizes) -> Stores:
    """Give each order to both libraries, one after the other, round by round."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with (
            _side("murmur-streams", "murmur_streams.runs", 1, folder) as ours,
            _side(PEER, "murmur.runs", 2, folder) as theirs,
            floors.driver(_database(url, 0)) as admin,
        ):
            sides = (ours, theirs)
            for side in sides:
                await _fill(side, url, sizes.replayed)
            found: defaultdict[str, list[float]] = defaultdict(list)
            for number in range(-sizes.warm_ups, sizes.rounds):
                counts = sizes if number >= 0 else WARM_UP
                for store in STORES:
                    orders = _orders(store, counts, sizes.replayed)
                    await _round(sides, orders, url, admin, is_counted=number >= 0)
                values = await _floors(counts, sizes.replayed)
                for what, value in values.items() if number >= 0 else ():
                    found[what].append(value)
    _check(ours, sizes)
    return Stores(sizes, ours, theirs, found)


def _check(ours: Side, sizes: StoreSizes) -> None:
    # The other library may lose events; the table shows how many.
    for store in STORES:
        assert set(ours.found[store, "delivered"]) == {sizes.deliveries + 1}, store
        assert set(ours.found[store, "replayed"]) == {sizes.replayed}, store


def _orders(store: str, sizes: StoreSizes, replayed: int) -> list[Order]:
    appends = sizes.appends * (MEMORY_FACTOR if store == "memory" else 1)
    works = [
        ("build", sizes.appends * MEMORY_FACTOR),
        ("create", sizes.appends),
        ("append", appends),
        ("append_one_run", appends),
        ("append_many_runs", appends),
        ("delivery", sizes.deliveries),
    ]
    orders = [Order(work, store, "", count) for work, count in works if _is_asked(work, store)]
    return [*orders, Order("replay", store, "", replayed, RUN_ID)]


def _is_asked(work: str, store: str) -> bool:
    # Building an event needs no store; it is measured with the first one.
    return work != "build" or store == STORES[0]


async def _round(
    sides: tuple[Side, ...], orders: list[Order], url: str, admin: Any, *, is_counted: bool
) -> None:
    for order in orders:
        for side in sides:
            is_long = order.work == "replay"
            address = _address(side, order.store, url, "long" if is_long else "short")
            found = await side.do(dataclasses.replace(order, address=address))
            if is_counted:
                side.record(order.store, found)
            await admin.flushdb()
            shutil.rmtree(side.folder / "short", ignore_errors=True)


async def _fill(side: Side, url: str, count: int) -> None:
    """Leave the long run in each store that outlives its process, and measure its size."""
    for store in STORES[1:]:
        address = _address(side, store, url, "long")
        await side.do(Order("fill", store, address, count, RUN_ID))
        if store in ON_DISK:
            empty = _address(side, store, url, "empty")
            await side.do(Order("fill", store, empty, 0, RUN_ID))
            taken = _size(side.folder / "long" / store) - _size(side.folder / "empty" / store)
            side.record(store, {"bytes": taken / count})


def _address(side: Side, store: str, url: str, kind: str) -> str:
    if store == "redis":
        return _database(url, side.database if kind == "long" else 0)
    if store == "memory":
        return ""
    folder = side.folder / kind / store
    folder.mkdir(parents=True, exist_ok=True)
    return str(folder / "runs")


def _database(url: str, number: int) -> str:
    return url.replace("db=0", f"db={DATABASE + number}")


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


async def _floors(sizes: StoreSizes, replayed: int) -> Found:
    with tempfile.TemporaryDirectory() as name:
        return {
            **sqlite_floors(Path(name), replayed),
            **rocksdb_floors(Path(name), replayed),
            **await hop_floors(sizes.appends, sizes.deliveries),
            **await least_floors(Path(name), sizes.appends * LEAST_FACTOR, sizes.deliveries),
        }


@asynccontextmanager
async def _side(name: str, module: str, database: int, folder: Path) -> AsyncGenerator[Side]:
    """The program of one library, killed at the end of the block."""
    environment = {each: text for each, text in os.environ.items() if each != "PYTHONPATH"}
    if module == "murmur.runs":
        if not (PACKAGES / "murmur").is_dir():
            raise FileNotFoundError(
                f"no murmur-runtime in {PACKAGES}: make .venv/.stamp-interop installs it"
            )
        environment["PYTHONPATH"] = str(PACKAGES)
    command = [sys.executable, "-m", "benchmarks.store_program", module]
    process = await asyncio.create_subprocess_exec(
        *command, cwd=ROOT, env=environment, stdin=PIPE, stdout=PIPE
    )
    try:
        yield Side(name, process, database, folder / str(database))
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()
