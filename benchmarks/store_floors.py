"""The floors of the disk stores: the same databases, used from one thread without a store.

Each event is one JSON text. The settings are those of the stores: a write-ahead log, and
no fsync for each event.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from rocksdict import Options, Rdict, WriteBatch

Found = dict[str, float]

TOGETHER = 100
PAUSE_SECONDS = 0.01
SCHEMA = (
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=NORMAL",
    "CREATE TABLE events (seq INTEGER PRIMARY KEY, event TEXT NOT NULL)",
)
INSERT = "INSERT INTO events (seq, event) VALUES (?, ?)"


def event_json(number: int) -> str:
    """The fields of an event that both libraries have, as JSON."""
    fields = {
        "type": "agent_started",
        "agent": "bench",
        "task_id": f"task-{number}",
        "timestamp": datetime.now(UTC).isoformat(),
    }
    return json.dumps(fields)


def sqlite_floors(folder: Path, count: int) -> Found:
    """Writes and reads of SQLite per second."""
    rows = [(number, event_json(number)) for number in range(count)]
    with closing(sqlite3.connect(folder / "each.db", isolation_level=None)) as each:
        for statement in SCHEMA:
            each.execute(statement)
        in_turn = _rate(count, lambda: [each.execute(INSERT, row) for row in rows])
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

        return {
            "sqlite write": in_turn,
            f"sqlite write by {TOGETHER}": _rate(count, write),
            "sqlite get": _rate(count, get),
            "sqlite read all": _rate(count, read),
        }


def rocksdb_floors(folder: Path, count: int) -> Found:
    """Writes and reads of RocksDB per second."""
    rows = [(b"%020d" % number, event_json(number).encode()) for number in range(count)]
    each = Rdict(str(folder / "each"), Options(raw_mode=True))

    def put() -> None:
        for key, value in rows:
            each.put(key, value)

    in_turn = _rate(count, put)
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

    found = {
        "rocksdb write": in_turn,
        f"rocksdb write by {TOGETHER}": _rate(count, write),
        "rocksdb get": _rate(count, get),
        "rocksdb read all": _rate(count, read),
    }
    groups.close()
    return found


async def hop_floors(count: int, deliveries: int) -> Found:
    """From a task to another thread and back: the lower bound of a call that waits for a thread."""
    loop, delays = asyncio.get_running_loop(), list[float]()
    with ThreadPoolExecutor(1) as thread:
        began = time.perf_counter()
        for _ in range(count):
            await loop.run_in_executor(thread, _nothing)
        per_second = count / (time.perf_counter() - began)
        for _ in range(deliveries):
            await asyncio.sleep(PAUSE_SECONDS)
            left = time.perf_counter()
            await loop.run_in_executor(thread, _nothing)
            delays.append((time.perf_counter() - left) * 1000)
    p99 = sorted(delays)[int(len(delays) * 0.99)]
    return {"hop": per_second, "hop p50": statistics.median(delays), "hop p99": p99}


def _nothing() -> None:
    pass


def _rate(count: int, work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return count / (time.perf_counter() - began)
