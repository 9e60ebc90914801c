"""Files that earlier releases wrote are read and written by this one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from murmur_streams.stores.local.sqlite.store import open_sqlite
from tests.stores.local.databases import an_entry, appended, seqs, stored_run, write
from tests.stores.sqlite.freeze import FEED_MAX_ENTRIES, FROZEN, dump

FILES = sorted(FROZEN.glob("v*.db"))


def test_there_is_a_frozen_file() -> None:
    """At least one file of an earlier release is there to be tested."""
    assert FILES


@pytest.mark.parametrize("frozen", FILES, ids=lambda path: path.stem)
def test_a_frozen_file_reads_as_it_did_and_takes_writes(frozen: Path, tmp_path: Path) -> None:
    """The content equals its golden file, and new entries can be added."""
    path = tmp_path / "runs.db"
    shutil.copyfile(frozen, path)
    reported: dict[str, Any] = {}
    for _ in range(2):
        database = open_sqlite(path, sync=False, feed_max_entries=FEED_MAX_ENTRIES)
        reported = dump(database)
        assert reported == json.loads(frozen.with_suffix(".json").read_text(encoding="utf-8"))
        database.close()
    database = open_sqlite(path, sync=False, feed_max_entries=FEED_MAX_ENTRIES)
    before = stored_run(database, "run-running")
    last = reported["feed_ends"][1]
    position = write(database, appended(before, an_entry(before.run, 4, last[0])))
    assert position == (last[0], last[1] + 1)
    assert seqs(database, "run-running") == [1, 2, 3, 4]
    database.close()
