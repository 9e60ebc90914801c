"""The contract of reading: replay, follow, resume, journal; nothing missed, nothing twice."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import replace
from typing import Any, cast

import pytest

from murmur_streams.core.model.entries import Cursor, JournalEntry
from murmur_streams.core.model.errors import CursorResetError, InvalidCursorError
from murmur_streams.core.model.events import RunEvent
from murmur_streams.core.model.states import RunProgress, RunState
from murmur_streams.stores.protocol import RunStore
from murmur_streams.testing import workbench
from murmur_streams.testing.fixtures import ContractFixtures
from murmur_streams.testing.workbench import TARGET, Workbench, note

MANY = 10_000
SUBSCRIBERS = 50
MALFORMED: list[object] = [
    *["", "0", "$", "-", "+", "5-1", "x" * 100_000, "\udc80"],
    *["abcdefgh-5-1", "ABCDEF01-5-1", " abcdef01-5-1", "abcdef01-5-1\n"],
    *["abcdef01-5", "abcdef01-5-1-1", "abcdef01--5-1"],
    *["abcdef01-\u0665-1", "abcdef01-" + "9" * 16 + "-1"],
    *[b"abcdef01-5-1", 5, True],
]
WRONG: dict[str, Callable[[Cursor], Cursor]] = {
    "1 after the end": lambda cursor: replace(cursor, seq=cursor.seq + 1),
    "2 after the end": lambda cursor: replace(cursor, seq=cursor.seq + 2),
    "1000 after the end": lambda cursor: replace(cursor, seq=cursor.seq + 1000),
    "an earlier entry of its seq": lambda cursor: replace(cursor, ms=cursor.ms - 1),
    "a later entry of its seq": lambda cursor: replace(cursor, ms=cursor.ms + 1),
    "another life": lambda cursor: replace(cursor, epoch="00000000"),
}
"""Cursors that are well formed and not of this run."""


async def write_a_life(store: RunStore, run_id: str) -> None:
    """Leave entries of all kinds, with events between them and after the end."""
    await store.append(run_id, note(run_id, 0))
    await store.set_state(run_id, RunState.RUNNING)
    await store.append(run_id, note(run_id, 1), note(run_id, 2))
    await store.update_progress(run_id, RunProgress(total=1))
    await store.append(run_id, note(run_id, 3))
    await store.finish(run_id, RunState.COMPLETED, event=workbench.closing(run_id))
    await store.push_event(run_id, note(run_id, 99))


async def rest_of(entries: AsyncIterator[JournalEntry]) -> list[JournalEntry]:
    """Read a followed journal to its end."""
    async with asyncio.timeout(workbench.PATIENCE_SECONDS):
        return [entry async for entry in entries]


class StreamContract(ContractFixtures):
    """Replayed and live streams and journals, of one run and of several."""

    async def test_a_replay_yields_ten_thousand_events(
        self, store: RunStore, other: RunStore, run_id: str
    ) -> None:
        """A replay yields all events, in order."""
        events = workbench.notes(run_id, MANY)
        for first in range(0, MANY, 500):
            await store.append(run_id, *events[first : first + 500])
        await store.finish(run_id, RunState.COMPLETED)
        assert workbench.numbers(await workbench.events_of(other, run_id)) == list(range(MANY))

    async def test_a_stream_follows_its_run(
        self, bench: Workbench, store: RunStore, other: RunStore, run_id: str
    ) -> None:
        """A subscriber sees each event while the run lives, and its stream ends with the run."""
        subscriber = bench.subscribe(other, run_id)
        for number in range(20):
            await store.append(run_id, note(run_id, number))
            await subscriber.until(number + 1)
        assert workbench.numbers(subscriber.seen) == list(range(20))
        await store.finish(run_id, RunState.COMPLETED, event=workbench.closing(run_id))
        assert workbench.kinds(await subscriber.ended()) == ["custom"] * 20 + ["agent_completed"]

    async def test_a_run_without_events_has_none(self, store: RunStore, run_id: str) -> None:
        """The stream of an ended run without events is empty."""
        await store.finish(run_id, RunState.COMPLETED)
        assert await workbench.events_of(store, run_id) == []

    async def test_a_stream_resumes_after_each_entry(
        self, store: RunStore, other: RunStore, run_id: str
    ) -> None:
        """Every reader of an ended run sees the same, and the rest after each event or entry."""
        await write_a_life(store, run_id)
        events, entries = (
            await workbench.events_of(store, run_id),
            await workbench.journal_of(store, run_id),
        )
        assert await workbench.events_of(other, run_id) == events
        for index, event in enumerate(events, start=1):
            assert await workbench.events_of(store, run_id, event.id) == events[index:]
        for index, entry in enumerate(entries, start=1):
            rest = [event for event in events if (event.seq or 0) > entry.seq]
            assert await workbench.events_of(store, run_id, entry.cursor) == rest
            assert await workbench.journal_of(store, run_id, entry.cursor) == entries[index:]

    async def test_a_reader_resumes_after_every_event(self, store: RunStore, run_id: str) -> None:
        """A reader that resumes after every event of a live run sees each event once."""
        seen = list[RunEvent]()

        async def read_one_at_a_time() -> None:
            while len(seen) < 40:
                stream = store.stream(run_id, after=seen[-1].id if seen else None)
                async with aclosing(cast("Any", stream)):
                    seen.append(await anext(stream))

        reader = asyncio.create_task(read_one_at_a_time())
        for number in range(40):
            await store.append(run_id, note(run_id, number))
        async with asyncio.timeout(workbench.PATIENCE_SECONDS):
            await reader
        assert workbench.numbers(seen) == list(range(40))

    async def test_fifty_subscribers_see_every_event(
        self, bench: Workbench, store: RunStore, other: RunStore, run_id: str
    ) -> None:
        """Fifty subscribers that join at random moments each see every event once."""
        joins = sorted(random.Random(7).choices(range(500), k=SUBSCRIBERS))  # noqa: S311  # no secret
        subscribers = [bench.subscribe(store, run_id) for _ in range(2)]
        for number in range(500):
            while joins and joins[0] == number:
                joins.pop(0)
                subscribers.append(bench.subscribe((store, other)[number % 2], run_id))
            await store.append(run_id, note(run_id, number))
        await store.finish(run_id, RunState.COMPLETED, event=workbench.closing(run_id))
        seen = [workbench.numbers(await subscriber.ended()) for subscriber in subscribers]
        assert seen == [list(range(500))] * (SUBSCRIBERS + 2)

    async def test_a_cancelled_subscriber_stops_no_other(
        self, bench: Workbench, store: RunStore, run_id: str
    ) -> None:
        first, second = bench.subscribe(store, run_id), bench.subscribe(store, run_id)
        await store.append(run_id, note(run_id, 0))
        await first.until(1)
        await first.cancel()
        await store.append(run_id, note(run_id, 1))
        await store.finish(run_id, RunState.COMPLETED)
        assert workbench.numbers(await second.ended()) == [0, 1]

    async def test_an_idle_reader_delays_no_caller(self, store: RunStore, run_id: str) -> None:
        """Writes go on while a subscriber does not read; later it reads all of them."""
        await store.append(run_id, note(run_id, 0))
        stream = store.stream(run_id)
        await anext(stream)
        for number in range(1, 1000):
            await store.append(run_id, note(run_id, number))
        await store.finish(run_id, RunState.COMPLETED)
        assert workbench.numbers([event async for event in stream]) == list(range(1, 1000))

    async def test_a_journal_ends_or_follows(
        self, store: RunStore, other: RunStore, run_id: str
    ) -> None:
        """A journal ends with its last entry; one that is followed, with the seal."""
        followed = other.journal(run_id, follow=True)
        first = await anext(followed)
        rest = asyncio.create_task(rest_of(followed))
        await asyncio.sleep(0)
        await store.append(run_id, note(run_id))
        assert workbench.kinds(await workbench.journal_of(store, run_id)) == [
            "run.created",
            "custom",
        ]
        await store.set_state(run_id, RunState.RUNNING)
        await store.finish(run_id, RunState.COMPLETED)
        types = ["run.created", "custom", "run.state", "run.state"]
        assert workbench.kinds([first, *await rest]) == types

    async def test_a_sealed_journal_has_late_entries(self, store: RunStore, run_id: str) -> None:
        """A followed journal of a sealed run yields its late entries, and ends."""
        await write_a_life(store, run_id)
        entries = await rest_of(store.journal(run_id, follow=True))
        assert (entries[-1].is_late, entries) == (True, await workbench.journal_of(store, run_id))

    async def test_a_run_has_only_its_own_events(self, bench: Workbench, store: RunStore) -> None:
        ids = [await bench.run(store) for _ in range(3)]
        for number in range(9):
            await store.append(ids[number % 3], note(ids[number % 3], number))
        for index, run_id in enumerate(ids):
            await store.finish(run_id, RunState.COMPLETED)
            events = await workbench.events_of(store, run_id)
            assert workbench.numbers(events) == [index, index + 3, index + 6]
            assert {event.run_id for event in events} == {run_id}


async def assert_reset(store: RunStore, run_id: str, cursor: object) -> None:
    """Neither the stream nor the journal resumes after the cursor.

    The error may name an entry of the same life of the run from which a reader can go on.
    """
    life, there = Cursor.parse(str(cursor)).epoch, await workbench.journal_of(store, run_id)
    for read in (workbench.events_of, workbench.journal_of):
        with pytest.raises(CursorResetError) as caught:
            await read(store, run_id, str(cursor))
        possible = [entry.cursor for entry in there if entry.epoch == life]
        assert caught.value.resume_cursor in {None, *possible}


class CursorContract(ContractFixtures):
    """Cursors that do not fit are refused; none yields a stream without an error."""

    @pytest.mark.parametrize("text", MALFORMED, ids=lambda text: ascii(text)[:20])
    async def test_a_malformed_cursor_is_refused(
        self, store: RunStore, run_id: str, text: Any
    ) -> None:
        for read in (workbench.events_of, workbench.journal_of):
            with pytest.raises(InvalidCursorError):
                await read(store, run_id, text)

    @pytest.mark.parametrize("ended", [False, True], ids=["live", "ended"])
    @pytest.mark.parametrize("name", WRONG)
    async def test_a_wrong_cursor_is_a_reset(
        self, store: RunStore, run_id: str, name: str, ended: bool
    ) -> None:
        await store.append(run_id, *workbench.notes(run_id, 2))
        if ended:
            await store.finish(run_id, RunState.COMPLETED)
        cursor = Cursor.parse((await workbench.journal_of(store, run_id))[-1].cursor)
        await assert_reset(store, run_id, WRONG[name](cursor))

    async def test_a_cursor_of_another_run_is_a_reset(
        self, bench: Workbench, store: RunStore, run_id: str
    ) -> None:
        (entry,) = await workbench.journal_of(store, run_id)
        await assert_reset(store, await bench.run(store), entry.cursor)

    async def test_a_cursor_of_an_old_life_is_a_reset(self, store: RunStore, run_id: str) -> None:
        (entry,) = await workbench.journal_of(store, run_id)
        await store.delete(run_id, force=True)
        await store.create(run_id, TARGET)
        await store.append(run_id, *workbench.notes(run_id, 2))
        await assert_reset(store, run_id, entry.cursor)

    async def test_a_cursor_before_the_first_entry(self, store: RunStore, run_id: str) -> None:
        """The cursor before the first entry reads from the start."""
        await store.finish(run_id, RunState.COMPLETED, event=note(run_id))
        entries = await workbench.journal_of(store, run_id)
        start = Cursor(entries[0].epoch, entries[0].ms, 0)
        assert await workbench.journal_of(store, run_id, str(start)) == entries
