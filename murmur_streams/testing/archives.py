"""The contract of archives: a run can be taken out of a store whole, and put into one whole."""

# ruff: noqa: S101, PLR2004  # asserts are how a contract speaks, and expected numbers their point

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import replace

import pytest

from murmur_streams.core.archive.run_archive import RunArchive, verify
from murmur_streams.core.model.entries import JournalEntry
from murmur_streams.core.model.errors import InvalidArchiveError, RunExistsError, RunNotFoundError
from murmur_streams.core.model.events import RunEvent
from murmur_streams.core.model.results import AgentResult, ResultMetadata
from murmur_streams.core.model.states import RunProgress, RunState
from murmur_streams.stores.local.memory.store import InMemoryRunStore
from murmur_streams.stores.protocol import RunStore
from murmur_streams.testing.expiry import is_gone
from murmur_streams.testing.room import ContractRoom
from murmur_streams.testing.workbench import (
    TARGET,
    Workbench,
    closing,
    events_of,
    journal_of,
    note,
    numbers,
    wait_until,
)

STRANGE = {"text": 'é \u2028 \U0001f600 \x00 \\ "', "deep": [[["x"]]], "none": None}
RESULT = AgentResult[object](
    output=STRANGE, agent_name=TARGET, task_id="one", metadata=ResultMetadata()
)


def _without_end(archive: RunArchive) -> RunArchive:
    return replace(archive, entries=())


def _with_a_hole(archive: RunArchive) -> RunArchive:
    return replace(archive, entries=archive.entries[:1] + archive.entries[2:])


def _backwards(archive: RunArchive) -> RunArchive:
    return replace(archive, entries=archive.entries[::-1])


def _without_beginning(archive: RunArchive) -> RunArchive:
    return replace(archive, entries=archive.entries[1:])


def _with_other_input(archive: RunArchive) -> RunArchive:
    return replace(archive, input_json='{"another":1}')


def _without_input(archive: RunArchive) -> RunArchive:
    return replace(archive, input_json=None)


def _with_a_result(archive: RunArchive) -> RunArchive:
    return replace(archive, result_json="{}")


def _of_another_life(archive: RunArchive) -> RunArchive:
    return replace(archive, epoch="0badcafe")


def _under_another_id(archive: RunArchive) -> RunArchive:
    return replace(archive, run_id="another")


def _with_fields(archive: RunArchive, at: int, **fields: str) -> RunArchive:
    entry = archive.entries[at]
    changed = replace(entry, fields={**entry.fields, **fields})
    return replace(archive, entries=(*archive.entries[:at], changed, *archive.entries[at + 1 :]))


def _with_a_target_that_is_no_name(archive: RunArchive) -> RunArchive:
    return _with_fields(archive, 0, target="a:b{1}")


def _with_an_event_of_no_json(archive: RunArchive) -> RunArchive:
    return _with_fields(archive, 1, data="{")


GARBLINGS: list[Callable[[RunArchive], RunArchive]] = [
    _without_end,
    _with_a_hole,
    _backwards,
    _without_beginning,
    _with_other_input,
    _without_input,
    _with_a_result,
    _of_another_life,
    _under_another_id,
    _with_a_target_that_is_no_name,
    _with_an_event_of_no_json,
]


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


class ArchiveContract(ContractRoom):
    """Runs that move."""

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

    @pytest.mark.parametrize("state", list(RunState), ids=str)
    async def test_a_run_is_the_same_after_it_was_moved(
        self, bench: Workbench, store: RunStore, state: RunState
    ) -> None:
        run_id = await bench.run(store, input=STRANGE, metadata=STRANGE, tenant="acme")
        await store.append(run_id, note(run_id, 1), note(run_id, 2))
        if state is RunState.RUNNING:
            await store.set_state(run_id, state)
        elif state.is_terminal:
            result = RESULT if state is RunState.COMPLETED else None
            await store.finish(run_id, state, result=result, error="é")
        before, entries = await store.snapshot(run_id), await journal_of(store, run_id)
        target = await self._moved(bench, store, await store.archive(run_id))
        assert await target.snapshot(run_id) == before
        assert await journal_of(target, run_id) == entries
        assert await target.get_input(run_id) == STRANGE
        found = await target.get_result(run_id)
        assert (found is None) == (state is not RunState.COMPLETED)
        assert found is None or (isinstance(found, AgentResult) and found.output == STRANGE)
        listed = await target.list_runs(state=state, target=TARGET, tenant="acme")
        assert run_id in {run.run_id for run in listed.runs}

    async def test_late_entries_come_along(self, bench: Workbench, store: RunStore) -> None:
        run_id = await bench.run(store)
        await store.finish(run_id, RunState.COMPLETED, event=closing(run_id))
        await store.push_event(run_id, note(run_id))
        target = await self._moved(bench, store, await store.archive(run_id))
        assert (await journal_of(target, run_id))[-1].is_late
        assert [event.type for event in await events_of(target, run_id)] == ["agent_completed"]

    async def test_progress_is_what_the_journal_says(
        self, bench: Workbench, store: RunStore
    ) -> None:
        run_id = await bench.run(store)
        await store.set_state(run_id, RunState.RUNNING)
        for completed in range(1, 4):
            await store.update_progress(run_id, RunProgress(total=9, completed=completed))
        archive = await store.archive(run_id)
        target = await self._moved(bench, store, archive)
        journalled = int(archive.entries[-1].fields["completed"])
        fields_of = RunProgress(total=9, completed=journalled)
        assert (await target.get_status(run_id)).progress == fields_of
        await target.update_progress(run_id, RunProgress(total=9, completed=9))
        assert (await target.get_status(run_id)).progress == RunProgress(total=9, completed=9)

    async def test_a_run_that_a_worker_held_comes_with_its_checkpoint(
        self, bench: Workbench, store: RunStore
    ) -> None:
        archive = held_run(bench.new_id())
        target = await self._moved(bench, store, archive)
        run = await target.snapshot(archive.run_id)
        assert (run.state, run.claim, run.worker) == (RunState.RUNNING, "c", "w")

    async def test_large_payloads_and_many_entries_come_along(
        self, bench: Workbench, store: RunStore
    ) -> None:
        run_id = await bench.run(store, input="\u00e9" * 700_000)
        for _ in range(3):
            await store.append(run_id, *(note(run_id, number) for number in range(400)))
        await store.append(run_id, *(_large(run_id, number) for number in range(12)))
        target = await self._moved(bench, store, await store.archive(run_id))
        assert await target.get_input(run_id) == "\u00e9" * 700_000

    async def test_a_trimmed_journal_comes_along(self, bench: Workbench, store: RunStore) -> None:
        source, run_id = InMemoryRunStore(max_events=1_000), bench.new_id()
        await source.create(run_id, TARGET)
        for _ in range(4):
            await source.append(run_id, *(note(run_id, number) for number in range(450)))
        archive = await source.archive(run_id)
        assert archive.entries[0].seq > 1
        target = await self._moved(bench, store, archive)
        assert await target.append(run_id, note(run_id)) > archive.entries[-1].seq

    async def test_cursors_from_before_go_on_after_the_move(
        self, bench: Workbench, store: RunStore
    ) -> None:
        run_id = await bench.run(store)
        await store.append(run_id, *(note(run_id, number) for number in range(3)))
        entries = await journal_of(store, run_id)
        target = await self._moved(bench, store, await store.archive(run_id))
        readers = [bench.subscribe(target, run_id, entry.cursor) for entry in entries]
        await target.append(run_id, note(run_id, 3))
        await target.finish(run_id, RunState.COMPLETED, event=closing(run_id))
        for start, reader in enumerate(readers):
            assert numbers(await reader.ended()) == list(range(start, 4))
        assert (await target.audit(run_id)).ok

    async def test_an_archive_is_of_one_moment(self, bench: Workbench, store: RunStore) -> None:
        run_id = await bench.run(store)

        async def write() -> None:
            for number in range(40):
                await store.append(run_id, note(run_id, number), note(run_id, number))
            await store.finish(run_id, RunState.COMPLETED, result=RESULT)

        writing = asyncio.create_task(write())
        taken = [await store.archive(run_id)]
        while not writing.done():
            await asyncio.sleep(0)
            taken.append(await store.archive(run_id))
        await writing
        assert [verify(archive).problems for archive in taken] == [()] * len(taken)

    async def test_to_restore_what_is_here_changes_nothing(
        self, bench: Workbench, store: RunStore
    ) -> None:
        run_id = await bench.run(store, input=1)
        earlier = await store.archive(run_id)
        await store.append(run_id, note(run_id))
        archive, stored = await store.archive(run_id), await self.everything_stored()
        assert await store.restore(archive) is False
        assert await store.restore(earlier) is False
        assert await store.archive(run_id) == archive
        assert await self.everything_stored() == stored

    async def test_another_life_of_the_id_is_left_alone(
        self, bench: Workbench, store: RunStore
    ) -> None:
        run_id = await bench.run(store, input=1)
        archive = await store.archive(run_id)
        await store.delete(run_id, force=True)
        await store.create(run_id, TARGET, input=2)
        stored = await self.everything_stored()
        with pytest.raises(RunExistsError, match="delete it first"):
            await store.restore(archive)
        assert await store.get_input(run_id) == 2
        assert await self.everything_stored() == stored

    async def test_an_older_copy_is_left_alone(self, bench: Workbench, store: RunStore) -> None:
        run_id = await bench.run(store)
        earlier = await store.archive(run_id)
        await store.append(run_id, note(run_id))
        archive = await store.archive(run_id)
        target = await self._moved(bench, store, earlier)
        with pytest.raises(RunExistsError):
            await target.restore(archive)
        assert await target.archive(run_id) == earlier

    @pytest.mark.parametrize("garble", GARBLINGS, ids=lambda garble: garble.__name__.strip("_"))
    async def test_what_is_garbled_is_refused_and_changes_nothing(
        self, bench: Workbench, store: RunStore, garble: Callable[[RunArchive], RunArchive]
    ) -> None:
        run_id = await bench.run(store, input=1)
        await store.append(run_id, note(run_id), note(run_id))
        archive = await store.archive(run_id)
        await store.delete(run_id, force=True)
        stored = await self.everything_stored()
        with pytest.raises(InvalidArchiveError, match="damaged"):
            await store.restore(garble(archive))
        assert await is_gone(store, run_id)
        assert await self.everything_stored() == stored

    async def test_a_restored_run_expires_by_its_new_stores_ttl(
        self, bench: Workbench, store: RunStore
    ) -> None:
        """A restored run that has ended expires after the time to live of its new store."""
        run_id = await bench.run(store)
        await store.finish(run_id, RunState.COMPLETED)
        archive = await store.archive(run_id)
        await store.delete(run_id)
        hasty = bench.open(ttl_seconds=0.2)
        assert await hasty.restore(archive) is True
        assert not await is_gone(hasty, run_id)
        await wait_until(lambda: is_gone(hasty, run_id), "the restored run expires")

    async def test_a_restored_live_run_becomes_overdue(self, bench: Workbench) -> None:
        store = bench.open(live_ttl_seconds=0.05)
        archive = held_run(bench.new_id())
        await store.restore(archive)

        async def is_failed() -> bool:
            await store.sweep()
            return (await store.get_status(archive.run_id)).state is RunState.FAILED

        await wait_until(is_failed, "a sweep fails the restored run")

    async def test_a_restored_run_is_not_in_the_feed(
        self, bench: Workbench, store: RunStore
    ) -> None:
        archive = held_run(bench.new_id())
        assert await store.restore(archive) is True
        other = await bench.run(store)
        async for entry in store.feed():
            assert entry.run_id != archive.run_id
            if entry.run_id == other:
                break

    async def test_there_is_no_archive_of_a_run_that_is_not_there(
        self, bench: Workbench, store: RunStore
    ) -> None:
        run_id = await bench.run(store)
        await store.delete(run_id, force=True)
        with pytest.raises(RunNotFoundError):
            await store.archive(run_id)


def _large(run_id: str, number: int) -> RunEvent:
    return note(run_id, number).model_copy(update={"data": "x" * 200_000})
