"""A subscriber gets its own life of a run to the end, whatever becomes of the id."""

from __future__ import annotations

import asyncio

import pytest

from murmur_streams import CursorResetError, EntryType, JournalEntry, RunState
from murmur_streams.stores.local.engine import tails
from murmur_streams.stores.local.engine.file_store import FileRunStore
from murmur_streams.testing.workbench import note, wait_until
from tests.stores.local.stores import Open


async def follow(store: FileRunStore, run_id: str, seen: list[JournalEntry]) -> None:
    async for entry in store.journal(run_id, follow=True):
        seen.append(entry)  # noqa: PERF401  # one by one is what is looked at


@pytest.mark.parametrize("together", [True, False])
async def test_a_follower_of_a_deleted_run_sees_its_own_life_end(
    store: FileRunStore, together: bool
) -> None:
    """The id is created again at once, and the follower gets no entry of the new life."""
    await store.create("run", "target")
    seen: list[JournalEntry] = []
    following = asyncio.create_task(follow(store, "run", seen))
    await wait_until(lambda: len(seen) == 1, "it follows")
    steps = [
        store.create("other", "target"),
        store.append("run", note("run", 1)),
        store.append("run", note("run", 2)),
        store.delete("run", force=True),
        store.create("run", "target"),
        store.append("run", note("run", 3)),
    ]
    if together:
        await asyncio.gather(*steps)
    else:
        for step in steps:
            await step
    await asyncio.wait_for(following, 20)
    assert [entry.type for entry in seen] == ["run.created", "custom", "custom", EntryType.DELETED]
    assert len({entry.epoch for entry in seen}) == 1


async def test_three_lives_in_one_group_are_three_streams(store: FileRunStore) -> None:
    """A follower of the first life sees only its entries, up to its deletion."""
    await store.create("run", "target")
    seen: list[JournalEntry] = []
    following = asyncio.create_task(follow(store, "run", seen))
    await wait_until(lambda: len(seen) == 1, "it follows")
    await asyncio.gather(
        *(
            step
            for _ in range(3)
            for step in (
                store.append("run", note("run", 1)),
                store.delete("run", force=True),
                store.create("run", "target"),
            )
        )
    )
    await asyncio.wait_for(following, 20)
    assert [entry.type for entry in seen] == ["run.created", "custom", EntryType.DELETED]


@pytest.mark.parametrize("late", [False, True])
async def test_a_run_that_expires_between_two_pages_is_a_reset(
    open_again: Open, monkeypatch: pytest.MonkeyPatch, late: bool
) -> None:
    """A reader in the middle of an ended run gets an error, never a stream that ends early."""
    monkeypatch.setattr(tails, "PAGE", 4)
    now_ms = [1_700_000_000_000]
    async with open_again(clock=lambda: now_ms[0]) as store:
        await store.create("run", "target")
        await store.append("run", *[note("run", 1)] * 10)
        await store.finish("run", RunState.COMPLETED)
        entries = store.journal("run") if late else store.stream("run")
        await anext(entries)
        now_ms[0] += 3_600_001
        with pytest.raises(CursorResetError, match="has expired"):
            async for _ in entries:
                pass
