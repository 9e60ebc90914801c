"""The least that a store on disk can do: no rules, no versions, no feed, no cursors.

A hundred tasks hand in events. A thread writes all waiting events as one group, commits, and
notifies each task and one subscriber. Its time is the lower bound of any store that acknowledges
committed events and does not block the event loop meanwhile.
"""

from __future__ import annotations

import asyncio
import json
import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path

from rocksdict import Options, Rdict, WriteBatch

from benchmarks.harness.meter import Meter
from benchmarks.harness.results import Reading
from benchmarks.programs.bench import TASKS
from benchmarks.programs.reading import PAUSE_SECONDS, latencies

SCHEMA = (
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=NORMAL",
    "CREATE TABLE events (seq INTEGER PRIMARY KEY, event TEXT NOT NULL)",
)
INSERT = "INSERT INTO events (seq, event) VALUES (?, ?)"
Fields = dict[str, str]
Write = Callable[[list[tuple[int, str]]], object]


class LeastStore:
    """Group commit, and nothing else.

    Args:
        write: writes rows and commits them; called in the thread.
    """

    def __init__(self, write: Write) -> None:
        self._write = write
        self._loop = asyncio.get_running_loop()
        self._waiting: list[tuple[Fields, asyncio.Future[None]]] = []
        self._is_busy = False
        self._count = 0
        self._groups: queue.SimpleQueue[list[tuple[Fields, asyncio.Future[None]]] | None] = (
            queue.SimpleQueue()
        )
        self.written = self._loop.create_future()
        """The subscriber waits for this future; each group has its own."""
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    async def push(self, fields: Fields) -> None:
        """Return when the event is committed."""
        committed = self._loop.create_future()
        self._waiting.append((fields, committed))
        if not self._is_busy:
            self._is_busy = True
            self._loop.call_soon(self._start)
        await committed

    def close(self) -> None:
        """End the thread."""
        self._groups.put(None)
        self._thread.join()

    def _start(self) -> None:
        self._groups.put(self._waiting)
        self._waiting = []

    def _work(self) -> None:
        while (group := self._groups.get()) is not None:
            texts = [json.dumps(fields) for fields, _ in group]
            self._write(list(enumerate(texts, start=self._count)))
            self._count += len(group)
            self._loop.call_soon_threadsafe(self._done, group)

    def _done(self, group: list[tuple[Fields, asyncio.Future[None]]]) -> None:
        self.written.set_result(None)
        self.written = self._loop.create_future()
        for _, committed in group:
            committed.set_result(None)
        if self._waiting:
            self._loop.call_soon(self._start)
        else:
            self._is_busy = False


async def least(
    folder: Path, meter: Meter, kind: str, count: int, deliveries: int
) -> list[Reading]:
    """Its rate and its delivery over SQLite or over RocksDB."""
    write, close = _sqlite(folder) if kind == "sqlite" else _rocksdb(folder)
    store = LeastStore(write)
    fields = {"type": "agent_started", "agent": "bench", "task_id": "t", "ts": "2026-01-01T00:00"}

    async def push() -> None:
        for _ in range(count // TASKS):
            await store.push(fields)

    found = await meter.rate(
        "append_one_run", count, lambda: asyncio.gather(*(push() for _ in range(TASKS)))
    )
    delays = await _delivery(store, deliveries)
    store.close()
    close()
    return [found, *latencies("delivery", delays)]


def _sqlite(folder: Path) -> tuple[Write, Callable[[], object]]:
    connection = sqlite3.connect(folder / "least.db", isolation_level=None, check_same_thread=False)
    for statement in SCHEMA:
        connection.execute(statement)

    def insert(rows: list[tuple[int, str]]) -> None:
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(INSERT, rows)
        connection.execute("COMMIT")

    return insert, connection.close


def _rocksdb(folder: Path) -> tuple[Write, Callable[[], object]]:
    database = Rdict(str(folder / "least"), Options(raw_mode=True))

    def put(rows: list[tuple[int, str]]) -> None:
        batch = WriteBatch(raw_mode=True)
        for number, text in rows:
            batch.put(b"%020d" % number, text.encode())
        database.write(batch)

    return put, database.close


async def _delivery(store: LeastStore, deliveries: int) -> list[float]:
    delays: list[float] = []
    left = 0.0

    async def subscribe() -> None:
        while True:
            await store.written
            delays.append((time.perf_counter() - left) * 1000)

    subscriber = asyncio.create_task(subscribe())
    for number in range(deliveries):
        await asyncio.sleep(PAUSE_SECONDS)
        left = time.perf_counter()
        await store.push({"type": "agent_started", "agent": "bench", "task_id": str(number)})
    subscriber.cancel()
    return delays
