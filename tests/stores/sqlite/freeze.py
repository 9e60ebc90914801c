"""Makes the frozen file of a schema version, once: ``python -m tests.stores.sqlite.freeze``.

A file that a release has written must open for ever after. A new schema version gets a new file
beside the old ones; none is ever made again, for a test that opens what it has just written proves
nothing.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from murmur_streams.core.model.entries import JournalEntry
from murmur_streams.core.model.run import PayloadKind, RunFilter, run_to_fields
from murmur_streams.core.model.states import RunProgress, RunState
from murmur_streams.stores.local.engine.database import (
    Database,
    Due,
    ItemRange,
    QueuePosition,
    RunChange,
    Space,
)
from murmur_streams.stores.local.sqlite.store import open_sqlite
from murmur_streams.stores.local.sqlite.tables import SCHEMA_VERSION
from tests.stores.local.databases import a_run, an_entry, created, removed, stored_run, write

FROZEN = Path(__file__).parent / "frozen"
MS = 1_700_000_000_000
FEED_MAX_ENTRIES = 10


def _changes() -> list[RunChange]:
    changes: list[RunChange] = []
    for number, state in enumerate(RunState):
        run = a_run(
            f"run-{state}",
            target="researcher",
            epoch=f"epoch{number}",
            state=state,
            created_ms=MS + number,
            started_ms=MS + 10,
            tenant="acme" if number % 2 else None,
            progress=RunProgress(total=4, completed=number),
            queued=True,
            metadata_json='{"é": "\\u0000"}',
        )
        entries = [
            an_entry(run, 1, MS + number, type="run.created", target=run.target),
            an_entry(run, 2, MS + 20, data='"a\\u0000é😀"'),
            an_entry(run, 3, MS + 20, data=f'"{"x" * 1500}"'),
        ]
        changes.append(
            created(
                run,
                *entries,
                payloads={PayloadKind.INPUT: '{"n": 1}', PayloadKind.RESULT: f'"{state}"'},
                expire_at_ms=MS + 999 if state.is_terminal else None,
                live_until_ms=None if state.is_terminal else MS + 500,
                overdue_ms=None if state.is_terminal else MS + 400,
                lease_until_ms=MS + 60 if state is RunState.RUNNING else None,
                queue=QueuePosition(is_ready=True, score=-5) if state is RunState.PENDING else None,
            )
        )
    return changes


def _make(path: Path) -> None:
    database = open_sqlite(path, sync=True, feed_max_entries=FEED_MAX_ENTRIES)
    gone = a_run("gone", epoch="before", created_ms=MS)
    write(database, created(gone, an_entry(gone, 1, MS, data="x" * 1500)))
    items = {
        (Space.PAUSED, "researcher"): "1",
        (Space.DEAD, f"researcher/{MS}/run-failed"): '{"error": "\\u0000é"}',
        (Space.DEAD_RUNS, "run-failed"): f"researcher/{MS}/run-failed",
        (Space.WORKERS, "worker\x00é"): "{}",
    }
    write(database, *_changes(), items=items)
    write(database, removed(stored_run(database, "gone")))
    database.close()


def dump(database: Database) -> dict[str, Any]:
    """Everything that can be read from a store, as JSON values."""
    runs = database.listing(RunFilter(), 0, 500, None)
    return {
        "runs": [_dump_run(database, run.run_id) for run in runs],
        "feed": [
            [*row.position, row.target, _dump_entry(row.entry)] for row in database.feed(0, 1_000)
        ],
        "feed_ends": [list(position) for position in database.feed_ends()],
        "items": {
            str(space): dict(database.items(ItemRange(space, limit=1_000))) for space in Space
        },
        "due": {str(what): database.due(what, MS + 10_000, 1_000) for what in Due},
        "queue": [list(row) for row in database.queue("researcher", is_ready=True, limit=9)],
        "by_state": {
            str(state): [run.run_id for run in database.listing(RunFilter(state), 0, 9, None)]
            for state in RunState
        },
        "by_tenant": [run.run_id for run in database.listing(RunFilter(tenant="acme"), 0, 9, None)],
    }


def _dump_run(database: Database, run_id: str) -> dict[str, Any]:
    stored = stored_run(database, run_id)
    moments = asdict(stored)
    del moments["run"]
    return {
        "run_id": run_id,
        "fields": run_to_fields(stored.run),
        **moments,
        "journal": [_dump_entry(entry) for entry in database.last_entries(run_id, 1_000)],
        "payloads": {str(kind): database.payload(run_id, kind) for kind in PayloadKind},
    }


def _dump_entry(entry: JournalEntry) -> list[Any]:
    return [entry.run_id, entry.epoch, entry.ms, entry.seq, dict(entry.fields)]


def main() -> None:
    path = FROZEN / f"v{SCHEMA_VERSION}.db"
    if path.exists():
        raise SystemExit(f"{path} exists: a frozen file is never made again")
    FROZEN.mkdir(exist_ok=True)
    _make(path)
    database = open_sqlite(path, sync=True, feed_max_entries=FEED_MAX_ENTRIES)
    golden = json.dumps(dump(database), ensure_ascii=False, indent=1, sort_keys=True)
    database.close()
    path.with_suffix(".json").write_text(golden + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
