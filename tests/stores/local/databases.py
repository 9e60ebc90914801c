"""The databases that keep stores on disk, and what their tests write to them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from murmur_streams.core.model.entries import JournalEntry
from murmur_streams.core.model.feed import Position
from murmur_streams.core.model.run import Run
from murmur_streams.stores.local.engine.database import Changes, Database, RunChange, Stored
from murmur_streams.stores.local.memory.store import MemoryDatabase
from murmur_streams.stores.local.rocksdb.opening import open_rocksdb
from murmur_streams.stores.local.sqlite.store import open_sqlite

Opener = Callable[[Path, int], Database]
"""Opens the store at a path in a folder; the number is feed_max_entries."""
Open = Callable[..., Database]
"""Opens a test's store, again if need be; the number is an option."""


def _sqlite(folder: Path, feed_max_entries: int) -> Database:
    return open_sqlite(folder / "runs.db", sync=False, feed_max_entries=feed_max_entries)


def _rocksdb(folder: Path, feed_max_entries: int) -> Database:
    return open_rocksdb(folder / "runs", sync=False, feed_max_entries=feed_max_entries)


def _memory(folder: Path, feed_max_entries: int) -> Database:
    """The rows of a folder's test stay: only the length of the feed is another one."""
    again = MemoryDatabase(feed_max_entries)
    database = _IN_MEMORY.setdefault(folder, again)
    database._feed = deque(database._feed, feed_max_entries)
    return database


_IN_MEMORY: dict[Path, MemoryDatabase] = {}

OPENERS: dict[str, Opener] = {
    "memory": _memory,
    "rocksdb": _rocksdb,
    "sqlite": _sqlite,
}


@contextmanager
def reopening(opener: Opener, folder: Path) -> Generator[Open]:
    """Closes the database of a test if it is open, and opens it again."""
    opened: list[Database] = []

    def again(feed_max_entries: int = 10_000) -> Database:
        while opened:
            opened.pop().close()
        opened.append(opener(folder, feed_max_entries))
        return opened[-1]

    yield again
    while opened:
        opened.pop().close()


def a_run(run_id: str = "r1", **fields: Any) -> Run:
    """A run of the target ``agent``."""
    reported: dict[str, Any] = {"target": "agent", "epoch": "e1", "created_ms": 1_000, **fields}
    return Run(run_id=run_id, **reported)


def an_entry(run: Run, seq: int, ms: int | None = None, **fields: str) -> JournalEntry:
    """An entry of a run's journal; its ms is its seq unless given."""
    reported = {"type": "agent_started", **fields}
    return JournalEntry(run.run_id, run.epoch, seq if ms is None else ms, seq, reported)


def created(run: Run, *entries: JournalEntry, payloads: Any = None, **moments: Any) -> RunChange:
    """A new run, with moments of Stored and payloads; with one entry unless given."""
    written = list(entries) or [an_entry(run, 1)]
    after = Stored(replace(run, version=written[-1].seq, last_ms=written[-1].ms), **moments)
    return RunChange(None, after, is_plain=False, entries=written, payloads=payloads or {})


def appended(before: Stored, *entries: JournalEntry, **change: Any) -> RunChange:
    """More entries, and nothing else changes."""
    run = replace(before.run, version=entries[-1].seq, last_ms=entries[-1].ms)
    return RunChange(before, replace(before, run=run), entries=list(entries), **change)


def removed(before: Stored) -> RunChange:
    """The run goes, with all that it has."""
    return RunChange(before, None, is_plain=False)


def group(*changes: RunChange, items: Any = None) -> Changes:
    """A group of changes whose entries all go to the feed."""
    whole = Changes(items=items or {})
    for change in changes:
        stored = change.after or change.before
        assert stored is not None
        whole.runs[stored.run.run_id] = change
        whole.feed += [(stored.run.target, entry) for entry in change.entries]
    return whole


def write(database: Database, *changes: RunChange, items: Any = None) -> Position:
    """Write one group."""
    database.begin()
    return database.commit(group(*changes, items=items))


def stored_run(database: Database, run_id: str = "r1") -> Stored:
    """The stored run, which is there."""
    stored = database.stored(run_id)
    assert stored is not None
    return stored


def texts(database: Database, run_id: str = "r1") -> list[str | None]:
    """The ``data`` of all entries of a run's journal."""
    found = database.journal(run_id, 0, 1_000_000)
    assert found is not None
    return [entry.fields.get("data") for entry in found[1]]


def seqs(database: Database, run_id: str = "r1") -> list[int]:
    """The seqs of all entries of a run's journal."""
    found = database.journal(run_id, 0, 1_000_000)
    assert found is not None
    return [entry.seq for entry in found[1]]
