"""The contract of reading: replay, follow, resume, journal; nothing missed, nothing twice."""

# ruff: noqa: S101, PLR2004  # asserts are how a contract speaks, and expected numbers their point

from __future__ import annotations

import asyncio
import random

from murmur_streams.core.model.events import RunEvent
from murmur_streams.core.model.states import RunProgress, RunState
from murmur_streams.stores.protocol import RunStore
from murmur_streams.testing.room import ContractRoom
from murmur_streams.testing.workbench import (
    Workbench,
    closing,
    events_of,
    journal_of,
    note,
    numbers,
)

MANY = 10_000
SUBSCRIBERS = 50


async def write_a_life(store: RunStore, run_id: str) -> None:
    """Leave entries of all kinds, with events between them and after the end."""
    await store.append(run_id, note(run_id, 0))
    await store.set_state(run_id, RunState.RUNNING)
    await store.append(run_id, note(run_id, 1), note(run_id, 2))
    await store.update_progress(run_id, RunProgress(total=1))
    await store.append(run_id, note(run_id, 3))
    await store.finish(run_id, RunState.COMPLETED, event=closing(run_id))
    await store.push_event(run_id, note(run_id, 99))


class StreamContract(ContractRoom):
    """What readers see."""

    async def test_a_replay_yields_ten_thousand_events_in_order(
        self, bench: Workbench, store: RunStore
    ) -> None:
        """A replay of ten thousand events yields all of them in order."""
        run_id = await bench.run(store)
        for first in range(0, MANY, 500):
            await store.append(run_id, *(note(run_id, first + n) for n in range(500)))
        await store.finish(run_id, RunState.COMPLETED)
        assert numbers(await events_of(bench.other(store), run_id)) == list(range(MANY))

    async def test_a_subscriber_sees_an_event_while_the_run_lives(
        self, bench: Workbench, store: RunStore
    ) -> None:
        run_id = await bench.run(store)
        subscriber = bench.subscribe(bench.other(store), run_id)
        for number in range(20):
            await store.append(run_id, note(run_id, number))
            await subscriber.until(number + 1)
        assert numbers(subscriber.seen) == list(range(20))

    async def test_a_stream_ends_with_the_run(self, bench: Workbench, store: RunStore) -> None:
        run_id = await bench.run(store)
        subscriber = bench.subscribe(bench.other(store), run_id)
        await store.append(run_id, note(run_id))
        await subscriber.until(1)
        await store.finish(run_id, RunState.COMPLETED, event=closing(run_id))
        assert [str(event.type) for event in await subscriber.ended()] == [
            "custom",
            "agent_completed",
        ]

    async def test_a_stream_of_an_ended_run_without_events_is_empty(
        self, bench: Workbench, store: RunStore
    ) -> None:
        run_id = await bench.run(store)
        await store.finish(run_id, RunState.COMPLETED)
        assert await events_of(store, run_id) == []

    async def test_two_reads_of_an_ended_run_are_the_same(
        self, bench: Workbench, store: RunStore
    ) -> None:
        run_id = await bench.run(store)
        await write_a_life(store, run_id)
        assert await events_of(store, run_id) == await events_of(bench.other(store), run_id)

    async def test_a_stream_resumes_after_each_of_its_events(
        self, bench: Workbench, store: RunStore
    ) -> None:
        run_id = await bench.run(store)
        await write_a_life(store, run_id)
        events = await events_of(store, run_id)
        for index, event in enumerate(events, start=1):
            assert await events_of(store, run_id, event.id) == events[index:]

    async def test_a_stream_resumes_after_each_entry_of_the_journal(
        self, bench: Workbench, store: RunStore
    ) -> None:
        run_id = await bench.run(store)
        await write_a_life(store, run_id)
        events = await events_of(store, run_id)
        for entry in await journal_of(store, run_id):
            rest = [event for event in events if (event.seq or 0) > entry.seq]
            assert await events_of(store, run_id, entry.cursor) == rest

    async def test_the_journal_resumes_after_each_of_its_entries(
        self, bench: Workbench, store: RunStore
    ) -> None:
        run_id = await bench.run(store)
        await write_a_life(store, run_id)
        entries = await journal_of(store, run_id)
        for index, entry in enumerate(entries, start=1):
            assert await journal_of(store, run_id, entry.cursor) == entries[index:]

    async def test_a_reader_may_resume_after_every_event(
        self, bench: Workbench, store: RunStore
    ) -> None:
        """A reader that resumes after every event of a live run sees each event once."""
        run_id, seen = await bench.run(store), list[RunEvent]()

        async def read_one_at_a_time() -> None:
            while len(seen) < 40:
                stream = store.stream(run_id, after=seen[-1].id if seen else None)
                seen.append(await anext(stream))
                await stream.aclose()  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]

        reader = asyncio.create_task(read_one_at_a_time())
        for number in range(40):
            await store.append(run_id, note(run_id, number))
        async with asyncio.timeout(20):
            await reader
        assert numbers(seen) == list(range(40))

    async def test_fifty_subscribers_each_see_every_event_once(
        self, bench: Workbench, store: RunStore
    ) -> None:
        """Fifty subscribers that join at random moments each see every event once."""
        run_id, stores = await bench.run(store), [store, bench.other(store)]
        joins = sorted(random.Random(7).choices(range(500), k=SUBSCRIBERS))  # noqa: S311  # no secret
        subscribers = [bench.subscribe(stores[0], run_id) for _ in range(2)]
        for number in range(500):
            while joins and joins[0] == number:
                joins.pop(0)
                subscribers.append(bench.subscribe(stores[number % 2], run_id))
            await store.append(run_id, note(run_id, number))
        await store.finish(run_id, RunState.COMPLETED, event=closing(run_id))
        seen = [numbers(await subscriber.ended()) for subscriber in subscribers]
        assert seen == [list(range(500))] * (SUBSCRIBERS + 2)

    async def test_a_cancelled_subscriber_leaves_the_others_alone(
        self, bench: Workbench, store: RunStore
    ) -> None:
        run_id = await bench.run(store)
        first, second = bench.subscribe(store, run_id), bench.subscribe(store, run_id)
        await store.append(run_id, note(run_id, 0))
        await first.until(1)
        await first.cancel()
        await store.append(run_id, note(run_id, 1))
        await store.finish(run_id, RunState.COMPLETED)
        assert numbers(await second.ended()) == [0, 1]

    async def test_a_stream_that_is_not_read_delays_no_other_caller(
        self, bench: Workbench, store: RunStore
    ) -> None:
        run_id = await bench.run(store)
        await store.append(run_id, note(run_id, 0))
        stream = store.stream(run_id)
        await anext(stream)
        for number in range(1, 1000):
            await store.append(run_id, note(run_id, number))
        await store.finish(run_id, RunState.COMPLETED)
        assert numbers([event async for event in stream]) == list(range(1, 1000))

    async def test_the_journal_ends_where_it_stands(
        self, bench: Workbench, store: RunStore
    ) -> None:
        run_id = await bench.run(store)
        await store.append(run_id, note(run_id))
        assert [entry.type for entry in await journal_of(store, run_id)] == [
            "run.created",
            "custom",
        ]

    async def test_a_followed_journal_goes_on_to_the_seal(
        self, bench: Workbench, store: RunStore
    ) -> None:
        run_id, seen = await bench.run(store), list[str]()

        async def follow() -> None:
            async for entry in bench.other(store).journal(run_id, follow=True):
                seen.append(entry.type)

        reader = asyncio.create_task(follow())
        await store.append(run_id, note(run_id))
        await store.set_state(run_id, RunState.RUNNING)
        await store.finish(run_id, RunState.COMPLETED)
        async with asyncio.timeout(20):
            await reader
        assert seen == ["run.created", "custom", "run.state", "run.state"]

    async def test_following_a_sealed_journal_ends_with_late_entries(
        self, bench: Workbench, store: RunStore
    ) -> None:
        """A followed journal of a sealed run yields its late entries, and ends."""
        run_id = await bench.run(store)
        await write_a_life(store, run_id)
        async with asyncio.timeout(20):
            entries = [entry async for entry in store.journal(run_id, follow=True)]
        assert (entries[-1].is_late, entries) == (True, await journal_of(store, run_id))

    async def test_the_journal_of_one_run_has_nothing_of_another(
        self, bench: Workbench, store: RunStore
    ) -> None:
        ids = [await bench.run(store) for _ in range(3)]
        for number in range(9):
            await store.append(ids[number % 3], note(ids[number % 3], number))
        for index, run_id in enumerate(ids):
            await store.finish(run_id, RunState.COMPLETED)
            events = await events_of(store, run_id)
            assert numbers(events) == [index, index + 3, index + 6]
            assert {event.run_id for event in events} == {run_id}
