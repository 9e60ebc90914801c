"""Readers of a journal whose oldest entries were trimmed away."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from murmur_streams.core.model.entries import Cursor
from murmur_streams.core.model.errors import CursorGapError, CursorResetError
from murmur_streams.core.model.events import RunEvent, RunEventType
from murmur_streams.core.model.states import RunState
from murmur_streams.stores.redis.store import RedisRunStore
from tests.servers import Space
from tests.stores.faults.waiting import wait_until

RUN_ID = "run"
REMAINING = 4


@pytest.fixture
async def store(space: Space) -> AsyncIterator[RedisRunStore]:
    async with space.store() as store:
        yield store


@pytest.fixture
async def cursors(space: Space, store: RedisRunStore) -> list[str]:
    """The cursors of ten entries, of which the first six were trimmed away by hand."""
    await store.create(RUN_ID, "t")
    await store.append(RUN_ID, *[RunEvent(type=RunEventType.LOG, run_id=RUN_ID)] * 8)
    await store.finish(RUN_ID, RunState.COMPLETED)
    cursors = [entry.cursor async for entry in store.journal(RUN_ID)]
    assert len(cursors) == 10
    assert space.admin.xtrim(space.keys.journal(RUN_ID), maxlen=REMAINING, approximate=False) == 6
    return cursors


async def seqs(store: RedisRunStore, after: str | None) -> list[int]:
    return [entry.seq async for entry in store.journal(RUN_ID, after=after)]


@pytest.mark.parametrize("index", range(5))
async def test_a_cursor_whose_next_entry_is_gone_has_a_gap(
    store: RedisRunStore, cursors: list[str], index: int
) -> None:
    """The error names the first and last entry that are missing."""
    with pytest.raises(CursorGapError, match=rf"entries {index + 2} to 6 "):
        await seqs(store, cursors[index])


async def test_a_gap_has_the_cursor_to_resume_from(
    store: RedisRunStore, cursors: list[str]
) -> None:
    """Reading from it gives all entries that are left."""
    with pytest.raises(CursorGapError) as caught:
        await seqs(store, cursors[0])
    assert await seqs(store, caught.value.resume_cursor) == [7, 8, 9, 10]


async def test_a_stream_has_the_same_gap(store: RedisRunStore, cursors: list[str]) -> None:
    """A stream raises the error and resumes in the same way as a journal."""
    with pytest.raises(CursorGapError) as caught:
        await anext(aiter(store.stream(RUN_ID, after=cursors[0])))
    events = [event async for event in store.stream(RUN_ID, after=caught.value.resume_cursor)]
    assert [event.seq for event in events] == [7, 8, 9]


async def test_a_cursor_at_the_last_trimmed_entry_missed_nothing(
    store: RedisRunStore, cursors: list[str]
) -> None:
    """The next entry is there, so this is not a gap."""
    assert await seqs(store, cursors[5]) == [7, 8, 9, 10]


@pytest.mark.parametrize("index", [6, 7, 8, 9])
async def test_a_cursor_at_a_remaining_entry_continues(
    store: RedisRunStore, cursors: list[str], index: int
) -> None:
    """Trimming does not matter to it."""
    assert await seqs(store, cursors[index]) == list(range(index + 2, 11))


async def test_a_fresh_stream_starts_at_the_oldest_entry(
    store: RedisRunStore, cursors: list[str]
) -> None:
    """Without a cursor, trimmed entries are not missed."""
    assert [event.seq async for event in store.stream(RUN_ID)] == [7, 8, 9]


async def test_a_cursor_in_a_journal_that_is_gone_is_reset(
    space: Space, store: RedisRunStore, cursors: list[str]
) -> None:
    """An emptied journal is a CursorResetError."""
    space.admin.xtrim(space.keys.journal(RUN_ID), maxlen=0, approximate=False)
    with pytest.raises(CursorResetError):
        await seqs(store, cursors[7])


async def test_a_reader_that_was_trimmed_under_raises_in_mid_stream(
    space: Space, store: RedisRunStore
) -> None:
    """Between two pages of a replay it gets CursorGapError."""
    await store.create(RUN_ID, "t")
    event = RunEvent(type=RunEventType.LOG, run_id=RUN_ID)
    for _ in range(2):
        await store.append(RUN_ID, *[event] * 300)
    stream = aiter(store.stream(RUN_ID))
    first = await anext(stream)
    space.admin.xtrim(space.keys.journal(RUN_ID), maxlen=10, approximate=False)
    with pytest.raises(CursorGapError) as caught:
        async for _ in stream:
            pass
    cursor = Cursor.parse(caught.value.resume_cursor)
    assert (first.seq, cursor.seq) == (2, 591)
    assert len([entry async for entry in store.journal(RUN_ID, after=str(cursor))]) == 10


@pytest.mark.parametrize("goes_on", [False, True])
async def test_a_slow_reader_whose_journal_was_emptied_raises(
    space: Space, store: RedisRunStore, goes_on: bool
) -> None:
    """It does not silently continue with what the live source has."""
    await store.create(RUN_ID, "t")
    event = RunEvent(type=RunEventType.LOG, run_id=RUN_ID)
    await store.append(RUN_ID, event, event)
    stream = aiter(store.stream(RUN_ID))
    await anext(stream)
    await anext(stream)
    # More than the live source buffers for readers that do not read.
    await store.append(RUN_ID, *[event] * 400)
    followed = store._tails._live[0]._followed[RUN_ID]
    await wait_until(lambda: followed.last_id.endswith("-403"), "the live source has it")
    space.admin.xtrim(space.keys.journal(RUN_ID), maxlen=0, approximate=False)
    if goes_on:
        await store.append(RUN_ID, event)
    with pytest.raises(CursorGapError):
        await anext(stream)


async def test_buffered_events_survive_an_emptied_journal(
    space: Space, store: RedisRunStore
) -> None:
    """The live source delivered them before the journal was emptied."""
    await store.create(RUN_ID, "t")
    event = RunEvent(type=RunEventType.LOG, run_id=RUN_ID)
    await store.append(RUN_ID, event)
    stream = aiter(store.stream(RUN_ID))
    assert (await anext(stream)).seq == 2
    await store.append(RUN_ID, event)
    followed = store._tails._live[0]._followed[RUN_ID]
    await wait_until(lambda: followed.last_id.endswith("-3"), "the live source has it")
    space.admin.xtrim(space.keys.journal(RUN_ID), maxlen=0, approximate=False)
    await store.append(RUN_ID, event)
    assert [(await anext(stream)).seq, (await anext(stream)).seq] == [3, 4]
