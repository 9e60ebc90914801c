"""Makes ``frozen/v1.zip`` and ``frozen/v1.json``: a store of version 1, and what it holds.

Later releases must open it. It is made once, by the release that writes that version:
``python -m tests.stores.rocksdb.freeze``.
"""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from murmur_streams.core.model.run import PayloadKind, RunFilter, run_to_fields
from murmur_streams.core.model.states import RunProgress, RunState
from murmur_streams.stores.local.engine.database import (
    Database,
    Due,
    ItemRange,
    QueuePosition,
    Space,
    Stored,
)
from tests.stores.rocksdb.making import NOW, appended, changed, created, new_run, opened

FROZEN = Path(__file__).with_name("frozen")
RUN_IDS = [*map(str, RunState), "again", "gone"]


def fill(database: Database) -> None:
    """Runs in every state, one that was trimmed and removed, payloads, items, a big entry."""
    stored = new_run("none")
    for number, state in enumerate(RunState):
        stored = _stored(state, number)
        group = created(stored)
        group.runs[state].payloads = {kind: f'"{kind} of {state} ü"' for kind in PayloadKind}
        group.items[Space.DEAD, f"writer/{NOW + number:013}/{state}"] = f'{{"letter": {number}}}'
        group.items[Space.WORKERS, f"worker{number}"] = "{}"
        database.commit(group)
        stored, group = appended(stored, 3, data=f'{{"text": "ü{number}"}}')
        database.commit(group)
    _, group = appended(stored, 1, data="x" * 1500)
    database.commit(group)
    for run_id in ("again", "gone"):
        stored = new_run(run_id)
        database.commit(created(stored))
        stored, group = appended(stored, 2, data="y" * 1500)
        group.runs[run_id].keep_from_seq = 2
        database.commit(group)
        database.commit(changed(stored, None))
    database.commit(created(new_run("again", epoch="ffffffff")))


def _stored(state: RunState, number: int) -> Stored:
    run = new_run(
        state, state=state, tenant="mine" if number % 2 else None, created_ms=NOW + number
    )
    dump = replace(run.run, progress=RunProgress(total=number), queued=True, error='"é"\n')
    return Stored(
        dump,
        expire_at_ms=2 * NOW if state.is_terminal else None,
        live_until_ms=None if state.is_terminal else 3 * NOW,
        overdue_ms=NOW if state is RunState.RUNNING else None,
        lease_until_ms=NOW + 5 if state is RunState.RUNNING else None,
        queue=QueuePosition(is_ready=True, score=-5) if state is RunState.PENDING else None,
    )


def dump(database: Database) -> object:
    """Everything that the store says, as JSON has it."""
    runs: dict[str, object] = {}
    for run_id in RUN_IDS:
        found = database.journal(run_id, 0, 100)
        if found is not None:
            stored, entries = found
            beside = {name: getattr(stored, name) for name in ("expire_at_ms", "live_until_ms")}
            payloads = {kind: database.payload(run_id, kind) for kind in PayloadKind}
            journal = [asdict(entry) for entry in entries]
            runs[run_id] = [run_to_fields(stored.run), beside, payloads, journal]
    everything = {
        "runs": runs,
        "listing": [run.run_id for run in database.listing(RunFilter(), NOW, 100, None)],
        "mine": [run.run_id for run in database.listing(RunFilter(tenant="mine"), NOW, 100, None)],
        "due": {what: database.due(what, 9 * NOW, 100) for what in Due},
        "queue": database.queue("writer", is_ready=True, limit=100),
        "items": {space: database.items(ItemRange(space, limit=100)) for space in Space},
        "feed": [
            # The frozen files were written with this name of the position.
            {"place": row.position, "target": row.target, "entry": asdict(row.entry)}
            for row in database.feed(0, 100)
        ],
        "feed_ends": database.feed_ends(),
    }
    return json.loads(json.dumps(everything))


def freeze() -> None:
    """Write the store and what it holds."""
    FROZEN.mkdir(exist_ok=True)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "store"
        database = opened(path)
        fill(database)
        text = json.dumps(dump(database), indent=1, ensure_ascii=False)
        (FROZEN / "v1.json").write_text(text + "\n", encoding="utf-8")
        database.close()
        with ZipFile(FROZEN / "v1.zip", "w", ZIP_DEFLATED) as archive:
            for each in sorted(path.iterdir()):
                # RocksDB's own words about its work name this machine's paths.
                if not each.name.startswith(("LOG", "LOCK")):
                    archive.writestr(ZipInfo(each.name), each.read_bytes(), ZIP_DEFLATED)


if __name__ == "__main__":
    freeze()
