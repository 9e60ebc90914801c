from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from murmur_streams.core.model.run import PayloadKind, RunFilter
from murmur_streams.core.model.states import RunState
from murmur_streams.stores.local.engine.database import (
    Changes,
    Database,
    Due,
    QueuePosition,
    RunChange,
    Stored,
)
from murmur_streams.stores.local.rocksdb import keys
from murmur_streams.stores.local.rocksdb.binding import View
from murmur_streams.stores.local.rocksdb.open_folder import OpenFolder
from tests.stores.rocksdb.making import NOW, created, new_run, opened

# Ids that end in one another, and may look like a part of a key.
IDS = ["run", "n:run", "a-run", "1:n:run"]
GARBLED = b"{{{"


def busy(run_id: str) -> Stored:
    """A run of which every index has a row."""
    return replace(
        new_run(run_id, tenant="mine"),
        expire_at_ms=NOW,
        overdue_ms=NOW,
        lease_until_ms=NOW,
        queue=QueuePosition(is_ready=True, score=5),
    )


def spoiled(path: Path, spoil: Callable[[OpenFolder], object]) -> Database:
    database = opened(path)
    for run_id in IDS:
        group = created(busy(run_id))
        group.runs[run_id].payloads = {PayloadKind.INPUT: "1"}
        database.commit(group)
    database.close()
    handle = OpenFolder(path)
    spoil(handle)
    handle.close()
    return opened(path)


def garbled(handle: OpenFolder) -> None:
    handle.family.put(keys.run("n:run"), GARBLED)


def gone(handle: OpenFolder) -> None:
    handle.family.delete(keys.version("n:run"))


def repaired(after: Stored | None) -> Changes:
    return Changes({"n:run": RunChange(None, after, is_repair=True, is_plain=False)})


def positions(database: Database) -> list[list[str]]:
    """The ids in every listing, at every moment and in every queue."""
    filters = [
        RunFilter(),
        RunFilter(RunState.PENDING),
        RunFilter(RunState.FAILED),
        RunFilter(None, "writer"),
        RunFilter(None, "other"),
        RunFilter(None, None, "mine"),
    ]
    found = [[run.run_id for run in database.listing(each, 0, 9, None)] for each in filters]
    found += [database.due(each, 2 * NOW, 9) for each in Due]
    for target in ("writer", "other"):
        for is_ready in (True, False):
            found.append(
                [run_id for _, run_id in database.queue(target, is_ready=is_ready, limit=9)]
            )
    return found


@pytest.mark.parametrize("spoil", [garbled, gone])
@pytest.mark.parametrize("tenant", ["mine", None])
def test_a_repaired_run_has_only_its_new_rows(
    tmp_path: Path, spoil: Callable[[OpenFolder], object], tenant: str | None
) -> None:
    """Old rows of its listings, queue and times are gone; rows of other runs stay."""
    database = spoiled(tmp_path / "store", spoil)
    new = new_run("n:run", state=RunState.FAILED, target="other", tenant=tenant, created_ms=NOW + 9)
    after = replace(new, overdue_ms=NOW + 5, queue=QueuePosition(is_ready=False, score=9))
    database.commit(repaired(after))
    assert database.journal("n:run", 0, 9) is not None
    assert database.stored("n:run") == after
    assert [each.seq for each in database.last_entries("n:run", 9)] == [1]
    assert database.payload("n:run", PayloadKind.INPUT) == "1"
    others = ["run", "a-run", "1:n:run"]
    for run_id in others:
        assert database.stored(run_id) == busy(run_id)
    found = positions(database)
    assert [ids for ids in found if "n:run" in ids] == [
        found[0],
        ["n:run"],
        ["n:run"],
        *([found[5]] if tenant else []),
        found[7],
        ["n:run"],
    ]
    database.commit(Changes({"n:run": RunChange(after, None, is_plain=False)}))
    assert not any("n:run" in ids for ids in positions(database))
    database.close()


@pytest.mark.parametrize("spoil", [garbled, gone])
def test_a_repair_that_leaves_nothing_removes_all_of_the_run(
    tmp_path: Path, spoil: Callable[[OpenFolder], object]
) -> None:
    """Rows, payloads and entries of the damaged run are gone, those of other runs stay."""
    path = tmp_path / "store"
    database = spoiled(path, spoil)
    database.commit(repaired(None))
    assert database.stored("n:run") is None
    assert database.stored_entries("n:run", 0, 9) == []
    assert database.payload("n:run", PayloadKind.INPUT) is None
    assert not any("n:run" in ids for ids in positions(database))
    assert all(database.stored(each) == busy(each) for each in IDS if each != "n:run")
    database.close()
    handle = OpenFolder(path)
    left = [key for key, _ in View(handle.family, is_one_moment=False).scan(b"", b"\xff", 1000)]
    handle.close()
    # Only the feed speaks of it.
    assert [key for key in left if b"n:run" in key and b"1:n:run" not in key] == []
    assert len(left) > 20
