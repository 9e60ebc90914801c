"""Runs, entries and changes for tests of a database."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from murmur_streams.core.model.entries import JournalEntry
from murmur_streams.core.model.run import Run
from murmur_streams.core.model.states import RunState
from murmur_streams.stores.local.engine.database import Changes, Database, RunChange, Stored
from murmur_streams.stores.local.rocksdb.opening import open_rocksdb

EPOCH = "0a1b2c3d"
NOW = 1_700_000_000_000


def opened(path: Path, *, sync: bool = False, feed_max_entries: int = 1000) -> Database:
    return open_rocksdb(path, sync=sync, feed_max_entries=feed_max_entries)


def entry(run_id: str, seq: int, *, ms: int = NOW, epoch: str = EPOCH, **fields: str):
    return JournalEntry(run_id, epoch, ms, seq, {"type": "agent_started", **fields})


def new_run(run_id: str, **fields: object) -> Stored:
    run = Run(run_id, "writer", EPOCH, RunState.PENDING, 1, NOW, NOW)
    return Stored(replace(run, **fields))  # type: ignore[arg-type]


def created(stored: Stored) -> Changes:
    """The group that creates a run, with its first entry."""
    run = stored.run
    first = entry(run.run_id, 1, ms=run.last_ms, epoch=run.epoch)
    change = RunChange(None, stored, is_plain=False, entries=[first])
    return Changes({run.run_id: change}, [(run.target, first)])


def appended(stored: Stored, count: int = 1, **fields: str) -> tuple[Stored, Changes]:
    """The run after so many more entries, and the group that writes them."""
    run = stored.run
    more = [
        entry(run.run_id, run.version + 1 + each, ms=NOW, epoch=run.epoch, **fields)
        for each in range(count)
    ]
    after = replace(stored, run=replace(run, version=run.version + count, last_ms=NOW))
    change = RunChange(stored, after, entries=more)
    return after, Changes({run.run_id: change}, [(run.target, each) for each in more])


def changed(before: Stored, after: Stored | None) -> Changes:
    """The group that changes or removes a run, and writes no entry."""
    run = before.run
    return Changes({run.run_id: RunChange(before, after, is_plain=False)})
