"""A run that was damaged by hand is reported, repaired or removed, and hinders no other run."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from murmur_streams import RunDamagedError, RunNotFoundError, RunState
from murmur_streams.stores.local.engine.file_store import FileRunStore
from murmur_streams.stores.local.rocksdb import keys
from murmur_streams.stores.local.rocksdb.open_folder import OpenFolder
from murmur_streams.testing.workbench import note, types_of
from tests.stores.local.stores import Clock, Open

HOUR_MS = 3_600_000


def garble_run(kind: str, folder: Path, run_id: str) -> None:
    path = folder / "runs"
    if kind == "sqlite":
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("UPDATE runs SET fields = '{{{' WHERE run_id = ?", (run_id,))
        return
    handle = OpenFolder(path)
    handle.family[keys.run(run_id)] = b"{{{"
    handle.close()


def drop_entry(kind: str, folder: Path, run_id: str, seq: int) -> None:
    path = folder / "runs"
    if kind == "sqlite":
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute(
                "DELETE FROM journal WHERE seq = ? AND run_no ="
                " (SELECT no FROM runs WHERE run_id = ?)",
                (seq, run_id),
            )
        return
    handle = OpenFolder(path)
    del handle.family[keys.numbered(keys.journal(run_id), seq)]
    handle.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


async def fill(store: FileRunStore) -> None:
    """One ended run, and others that live."""
    for run_id in ("ended", "lives", "other"):
        await store.create(run_id, "target", input={"of": run_id})
        await store.append(run_id, note(run_id, 1))
    await store.finish("ended", RunState.COMPLETED)


async def test_a_damaged_run_is_reported_and_not_listed(
    kind: str, open_again: Open, tmp_path: Path, clock: Clock
) -> None:
    """Each read and write of it raises RunDamagedError; other runs are listed and written."""
    async with open_again(clock=clock) as store:
        await fill(store)
    garble_run(kind, tmp_path, "lives")
    async with open_again(clock=clock) as store:
        for read in (store.get_status, store.snapshot, store.get_input):
            with pytest.raises(RunDamagedError, match="rebuild"):
                await read("lives")
        with pytest.raises(RunDamagedError):
            await store.append("lives", note("lives", 2))
        report = await store.audit("lives")
        assert not report.ok
        assert "damaged" in report.problems[0]
        assert {run.run_id for run in (await store.list_runs()).runs} == {"ended", "other"}
        assert await store.append("other", note("other", 2)) == 3


@pytest.mark.parametrize("run_id", ["lives", "ended"])
async def test_rebuild_mends_it_from_its_journal(
    kind: str, open_again: Open, tmp_path: Path, clock: Clock, run_id: str
) -> None:
    """After the rebuild the run is as before: state, input, listings and expiry."""
    async with open_again(clock=clock) as store:
        await fill(store)
        before = await store.snapshot(run_id)
    garble_run(kind, tmp_path, run_id)
    async with open_again(clock=clock) as store:
        await store.rebuild(run_id)
        assert await store.snapshot(run_id) == before
        assert (await store.audit(run_id)).ok
        assert await store.get_input(run_id) == {"of": run_id}
        listed = await store.list_runs(state=before.state)
        assert run_id in {run.run_id for run in listed.runs}
        assert len((await store.list_runs()).runs) == 3
        clock.ms += 2 * HOUR_MS
        assert await store.sweep() == 1
        with pytest.raises(RunNotFoundError):
            await store.get_status("ended")


async def test_force_deletes_it_and_the_id_is_free(
    kind: str, open_again: Open, tmp_path: Path, clock: Clock
) -> None:
    """A damaged run can be deleted by force only; its id can then be used again."""
    async with open_again(clock=clock) as store:
        await fill(store)
    garble_run(kind, tmp_path, "lives")
    async with open_again(clock=clock) as store:
        with pytest.raises(RunDamagedError):
            await store.delete("lives")
        assert await store.delete("lives", force=True)
        with pytest.raises(RunNotFoundError):
            await store.get_status("lives")
        await store.create("lives", "target")
        assert await types_of(store, "lives") == ["run.created"]
        assert len((await store.list_runs(target="target")).runs) == 3
        assert (await store.audit("lives")).ok


async def test_a_damaged_run_expires_and_others_go_on(
    kind: str, open_again: Open, tmp_path: Path, clock: Clock
) -> None:
    """Once its time is over it is removed, and its damage delays no other write or sweep."""
    async with open_again(clock=clock) as store:
        await fill(store)
    garble_run(kind, tmp_path, "ended")
    clock.ms += 2 * HOUR_MS
    async with open_again(clock=clock) as store:
        await store.create("new", "target")
        assert await store.finish("other", RunState.COMPLETED)
        await store.sweep()
        with pytest.raises(RunNotFoundError):
            await store.get_status("ended")
        assert await store.sweep() == 0


async def test_a_damaged_overdue_run_stays_and_others_fail(
    kind: str, open_again: Open, tmp_path: Path, clock: Clock
) -> None:
    """The sweep fails the other overdue run; the damaged one fails once it is rebuilt."""
    options = {"clock": clock, "live_ttl_seconds": 60}
    async with open_again(**options) as store:
        await fill(store)
    garble_run(kind, tmp_path, "lives")
    clock.ms += 120_000
    async with open_again(**options) as store:
        assert await store.sweep() == 1
        assert (await store.get_status("other")).state is RunState.FAILED
        assert await store.sweep() == 0
        await store.rebuild("lives")
        clock.ms += 120_000
        assert await store.sweep() == 1
        assert (await store.get_status("lives")).state is RunState.FAILED


async def test_a_journal_with_a_hole_mends_nothing_and_says_so(
    kind: str, open_again: Open, tmp_path: Path, clock: Clock
) -> None:
    """The rebuild fails, names the missing entry, and changes nothing."""
    async with open_again(clock=clock) as store:
        await fill(store)
        await store.append("lives", note("lives", 2), note("lives", 3))
    drop_entry(kind, tmp_path, "lives", 3)
    async with open_again(clock=clock) as store:
        assert not (await store.audit("lives")).ok
        with pytest.raises(RunDamagedError, match=r"entry 3 .* cannot mend"):
            await store.rebuild("lives")
        assert (await store.get_status("lives")).state is RunState.PENDING
