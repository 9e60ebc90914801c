"""The contract of the feed: every entry of every run once, resumable, and never silent."""

# ruff: noqa: S101  # asserts are how a contract speaks

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any, cast

import pytest

from murmur_streams.core.model.errors import CursorResetError, InvalidCursorError, StoreClosedError
from murmur_streams.core.model.events import RunEvent, RunEventType
from murmur_streams.core.model.feed import FeedEntry
from murmur_streams.core.model.identifiers import new_run_id
from murmur_streams.core.model.states import RunState
from murmur_streams.stores.protocol import RunStore
from murmur_streams.testing.room import ContractRoom
from murmur_streams.testing.workbench import StoreFactory, Workbench, closing, journal_of, note

PATIENCE_SECONDS = 20.0


async def first_of_feed(store: RunStore, count: int, **asked: Any) -> list[FeedEntry]:
    """The feed's next ``count`` entries."""
    found: list[FeedEntry] = []
    async with (
        asyncio.timeout(PATIENCE_SECONDS),
        aclosing(cast("Any", store.feed(**asked))) as feed,
    ):
        async for entry in feed:
            found.append(entry)
            if len(found) == count:
                break
    return found


class FeedContract(ContractRoom):
    """What readers of all runs see."""

    async def test_the_feed_has_every_entry_of_every_run_in_the_runs_order(
        self, bench: Workbench, store: RunStore
    ) -> None:
        runs = [await bench.run(store) for _ in range(3)]
        for number in range(4):
            for run_id in runs:
                await store.append(run_id, note(run_id, number))
        for run_id in runs:
            await store.finish(run_id, RunState.COMPLETED, event=closing(run_id))
        journals = {run_id: await journal_of(store, run_id) for run_id in runs}
        found = await first_of_feed(store, sum(map(len, journals.values())))
        assert {each.run_id: each.target for each in found} == dict.fromkeys(runs, "researcher")
        for run_id, journal in journals.items():
            assert [each.entry for each in found if each.run_id == run_id] == journal

    async def test_a_reader_of_the_feed_sees_what_comes(
        self, bench: Workbench, store: RunStore
    ) -> None:
        run_id = await bench.run(store)
        feed = store.feed()
        assert (await anext(feed)).entry.type == "run.created"
        waiting = asyncio.ensure_future(anext(feed))
        await store.append(run_id, note(run_id, 7))
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert (await waiting).entry.fields["data"] == "7"
        await cast("Any", feed).aclose()

    async def test_every_cursor_of_the_feed_resumes_right_after_its_entry(
        self, bench: Workbench, store: RunStore
    ) -> None:
        run_id = await bench.run(store)
        await store.append(run_id, *(note(run_id, number) for number in range(5)))
        found = await first_of_feed(store, 6)
        for index, entry in enumerate(found[:-1]):
            rest = await first_of_feed(store, 5 - index, after=entry.cursor)
            assert rest == found[index + 1 :]

    async def test_the_feed_is_filtered_by_target_and_type(self, store: RunStore) -> None:
        for target in ("a", "b", "c"):
            run_id = new_run_id()
            await store.create(run_id, target)
            await store.append(run_id, note(run_id, 1))
        found = await first_of_feed(store, 2, targets={"a", "c"}, types={RunEventType.CUSTOM})
        assert [(each.target, each.entry.type) for each in found] == [
            ("a", "custom"),
            ("c", "custom"),
        ]
        assert [each.target for each in await first_of_feed(store, 2, targets="b")] == ["b", "b"]

    async def test_a_large_entry_is_whole_in_the_feed(
        self, bench: Workbench, store: RunStore
    ) -> None:
        run_id = await bench.run(store)
        event = RunEvent(type=RunEventType.CUSTOM, run_id=run_id, name="n", data="x" * 5_000)
        await store.append(run_id, event, note(run_id, 1))
        found = await first_of_feed(store, 3)
        assert [each.entry for each in found] == await journal_of(store, run_id)

    async def test_an_entrys_own_cursor_resumes_its_runs_stream(
        self, bench: Workbench, store: RunStore
    ) -> None:
        run_id = await bench.run(store)
        await store.append(run_id, note(run_id, 1), note(run_id, 2))
        found = await first_of_feed(store, 2)
        async with aclosing(
            cast("Any", store.stream(run_id, after=found[1].entry.cursor))
        ) as events:
            assert (await anext(events)).data == 2  # noqa: PLR2004  # the second note

    @pytest.mark.parametrize("after", ["", "x", "feed.", "feed.1", "feed.1-1x", "abcdef01-1-1"])
    async def test_what_is_no_cursor_of_the_feed_is_refused(
        self, store: RunStore, after: str
    ) -> None:
        with pytest.raises(InvalidCursorError):
            await first_of_feed(store, 1, after=after)

    async def test_a_cursor_beyond_the_feeds_end_is_a_reset(
        self, bench: Workbench, store: RunStore
    ) -> None:
        """A cursor beyond the end of the feed is a reset with a cursor to resume from."""
        await bench.run(store)
        found = await first_of_feed(store, 1)
        with pytest.raises(CursorResetError) as caught:
            await first_of_feed(store, 1, after=f"{found[0].cursor}9")
        assert await first_of_feed(store, 1, after=caught.value.resume_cursor) == found

    async def test_closing_the_store_wakes_the_readers_of_its_feed(
        self, factory: StoreFactory
    ) -> None:
        store = factory()
        await store.create(new_run_id(), "t")
        feed = store.feed()
        await anext(feed)
        waiting = asyncio.ensure_future(anext(feed))
        await asyncio.sleep(0)
        await store.close()
        with pytest.raises(StoreClosedError):
            async with asyncio.timeout(PATIENCE_SECONDS):
                await waiting
