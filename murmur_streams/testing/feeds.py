"""The contract of the feed: every entry of every run once, resumable, and never silent."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any, cast

import pytest

from murmur_streams.core.model.errors import CursorResetError, InvalidCursorError, StoreClosedError
from murmur_streams.core.model.events import RunEventType
from murmur_streams.core.model.feed import FeedEntry
from murmur_streams.core.model.states import RunState
from murmur_streams.stores.protocol import RunStore
from murmur_streams.testing import workbench
from murmur_streams.testing.fixtures import ContractFixtures
from murmur_streams.testing.workbench import TARGET, StoreFactory, Workbench, note


async def first_of_feed(store: RunStore, count: int, **asked: Any) -> list[FeedEntry]:
    """The feed's next ``count`` entries."""
    async with (
        asyncio.timeout(workbench.PATIENCE_SECONDS),
        aclosing(cast("Any", store.feed(**asked))) as feed,
    ):
        return [await anext(feed) for _ in range(count)]


class FeedContract(ContractFixtures):
    """The entries of all runs."""

    async def test_the_feed_has_every_entry(self, bench: Workbench, store: RunStore) -> None:
        """The feed has every entry of every run, those of one run in its order."""
        runs = [await bench.run(store) for _ in range(3)]
        for number in range(4):
            for run_id in runs:
                await store.append(run_id, note(run_id, number))
        for run_id in runs:
            await store.finish(run_id, RunState.COMPLETED, event=workbench.closing(run_id))
        journals = {run_id: await workbench.journal_of(store, run_id) for run_id in runs}
        found = await first_of_feed(store, sum(map(len, journals.values())))
        assert {each.run_id: each.target for each in found} == dict.fromkeys(runs, TARGET)
        for run_id, journal in journals.items():
            assert [each.entry for each in found if each.run_id == run_id] == journal

    async def test_a_reader_of_the_feed_follows_it(self, store: RunStore, run_id: str) -> None:
        """A reader that has seen all entries gets the next one when it is written."""
        async with (
            asyncio.timeout(workbench.PATIENCE_SECONDS),
            aclosing(cast("Any", store.feed())) as feed,
        ):
            assert (await anext(feed)).entry.type == "run.created"
            waiting = asyncio.ensure_future(anext(feed))
            await store.append(run_id, note(run_id, 7))
            assert (await waiting).entry.fields["data"] == "7"

    async def test_the_feed_resumes_after_each_entry(self, store: RunStore, run_id: str) -> None:
        await store.append(run_id, *workbench.notes(run_id, 5))
        found = await first_of_feed(store, 6)
        for index, entry in enumerate(found[:-1]):
            rest = await first_of_feed(store, 5 - index, after=entry.cursor)
            assert rest == found[index + 1 :]

    async def test_the_feed_is_filtered(self, bench: Workbench, store: RunStore) -> None:
        """A feed of some targets and types has only their entries; runs come in any order."""
        for target in ("a", "b", "c"):
            run_id = bench.new_id()
            await store.create(run_id, target)
            await store.append(run_id, note(run_id, 1))
        found = await first_of_feed(store, 2, targets={"a", "c"}, types={RunEventType.CUSTOM})
        assert sorted(each.target for each in found) == ["a", "c"]
        assert [each.entry.type for each in found] == ["custom", "custom"]
        assert [each.target for each in await first_of_feed(store, 2, targets="b")] == ["b", "b"]

    async def test_a_large_entry_is_whole_in_the_feed(self, store: RunStore, run_id: str) -> None:
        await store.append(run_id, note(run_id, data="x" * 5_000), note(run_id, 1))
        found = await first_of_feed(store, 3)
        assert [each.entry for each in found] == await workbench.journal_of(store, run_id)

    async def test_an_entrys_cursor_resumes_its_run(self, store: RunStore, run_id: str) -> None:
        """The cursor of an entry in the feed resumes the stream of the entry's run."""
        await store.append(run_id, note(run_id, 1), note(run_id, 2))
        cursor = (await first_of_feed(store, 2))[1].entry.cursor
        async with aclosing(cast("Any", store.stream(run_id, after=cursor))) as events:
            assert (await anext(events)).data == 2

    @pytest.mark.parametrize("after", ["", "x", "feed.", "feed.1", "feed.1-1x", "abcdef01-1-1"])
    async def test_a_malformed_feed_cursor_is_refused(self, store: RunStore, after: str) -> None:
        with pytest.raises(InvalidCursorError):
            await first_of_feed(store, 1, after=after)

    async def test_a_cursor_beyond_the_feed_is_a_reset(self, store: RunStore, run_id: str) -> None:
        """A cursor beyond the end of the feed is a reset; the next entry comes after its cursor."""
        found = await first_of_feed(store, 1)
        with pytest.raises(CursorResetError) as caught:
            await first_of_feed(store, 1, after=f"{found[0].cursor}9")
        await store.append(run_id, note(run_id, 1))
        both = [each.entry for each in await first_of_feed(store, 2)]
        (first,) = await first_of_feed(store, 1, after=caught.value.resume_cursor)
        assert first.entry in both

    async def test_closing_a_store_ends_its_feeds(self, factory: StoreFactory) -> None:
        """A reader that waits at the end of the feed gets StoreClosedError."""
        store = factory()
        await store.create("run", TARGET)
        feed = store.feed()
        await anext(feed)
        waiting = asyncio.ensure_future(anext(feed))
        await asyncio.sleep(0)
        await store.close()
        with pytest.raises(StoreClosedError):
            async with asyncio.timeout(workbench.PATIENCE_SECONDS):
                await waiting
