"""The contract of archives: a run can be taken out of a store whole, and put into one whole."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import replace

import pytest

from murmur_streams.core.archive.run_archive import RunArchive, verify
from murmur_streams.core.model.entries import JournalEntry
from murmur_streams.core.model.errors import InvalidArchiveError, RunExistsError
from murmur_streams.core.model.states import RunProgress, RunState
from murmur_streams.stores.local.memory.store import InMemoryRunStore
from murmur_streams.stores.protocol import RunStore
from murmur_streams.testing import workbench
from murmur_streams.testing.fixtures import ContractFixtures, opened_with
from murmur_streams.testing.results import agent_result, stored_output
from murmur_streams.testing.workbench import TARGET, Workbench, note

STRANGE = {"text": 'é \u2028 \U0001f600 \x00 \\ "', "deep": [[["x"]]], "none": None}


def with_fields(archive: RunArchive, index: int, **fields: str) -> RunArchive:
    """The archive with other fields in one of its entries."""
    entries = list(archive.entries)
    entries[index] = replace(entries[index], fields={**entries[index].fields, **fields})
    return replace(archive, entries=tuple(entries))


DAMAGES: dict[str, Callable[[RunArchive], RunArchive]] = {
    "no entries": lambda archive: replace(archive, entries=()),
    "a hole": lambda archive: replace(archive, entries=archive.entries[:1] + archive.entries[2:]),
    "backwards": lambda archive: replace(archive, entries=archive.entries[::-1]),
    "no beginning": lambda archive: replace(archive, entries=archive.entries[1:]),
    "another input": lambda archive: replace(archive, input_json='{"another":1}'),
    "no input": lambda archive: replace(archive, input_json=None),
    "a result without an entry": lambda archive: replace(archive, result_json="{}"),
    "another epoch": lambda archive: replace(archive, epoch="0badcafe"),
    "another id": lambda archive: replace(archive, run_id="another"),
    "an invalid target": lambda archive: with_fields(archive, 0, target="a:b{1}"),
    "data that is not JSON": lambda archive: with_fields(archive, 1, data="{"),
}


def held_run(run_id: str) -> RunArchive:
    """A run that a worker held when it was archived, with a checkpoint."""
    checkpoint = '{"done":3}'
    size, sha256 = str(len(checkpoint)), hashlib.sha256(checkpoint.encode()).hexdigest()
    fields_of: list[dict[str, str]] = [
        {"type": "run.created", "target": TARGET, "epoch": "0badcafe", "queued": "1"},
        {"type": "run.state", "state": "running", "claim": "c", "attempt": "1", "worker": "w"},
        {"type": "run.checkpoint", "attempt": "1", "size": size, "sha256": sha256},
    ]
    entries = tuple(
        JournalEntry(run_id, "0badcafe", 1_700_000_000_000 + seq, seq, fields)
        for seq, fields in enumerate(fields_of, 1)
    )
    return RunArchive(run_id, "0badcafe", entries, checkpoint_json=checkpoint)


class ArchiveContract(ContractFixtures):
    """Runs that move to another store."""

    async def _moved(self, bench: Workbench, store: RunStore, archive: RunArchive) -> RunStore:
        """Restore a run where it is not: in a store of its own, else after it was deleted."""
        if self.shares_runs:
            await store.delete(archive.run_id, force=True)
        target = store if self.shares_runs else bench.open()
        assert await target.restore(archive) is True
        report = await target.audit(archive.run_id)
        assert report.ok, report.problems
        assert await target.archive(archive.run_id) == archive
        return target

    @pytest.mark.parametrize("state", RunState)
    async def test_a_moved_run_is_the_same(
        self, bench: Workbench, store: RunStore, state: RunState
    ) -> None:
        """Snapshot, journal, input, result and lists of a run are the same after a move."""
        run_id = await bench.run(store, input=STRANGE, metadata=STRANGE, tenant="acme")
        await store.append(run_id, *workbench.notes(run_id, 2))
        result = agent_result(STRANGE) if state is RunState.COMPLETED else None
        if state.is_terminal:
            await store.finish(run_id, state, result=result, error="é")
        else:
            await store.set_state(run_id, state)
        before, entries = await store.snapshot(run_id), await workbench.journal_of(store, run_id)
        target = await self._moved(bench, store, await store.archive(run_id))
        assert await target.snapshot(run_id) == before
        assert await workbench.journal_of(target, run_id) == entries
        assert await target.get_input(run_id) == STRANGE
        if result:
            assert await stored_output(target, run_id) == STRANGE
        else:
            assert await target.get_result(run_id) is None
        listed = await target.list_runs(state=state, target=TARGET, tenant="acme")
        assert run_id in {run.run_id for run in listed.runs}

    async def test_late_entries_move(self, bench: Workbench, store: RunStore, run_id: str) -> None:
        await store.finish(run_id, RunState.COMPLETED, event=workbench.closing(run_id))
        await store.push_event(run_id, note(run_id))
        target = await self._moved(bench, store, await store.archive(run_id))
        assert (await workbench.journal_of(target, run_id))[-1].is_late
        assert workbench.kinds(await workbench.events_of(target, run_id)) == ["agent_completed"]

    async def test_progress_is_that_of_the_journal(
        self, bench: Workbench, store: RunStore, run_id: str
    ) -> None:
        """A moved run has the progress that the journal had last, and takes more."""
        await store.set_state(run_id, RunState.RUNNING)
        for completed in range(1, 4):
            await store.update_progress(run_id, RunProgress(total=9, completed=completed))
        archive = await store.archive(run_id)
        target = await self._moved(bench, store, archive)
        journalled = int(archive.entries[-1].fields["completed"])
        status = await target.get_status(run_id)
        assert status.progress == RunProgress(total=9, completed=journalled)
        await target.update_progress(run_id, RunProgress(total=9, completed=9))
        assert (await target.get_status(run_id)).progress == RunProgress(total=9, completed=9)

    async def test_a_held_run_moves(self, bench: Workbench, store: RunStore) -> None:
        """A run that a worker held has its claim and its checkpoint after a move."""
        archive = held_run(bench.new_id())
        target = await self._moved(bench, store, archive)
        run = await target.snapshot(archive.run_id)
        assert (run.state, run.claim, run.worker) == (RunState.RUNNING, "c", "w")

    async def test_a_large_run_moves(self, bench: Workbench, store: RunStore) -> None:
        """A large input, many entries and large ones move."""
        given = "\u00e9" * 700_000
        run_id = await bench.run(store, input=given)
        for _ in range(3):
            await store.append(run_id, *workbench.notes(run_id, 400))
        await store.append(run_id, *[note(run_id, data="x" * 200_000)] * 12)
        target = await self._moved(bench, store, await store.archive(run_id))
        assert await target.get_input(run_id) == given

    async def test_a_trimmed_journal_moves(self, bench: Workbench, store: RunStore) -> None:
        source, run_id = InMemoryRunStore(max_events=1_000), bench.new_id()
        await source.create(run_id, TARGET)
        for _ in range(4):
            await source.append(run_id, *workbench.notes(run_id, 450))
        archive = await source.archive(run_id)
        assert archive.entries[0].seq > 1
        target = await self._moved(bench, store, archive)
        assert await target.append(run_id, note(run_id)) > archive.entries[-1].seq

    async def test_cursors_resume_after_a_move(
        self, bench: Workbench, store: RunStore, run_id: str
    ) -> None:
        """Cursors from before the move resume in the new store."""
        await store.append(run_id, *workbench.notes(run_id, 3))
        entries = await workbench.journal_of(store, run_id)
        target = await self._moved(bench, store, await store.archive(run_id))
        readers = [bench.subscribe(target, run_id, entry.cursor) for entry in entries]
        await target.append(run_id, note(run_id, 3))
        await target.finish(run_id, RunState.COMPLETED, event=workbench.closing(run_id))
        for start, reader in enumerate(readers):
            assert workbench.numbers(await reader.ended()) == list(range(start, 4))
        assert (await target.audit(run_id)).ok

    async def test_an_archive_is_of_one_moment(self, store: RunStore, run_id: str) -> None:
        """Archives that are taken while the run is written to are each whole."""

        async def write() -> None:
            for number in range(40):
                await store.append(run_id, note(run_id, number), note(run_id, number))
            await store.finish(run_id, RunState.COMPLETED, result=agent_result(STRANGE))

        writing = asyncio.create_task(write())
        taken = [await store.archive(run_id)]
        while not writing.done():
            await asyncio.sleep(0)
            taken.append(await store.archive(run_id))
        await writing
        assert [verify(archive).problems for archive in taken] == [()] * len(taken)

    async def test_a_second_restore_does_nothing(self, bench: Workbench, store: RunStore) -> None:
        """A store that has the archive's entries, or more of the same life, stays as it is."""
        run_id = await bench.run(store, input=1)
        earlier = await store.archive(run_id)
        await store.append(run_id, note(run_id))
        archive, stored = await store.archive(run_id), await self.everything_stored()
        assert await store.restore(archive) is False
        assert await store.restore(earlier) is False
        assert await store.archive(run_id) == archive
        assert await self.everything_stored() == stored

    async def test_another_life_is_not_replaced(self, bench: Workbench, store: RunStore) -> None:
        """An archive is refused where its id has another life."""
        run_id = await bench.run(store, input=1)
        archive = await store.archive(run_id)
        await store.delete(run_id, force=True)
        await store.create(run_id, TARGET, input=2)
        stored = await self.everything_stored()
        with pytest.raises(RunExistsError, match="delete it first"):
            await store.restore(archive)
        assert await store.get_input(run_id) == 2
        assert await self.everything_stored() == stored

    async def test_an_older_copy_is_not_replaced(
        self, bench: Workbench, store: RunStore, run_id: str
    ) -> None:
        """An archive is refused where the store has less of the same life."""
        earlier = await store.archive(run_id)
        await store.append(run_id, note(run_id))
        archive = await store.archive(run_id)
        target = await self._moved(bench, store, earlier)
        with pytest.raises(RunExistsError):
            await target.restore(archive)
        assert await target.archive(run_id) == earlier

    @pytest.mark.parametrize("damage", DAMAGES)
    async def test_a_damaged_archive_is_refused(
        self, bench: Workbench, store: RunStore, damage: str
    ) -> None:
        """A damaged archive is refused, and nothing of it is written."""
        run_id = await bench.run(store, input=1)
        await store.append(run_id, *workbench.notes(run_id, 2))
        archive = await store.archive(run_id)
        await store.delete(run_id, force=True)
        stored = await self.everything_stored()
        with pytest.raises(InvalidArchiveError, match="damaged"):
            await store.restore(DAMAGES[damage](archive))
        assert await workbench.is_gone(store, run_id)
        assert await self.everything_stored() == stored

    async def test_a_restored_run_expires(
        self, bench: Workbench, store: RunStore, run_id: str
    ) -> None:
        """A restored run that has ended expires after the time to live of its new store."""
        await store.finish(run_id, RunState.COMPLETED)
        archive = await store.archive(run_id)
        await store.delete(run_id)
        hasty = bench.open(ttl_seconds=0.2)
        assert await hasty.restore(archive) is True
        assert not await workbench.is_gone(hasty, run_id)
        await workbench.until_gone(hasty, run_id)

    @opened_with(live_ttl_seconds=0.05)
    async def test_a_restored_run_becomes_overdue(self, bench: Workbench, store: RunStore) -> None:
        archive = held_run(bench.new_id())
        await store.restore(archive)
        await workbench.until_failed(store, archive.run_id)

    async def test_the_feed_has_no_restored_run(self, bench: Workbench, store: RunStore) -> None:
        archive = held_run(bench.new_id())
        assert await store.restore(archive) is True
        other = await bench.run(store)
        async for entry in store.feed():
            assert entry.run_id != archive.run_id
            if entry.run_id == other:
                break
