"""Runs that are put into Redis whole: aside, page by page, and then at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from murmur_streams.core.archive.lines import digest_of
from murmur_streams.core.archive.run_archive import RunArchive, restorable, verify
from murmur_streams.core.model.errors import (
    InvalidArchiveError,
    RunExistsError,
    RunNotFoundError,
    StoreError,
)
from murmur_streams.core.model.events import RunEvent, RunEventType
from murmur_streams.core.model.results import AgentResult, ResultMetadata
from murmur_streams.core.model.run import Run
from murmur_streams.core.model.states import RunState
from murmur_streams.core.model.work import TargetRule
from murmur_streams.core.rules.decide import LIVE_GRACE_MS
from murmur_streams.stores.local.memory.store import InMemoryRunStore
from murmur_streams.stores.redis.calls import Calls
from murmur_streams.stores.redis.durations import Durations
from murmur_streams.stores.redis.keys import Keys
from murmur_streams.stores.redis.queue import Queue
from murmur_streams.stores.redis.store import RedisRunStore
from murmur_streams.stores.redis.writer import Writer
from murmur_streams.testing.archives import held_run
from murmur_streams.testing.workbench import TARGET
from tests.servers import Space
from tests.stores.redis.test_slots import Recorder, declared, slot
from tests.stores.redis.working import handed_on, server_ms, take

RUN_ID = "run"
DAY_MS = 86_400_000


def note(number: int) -> RunEvent:
    return RunEvent(type=RunEventType.CUSTOM, run_id=RUN_ID, name="note", data=number)


@pytest.fixture
async def archive() -> AsyncIterator[RunArchive]:
    """A run of four pages that has ended."""
    async with InMemoryRunStore() as store:
        await store.create(RUN_ID, "work", input=1, tenant="acme")
        for start in range(0, 1_600, 400):
            await store.append(RUN_ID, *(note(number) for number in range(start, start + 400)))
        await store.finish(RUN_ID, RunState.COMPLETED)
        yield await store.archive(RUN_ID)


class Pages:
    """Counts the pages that a store sends, and lets one of them fail."""

    def __init__(self, store: RedisRunStore, fail_at: int | None = None) -> None:
        self.sent = 0
        self._fail_at = fail_at
        self._script = store._server.idempotent_script
        store._server.idempotent_script = self._send

    async def _send(self, name: str, keys: list[str], args: list[str | int]) -> Any:
        if name == "restore_page":
            self.sent += 1
            if self.sent == self._fail_at:
                raise StoreError("the process ends here")
        return await self._script(name, keys, args)


async def cut_short(store: RedisRunStore, archive: RunArchive, page: int = 3) -> None:
    """Restore until a page fails, as if the process had ended there."""
    pages = Pages(store, page)
    with pytest.raises(StoreError, match="ends here"):
        await store.restore(archive)
    store._server.idempotent_script = pages._script


def aside(space: Space, archive: RunArchive) -> str:
    return space.keys.restoring(archive.run_id, digest_of(archive))


async def test_a_partly_restored_journal_is_invisible_and_expires(
    space: Space, store: RedisRunStore, archive: RunArchive
) -> None:
    """It lies in a key of its own for at most a day, and no call finds the run."""
    await cut_short(store, archive)
    key = aside(space, archive)
    assert space.admin.xlen(key) == 1_000
    assert 0 <= DAY_MS - space.admin.pttl(key) < 60_000
    assert set(space.dump()) == {space.keys.meta, space.keys.partition_meta(0), key}
    for call in (store.get_status, store.audit, store.rebuild, store.archive):
        with pytest.raises(RunNotFoundError):
            await call(RUN_ID)
    assert (await store.list_runs()).runs == ()


async def test_a_restore_that_was_cut_short_is_gone_on_with(
    space: Space, store: RedisRunStore, archive: RunArchive
) -> None:
    """Only the missing pages are sent."""
    await cut_short(store, archive)
    pages = Pages(store)
    assert await store.restore(archive) is True
    assert pages.sent == 2
    assert await store.archive(RUN_ID) == archive
    assert not space.admin.exists(aside(space, archive))


async def test_a_restore_whose_last_step_is_missing_needs_no_page(
    space: Space, store: RedisRunStore, archive: RunArchive
) -> None:
    """If all pages are there, a repeated restore sends only the last step."""

    async def lost(archive: RunArchive, run: Run, digest: str) -> Any:
        raise StoreError("the process ends here")

    restore, store._calls.restore = store._calls.restore, lost
    with pytest.raises(StoreError, match="ends here"):
        await store.restore(archive)
    assert (await store.list_runs()).runs == ()
    store._calls.restore = restore
    pages = Pages(store)
    assert await store.restore(archive) is True
    assert pages.sent == 0


async def test_what_another_archive_left_is_not_gone_on_with(
    space: Space, store: RedisRunStore, archive: RunArchive
) -> None:
    """Pages of another archive of the same id are not used."""
    other = held_run(RUN_ID)
    await cut_short(store, archive)
    assert await store.restore(other) is True
    assert await store.archive(RUN_ID) == other
    assert space.admin.exists(aside(space, archive))


async def test_a_run_that_is_created_between_the_pages_wins(
    store: RedisRunStore, archive: RunArchive
) -> None:
    """The restore raises RunExistsError and changes nothing of the run."""
    await cut_short(store, archive)
    await store.create(RUN_ID, "other", input=2)
    with pytest.raises(RunExistsError):
        await store.restore(archive)
    assert (await store.snapshot(RUN_ID)).target == "other"
    assert await store.get_input(RUN_ID) == 2
    assert [entry.type async for entry in store.journal(RUN_ID)] == ["run.created"]


async def test_a_run_that_is_created_before_the_last_step_wins(
    store: RedisRunStore, archive: RunArchive
) -> None:
    """So does a run that is created in the last moment."""
    restore = store._calls.restore

    async def late(archive: RunArchive, run: Run, digest: str) -> Any:
        await store.create(RUN_ID, "other")
        return await restore(archive, run, digest)

    store._calls.restore = late
    with pytest.raises(RunExistsError):
        await store.restore(archive)
    assert (await store.snapshot(RUN_ID)).version == 1


async def test_many_that_restore_one_run_write_it_once(space: Space, archive: RunArchive) -> None:
    """Of four at once, one returns True."""
    stores = [space.store() for _ in range(4)]
    written = await asyncio.gather(*(store.restore(archive) for store in stores))
    assert sorted(written) == [False, False, False, True]
    assert await stores[0].archive(RUN_ID) == archive
    assert (await stores[0].audit(RUN_ID)).ok
    for store in stores:
        await store.close()


async def test_a_page_that_is_sent_twice_is_there_once(
    store: RedisRunStore, archive: RunArchive
) -> None:
    """A repeated page adds no entry."""
    script = store._server.idempotent_script

    async def twice(name: str, keys: list[str], args: list[str | int]) -> Any:
        await script(name, keys, args)
        return await script(name, keys, args)

    store._server.idempotent_script = twice
    assert await store.restore(archive) is True
    assert await store.archive(RUN_ID) == archive


async def test_a_damaged_archive_leaves_nothing(space: Space, store: RedisRunStore) -> None:
    """It is refused before the first write."""
    await store._server.ready()
    stored = space.dump()
    with pytest.raises(InvalidArchiveError):
        await store.restore(RunArchive(RUN_ID, "0badcafe", ()))
    assert space.dump() == stored


async def test_a_restored_run_replaces_a_tombstone(
    space: Space, store: RedisRunStore, archive: RunArchive
) -> None:
    """An id that was just deleted can be restored, with a new expiry."""
    await store.create(RUN_ID, "work", input=2)
    await store.delete(RUN_ID, force=True)
    assert await store.restore(archive) is True
    assert space.admin.pttl(space.keys.journal(RUN_ID)) > 60_000
    assert await store.archive(RUN_ID) == archive


@pytest.mark.parametrize(("ttl_seconds", "wanted_ms"), [(100, 100_000), (0, None)])
async def test_an_ended_run_expires_from_now_on(
    space: Space, archive: RunArchive, ttl_seconds: int, wanted_ms: int | None
) -> None:
    """All its keys get the store's time to live."""
    async with space.store(ttl_seconds=ttl_seconds) as store:
        assert await store.restore(archive) is True
        for name in ("run", "journal", "input"):
            left = space.admin.pttl(getattr(space.keys, name)(RUN_ID))
            assert left == -1 if wanted_ms is None else 0 <= wanted_ms - left < 60_000


async def test_a_live_run_is_overdue_from_now_on(space: Space) -> None:
    """Its time without writes begins with the restore."""
    async with space.store(live_ttl_seconds=100) as store:
        await store.restore(held_run(RUN_ID))
        left = space.admin.pttl(space.keys.run(RUN_ID))
        assert 0 <= 100_000 + LIVE_GRACE_MS - left < 60_000
        assert (await store.audit(RUN_ID)).ok


async def test_a_run_that_was_held_is_handed_on_with_its_checkpoint(
    space: Space, store: RedisRunStore, queue: Queue
) -> None:
    """Its lease is over at once, and the next claim has the checkpoint."""
    await store.restore(held_run(RUN_ID))
    lease = space.admin.zscore(space.keys.leases(0), RUN_ID)
    assert lease is not None
    assert lease <= server_ms(space)
    assert await handed_on(queue, "second") == [RUN_ID]
    (claim,) = (await queue.claim("second", [TargetRule(TARGET)], 1)).claims
    assert (claim.attempt, claim.checkpoint_json) == (2, '{"done":3}')


async def test_a_run_that_waits_is_in_its_queue(
    space: Space, store: RedisRunStore, queue: Queue
) -> None:
    """A worker can claim it with its input."""
    await store.submit(RUN_ID, "work", input={"text": "why?"}, priority=3)
    archive = await store.archive(RUN_ID)
    await store.delete(RUN_ID, force=True)
    assert await take(queue) == []
    assert await store.restore(archive) is True
    (claim,) = await take(queue)
    assert (claim.run_id, claim.input_json) == (RUN_ID, '{"text":"why?"}')


async def test_a_run_that_is_not_due_waits_on_with_its_deadline(
    space: Space, store: RedisRunStore, queue: Queue
) -> None:
    """The due time and the deadline are those of the archive."""
    await store.submit(RUN_ID, "work", delay_seconds=3_600, deadline_seconds=60)
    archive, before = await store.archive(RUN_ID), await store.snapshot(RUN_ID)
    await store.delete(RUN_ID, force=True)
    assert await store.restore(archive) is True
    assert await store.snapshot(RUN_ID) == before
    assert await take(queue) == []
    assert (await store.audit(RUN_ID)).ok


async def test_the_feed_has_nothing_of_it(
    space: Space, store: RedisRunStore, archive: RunArchive
) -> None:
    """A restored run is not news."""
    await store.restore(archive)
    assert not space.admin.exists(space.keys.feed(0))


@pytest.mark.leaves("*index")
async def test_an_index_of_another_type_is_refused_before_any_write(
    space: Space, store: RedisRunStore, archive: RunArchive
) -> None:
    """After the key is removed, the restore works."""
    space.admin.set(space.keys.index(0), "by hand")
    with pytest.raises(StoreError):
        await store.restore(archive)
    space.admin.delete(space.keys.index(0))
    assert not space.admin.exists(space.keys.run(RUN_ID), space.keys.journal(RUN_ID))
    assert await store.restore(archive) is True


async def test_a_run_moves_between_numbers_of_partitions(space: Space, archive: RunArchive) -> None:
    """An archive fits a store with another number of partitions."""
    async with space.store(partitions=4) as store:
        assert await store.restore(archive) is True
        assert (await store.audit(RUN_ID)).ok


@pytest.mark.parametrize("run_id", ["a", "b:1", "x" * 128])
def test_all_keys_of_a_restore_share_a_slot(run_id: str) -> None:
    """Its scripts could run on a cluster."""
    keys = Keys("prefix", 7)
    base = keys.base(keys.partition(run_id))
    commit = keys.commit_keys(keys.partition(run_id))
    names = [*keys.of_run(run_id), *commit, base, keys.restoring(run_id, "0" * 64)]
    assert len({slot(name) for name in names}) == 1


async def test_the_last_step_sends_what_its_script_declares(archive: RunArchive) -> None:
    """The arguments agree with the header of its file."""
    recorder = Recorder()
    calls = Calls(cast("Writer", recorder), Durations(1, 2, 3, 4))
    await calls.restore(archive, restorable(archive), "0" * 64)
    ((name, arguments),) = recorder.calls
    assert name == "restore"
    rows = declared("commands/restore", "ARGV")
    assert len(arguments) > len(rows)
    for (row, kind), value in zip(rows, arguments, strict=False):
        assert isinstance(value, int if kind.startswith("integer") else str), row


async def test_archiving_gives_up_when_payloads_keep_changing(
    store: RedisRunStore,
) -> None:
    """After some tries it raises StoreError."""
    result = AgentResult[object](agent_name="a", task_id="t", metadata=ResultMetadata())
    await store.create(RUN_ID, "work")
    read_all = store._server.read_all

    async def write_first(*commands: tuple[object, ...]) -> Any:
        await store.set_result(RUN_ID, result)
        return await read_all(*commands)

    store._server.read_all = write_first
    with pytest.raises(StoreError, match="written to faster"):
        await store.archive(RUN_ID)
    store._server.read_all = read_all


async def test_an_archive_is_consistent_while_events_come(
    store: RedisRunStore,
) -> None:
    """The archive is the run as it was at one moment."""
    await store.create(RUN_ID, "work")
    read_all = store._server.read_all

    async def write_first(*commands: tuple[object, ...]) -> Any:
        await store.append(RUN_ID, note(1))
        return await read_all(*commands)

    store._server.read_all = write_first
    assert verify(await store.archive(RUN_ID)).ok
    store._server.read_all = read_all


async def test_a_run_that_is_deleted_while_it_is_read_is_not_found(store: RedisRunStore) -> None:
    """The archive call raises RunNotFoundError."""
    await store.create(RUN_ID, "work")
    read_all = store._server.read_all

    async def delete_first(*commands: tuple[object, ...]) -> Any:
        store._server.read_all = read_all
        await store.delete(RUN_ID, force=True)
        return await read_all(*commands)

    store._server.read_all = delete_first
    with pytest.raises(RunNotFoundError):
        await store.archive(RUN_ID)


async def test_a_run_that_begins_anew_while_it_is_read_is_read_anew(store: RedisRunStore) -> None:
    """The archive is wholly of the new life."""
    await store.create(RUN_ID, "work", input=1)
    await store.append(RUN_ID, note(1))
    read_all = store._server.read_all

    async def replace_first(*commands: tuple[object, ...]) -> Any:
        store._server.read_all = read_all
        await store.delete(RUN_ID, force=True)
        await store.create(RUN_ID, "work", input=2)
        return await read_all(*commands)

    store._server.read_all = replace_first
    archive = await store.archive(RUN_ID)
    assert (archive.input_json, len(archive.entries)) == ("2", 1)
