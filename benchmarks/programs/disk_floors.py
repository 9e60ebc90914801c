"""The floors of the disk stores: the same databases, used from one thread without a store.

Each event is one JSON text. The settings are those of the stores: a write-ahead log, and
no fsync for each event. ``python -m benchmarks.programs.disk_floors`` takes orders; the address is
an empty folder.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from rocksdict import Options, Rdict, WriteBatch

from benchmarks.harness.meter import Meter
from benchmarks.harness.program import Order, serve
from benchmarks.harness.results import Reading
from benchmarks.programs.least_store import INSERT, SCHEMA, least
from benchmarks.programs.reading import PAUSE_SECONDS, latencies

TOGETHER = 100


def event_json(number: int) -> str:
    """The fields of an event that both libraries have, as JSON."""
    fields = {
        "type": "agent_started",
        "agent": "bench",
        "task_id": f"task-{number}",
        "timestamp": datetime.now(UTC).isoformat(),
    }
    return json.dumps(fields)


def sqlite_floors(folder: Path, meter: Meter, count: int) -> list[Reading]:
    """Writes and reads of SQLite."""
    rows = [(number, event_json(number)) for number in range(count)]
    with closing(sqlite3.connect(folder / "each.db", isolation_level=None)) as each:
        for statement in SCHEMA:
            each.execute(statement)
        began = meter.mark()
        for row in rows:
            each.execute(INSERT, row)
        in_turn = meter.since(began, "write", count)
        assert each.execute("SELECT count(*) FROM events").fetchone() == (count,)
    with closing(sqlite3.connect(folder / "groups.db", isolation_level=None)) as groups:
        for statement in SCHEMA:
            groups.execute(statement)

        def write() -> None:
            for first in range(0, count, TOGETHER):
                groups.execute("BEGIN IMMEDIATE")
                for row in rows[first : first + TOGETHER]:
                    groups.execute(INSERT, row)
                groups.execute("COMMIT")

        def get() -> None:
            for number in range(count):
                query = "SELECT event FROM events WHERE seq = ?"
                assert groups.execute(query, (number,)).fetchone() is not None

        def read() -> None:
            assert len(groups.execute("SELECT seq, event FROM events").fetchall()) == count

        return [in_turn, *_measured(meter, count, write, get, read)]


def rocksdb_floors(folder: Path, meter: Meter, count: int) -> list[Reading]:
    """Writes and reads of RocksDB."""
    rows = [(b"%020d" % number, event_json(number).encode()) for number in range(count)]
    each = Rdict(str(folder / "each"), Options(raw_mode=True))
    began = meter.mark()
    for key, value in rows:
        each.put(key, value)
    in_turn = meter.since(began, "write", count)
    each.close()
    groups = Rdict(str(folder / "groups"), Options(raw_mode=True))

    def write() -> None:
        for first in range(0, count, TOGETHER):
            batch = WriteBatch(raw_mode=True)
            for key, value in rows[first : first + TOGETHER]:
                batch.put(key, value)
            groups.write(batch)

    def get() -> None:
        for key, _ in rows:
            assert groups.get(key) is not None

    def read() -> None:
        assert sum(1 for _ in groups.items()) == count

    found = [in_turn, *_measured(meter, count, write, get, read)]
    groups.close()
    return found


async def hop(meter: Meter, count: int, deliveries: int) -> list[Reading]:
    """From a task to another thread and back: the lower bound of a call that waits for a thread."""
    loop, delays = asyncio.get_running_loop(), list[float]()
    with ThreadPoolExecutor(1) as thread:

        async def work() -> None:
            for _ in range(count):
                await loop.run_in_executor(thread, _nothing)

        found = await meter.rate("hop", count, work)
        for _ in range(deliveries):
            await asyncio.sleep(PAUSE_SECONDS)
            left = time.perf_counter()
            await loop.run_in_executor(thread, _nothing)
            delays.append((time.perf_counter() - left) * 1000)
    return [found, *latencies("hop", delays)[:2]]


def _nothing() -> None:
    pass


def _measured(meter: Meter, count: int, *works: Callable[[], None]) -> list[Reading]:
    found: list[Reading] = []
    for name, work in zip(("write_together", "read_one", "read_all"), works, strict=True):
        began = meter.mark()
        work()
        found.append(meter.since(began, name, count))
    return found


async def _do(order: Order) -> list[Reading]:
    meter, folder, arguments = Meter(""), Path(order.address), order.arguments
    match order.work:
        case "sqlite":
            return sqlite_floors(folder, meter, **arguments)
        case "rocksdb":
            return rocksdb_floors(folder, meter, **arguments)
        case "hop":
            return await hop(meter, **arguments)
        case _:
            return await least(folder, meter, order.store, **arguments)


if __name__ == "__main__":
    serve(_do)
