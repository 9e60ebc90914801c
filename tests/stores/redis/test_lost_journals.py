"""Readers of a lost journal or run get an error, and never wait for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from murmur_streams.core.model.errors import CursorResetError, RunDamagedError, RunNotFoundError
from murmur_streams.core.model.events import RunEvent, RunEventType
from murmur_streams.core.model.states import RunState
from murmur_streams.core.rules.decide import Answer
from murmur_streams.stores.redis.live import hub, tail
from murmur_streams.stores.redis.live.hub import MOST_DIRECT
from murmur_streams.stores.redis.live.sources import DirectSource, FeedSource
from murmur_streams.stores.redis.store import RedisRunStore
from tests.servers import Space
from tests.stores.faults.waiting import wait_until

RUN_ID = "run"
PATIENCE_SECONDS = 20.0
Reader = Callable[[RedisRunStore, str], Awaitable[object]]


@pytest.fixture
async def store(space: Space) -> AsyncIterator[RedisRunStore]:
    async with space.store() as store:
        yield store


async def streamed(store: RedisRunStore, run_id: str) -> list[object]:
    return [event.seq async for event in store.stream(run_id)]


async def followed(store: RedisRunStore, run_id: str) -> list[object]:
    return [entry.seq async for entry in store.journal(run_id, follow=True)]


async def read(store: RedisRunStore, run_id: str) -> list[object]:
    return [entry.seq async for entry in store.journal(run_id)]


READERS: dict[str, Reader] = {"stream": streamed, "journal follow": followed, "journal": read}


async def ends_of(store: RedisRunStore, read: Reader, run_ids: list[str]) -> list[object]:
    """How each reader ends: what it saw, or its error."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        return list(
            await asyncio.gather(*(read(store, each) for each in run_ids), return_exceptions=True)
        )


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("state", ["live", "ended", "ended without a seal"])
@pytest.mark.parametrize("how", ["deleted", "emptied"])
async def test_a_fresh_reader_of_a_lost_journal_gets_an_error(
    space: Space, store: RedisRunStore, reader: str, state: str, how: str
) -> None:
    """Deleted or emptied, live or ended: each reader gets CursorResetError."""
    await store.create(RUN_ID, "t")
    if state == "ended":
        await store.finish(RUN_ID, RunState.COMPLETED)
    if state == "ended without a seal":
        await store.set_state(RUN_ID, RunState.COMPLETED)
    journal = space.keys.journal(RUN_ID)
    if how == "deleted":
        space.admin.delete(journal)
    else:
        space.admin.xtrim(journal, maxlen=0, approximate=False)
    [end] = await ends_of(store, READERS[reader], [RUN_ID])
    assert isinstance(end, CursorResetError), end
    assert end.resume_cursor is None
    assert "journal" in str(end)


async def test_a_run_whose_lost_journal_goes_on_is_streamed_from_there(
    space: Space, store: RedisRunStore
) -> None:
    """Like a trimmed one: the first seq says that entries are missing, and audit says it, too."""
    await store.create(RUN_ID, "t")
    space.admin.delete(space.keys.journal(RUN_ID))
    await store.finish(
        RUN_ID, RunState.COMPLETED, event=RunEvent(type=RunEventType.LOG, run_id=RUN_ID)
    )
    assert await streamed(store, RUN_ID) == [2]
    assert not (await store.audit(RUN_ID)).ok


@pytest.mark.parametrize("reader", ["stream", "journal follow"])
@pytest.mark.parametrize("count", [1, MOST_DIRECT + 1])
async def test_a_journal_deleted_under_a_blocked_reader_is_reported(
    space: Space,
    store: RedisRunStore,
    monkeypatch: pytest.MonkeyPatch,
    reader: str,
    count: int,
) -> None:
    """The regular look at the keys finds it, for journals and feed as source."""
    monkeypatch.setattr(hub, "EXISTS_SECONDS", 0.2)
    run_ids = [f"run-{number}" for number in range(count)]
    for run_id in run_ids:
        await store.create(run_id, "t")
    ends = asyncio.create_task(ends_of(store, READERS[reader], run_ids))
    source = DirectSource if count == 1 else FeedSource
    await wait_until(
        lambda: (
            store._tails.followers == count and isinstance(store._tails._live[0]._source, source)
        ),
        "everybody waits",
    )
    space.admin.delete(*(space.keys.journal(run_id) for run_id in run_ids))
    assert {type(end) for end in await ends} == {CursorResetError}


@pytest.mark.parametrize("reader", ["stream", "journal follow"])
async def test_a_run_gone_when_its_seal_is_due_is_reported_at_once(
    space: Space, reader: str
) -> None:
    """The follower that wants to seal it finds out that it is gone."""
    async with space.store(late_event_seconds=0) as store:
        await store.create(RUN_ID, "t")
        seal = store._tails.seal

        async def too_late(run_id: str) -> Answer:
            space.admin.delete(*space.keys.of_run(run_id))
            return await seal(run_id)

        store._tails.seal = too_late
        await store.set_state(RUN_ID, RunState.COMPLETED)
        [end] = await ends_of(store, READERS[reader], [RUN_ID])
        assert isinstance(end, CursorResetError), end
        assert "is gone" in str(end)


@pytest.mark.parametrize("reader", ["stream", "journal follow"])
@pytest.mark.fault("F22")
async def test_a_run_that_expires_before_its_seal_ends_followers(
    space: Space, reader: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They get CursorResetError instead of waiting for ever."""
    # A reader that gets its turn too late to read the end notices it by a look at the run.
    monkeypatch.setattr(hub, "EXISTS_SECONDS", 1.0)
    async with space.store(ttl_seconds=0.3, late_event_seconds=3600) as store:
        await store.create(RUN_ID, "t")
        ends = asyncio.create_task(ends_of(store, READERS[reader], [RUN_ID]))
        await wait_until(lambda: store._tails.followers == 1, "the reader follows")
        await store.set_state(RUN_ID, RunState.COMPLETED)
        [end] = await ends
        assert isinstance(end, CursorResetError), end
        await wait_until(lambda: not space.admin.exists(space.keys.run(RUN_ID)), "it is gone")
        with pytest.raises(RunNotFoundError):
            await streamed(store, RUN_ID)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.fault("F22")
async def test_a_run_that_expires_between_two_pages_is_a_reset(
    space: Space, store: RedisRunStore, reader: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader in the middle of an ended run gets an error, never a stream that ends early."""
    await store.create(RUN_ID, "t")
    await store.append(RUN_ID, *[RunEvent(type=RunEventType.LOG, run_id=RUN_ID)] * 10)
    await store.finish(RUN_ID, RunState.COMPLETED)
    monkeypatch.setattr(tail, "PAGE_ENTRIES", 4)
    entries = store.stream(RUN_ID) if reader == "stream" else store.journal(RUN_ID)
    await anext(entries)
    space.admin.delete(*space.keys.of_run(RUN_ID))
    with pytest.raises(CursorResetError, match="is gone"):
        async for _ in entries:
            pass


async def test_a_journal_that_ends_before_its_run_is_damaged(
    space: Space, store: RedisRunStore
) -> None:
    """Entries that were removed from the journal's end by hand are an error, not the end."""
    await store.create(RUN_ID, "t")
    await store.append(RUN_ID, *[RunEvent(type=RunEventType.LOG, run_id=RUN_ID)] * 2)
    last = [entry async for entry in store.journal(RUN_ID)][-1]
    space.admin.xdel(space.keys.journal(RUN_ID), last.id)
    with pytest.raises(RunDamagedError, match="its journal ends at entry 2 of 3"):
        await read(store, RUN_ID)
