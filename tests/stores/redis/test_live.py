"""The live sources: few connections, few commands, and every event exactly once."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import AsyncIterator

import pytest

from murmur_streams.core.model.errors import CursorGapError, CursorResetError
from murmur_streams.core.model.events import RunEvent, RunEventType
from murmur_streams.core.model.states import RunState
from murmur_streams.core.rules.decide import Answer
from murmur_streams.stores.redis.live import hub, sources, tail
from murmur_streams.stores.redis.live.hub import MOST_DIRECT
from murmur_streams.stores.redis.live.sources import DirectSource, FeedSource, Followed
from murmur_streams.stores.redis.store import RedisRunStore
from tests.servers import Space
from tests.stores.faults.waiting import wait_until

SUBSCRIBERS = 200
EVENTS = 400
IDLE_SECONDS = 5.0


@pytest.fixture
async def store(space: Space) -> AsyncIterator[RedisRunStore]:
    async with space.store() as store:
        yield store


@pytest.fixture
async def writer(space: Space) -> AsyncIterator[RedisRunStore]:
    async with space.store() as store:
        yield store


def note(run_id: str, number: int) -> RunEvent:
    return RunEvent(type=RunEventType.CUSTOM, run_id=run_id, name="note", data=number)


async def numbers(store: RedisRunStore, run_id: str) -> list[object]:
    return [event.data async for event in store.stream(run_id)]


def source_of(store: RedisRunStore) -> object:
    return store._tails._live[0]._source


async def wait_for(store: RedisRunStore, followers: int, kind: type) -> None:
    await wait_until(
        lambda: store._tails.followers == followers and isinstance(source_of(store), kind),
        f"{followers} subscribers wait, by {kind.__name__}",
    )


async def idle_runs(store: RedisRunStore, count: int) -> list[str]:
    ids = [f"idle-{number}" for number in range(count)]
    await asyncio.gather(*(store.create(run_id, "t") for run_id in ids))
    return ids


async def cancel(tasks: list[asyncio.Task[list[object]]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_200_subscribers_joining_at_random_see_each_event_once(
    space: Space, store: RedisRunStore, writer: RedisRunStore
) -> None:
    """Half of them read journals, half the feed."""
    dice = random.Random(1)
    await writer.create("run", "t")
    # Half of them in a process that follows many runs, and so reads the feed.
    async with space.store() as by_feed:
        idle = await idle_runs(writer, MOST_DIRECT + 1)
        others = [asyncio.create_task(numbers(by_feed, run_id)) for run_id in idle]
        await wait_for(by_feed, len(others), FeedSource)
        joins = sorted(dice.randrange(EVENTS) for _ in range(SUBSCRIBERS))
        readers: list[asyncio.Task[list[object]]] = []
        for number in range(EVENTS):
            while joins and joins[0] == number:
                joins.pop(0)
                reader = by_feed if len(readers) % 2 else store
                readers.append(asyncio.create_task(numbers(reader, "run")))
            await writer.append("run", note("run", number))
        await writer.finish("run", RunState.COMPLETED)
        seen = await asyncio.gather(*readers)
        assert isinstance(source_of(by_feed), FeedSource)
        await cancel(others)
    assert len(seen) == SUBSCRIBERS
    assert all(each == list(range(EVENTS)) for each in seen)


async def test_a_change_of_the_live_source_loses_no_event(
    store: RedisRunStore, writer: RedisRunStore
) -> None:
    """It changes between journals and feed while events come; none of them comes twice."""
    await writer.create("run", "t")
    idle = await idle_runs(writer, MOST_DIRECT + 1)
    reader = asyncio.create_task(numbers(store, "run"))
    written, sources_seen = 0, set[type]()
    changing = True

    async def write() -> None:
        nonlocal written
        while changing:
            await writer.append("run", note("run", written))
            written += 1

    writing = asyncio.create_task(write())
    for _ in range(6):
        others = [asyncio.create_task(numbers(store, run_id)) for run_id in idle]
        await wait_for(store, len(others) + 1, FeedSource)
        sources_seen.add(type(source_of(store)))
        await cancel(others)
        await wait_for(store, 1, DirectSource)
        sources_seen.add(type(source_of(store)))
    changing = False
    await writing
    await writer.finish("run", RunState.COMPLETED)
    assert await reader == list(range(written))
    assert sources_seen == {DirectSource, FeedSource}


@pytest.mark.slow
async def test_a_thousand_idle_subscriptions_cost_next_to_nothing(
    space: Space, writer: RedisRunStore
) -> None:
    """They share one blocked read and very few commands."""
    idle = await idle_runs(writer, 1_000)
    before = len(space.admin.client_list())
    async with space.store() as store:
        readers = [asyncio.create_task(numbers(store, run_id)) for run_id in idle]
        await wait_for(store, 1_000, FeedSource)
        await wait_until(lambda: is_quiet(space), "every replay is over")
        commands = space.commands()
        await asyncio.sleep(IDLE_SECONDS)
        assert space.commands() - commands < 5 * IDLE_SECONDS
        assert len(space.admin.client_list()) - before <= 8
        await cancel(readers)
        await wait_until(lambda: not store._tails.followers, "everybody left")
        assert not store._tails._live[0]._tasks


async def is_quiet(space: Space) -> bool:
    before = space.commands()
    await asyncio.sleep(0.3)
    return space.commands() == before


async def test_a_wave_of_subscribers_of_one_run_costs_a_few_reads(
    space: Space, store: RedisRunStore, writer: RedisRunStore
) -> None:
    """500 subscribers at once share their reads of the journal."""
    await writer.create("run", "t")
    await writer.append("run", note("run", 0))
    before = space.commands()
    readers = [asyncio.create_task(numbers(store, "run")) for _ in range(500)]
    await wait_until(lambda: store._tails.followers == 500, "everybody follows")
    await writer.finish("run", RunState.COMPLETED)
    assert await asyncio.gather(*readers) == [[0]] * 500
    assert space.commands() - before < 100


async def test_after_a_deleted_feed_followers_read_their_journals(
    space: Space, store: RedisRunStore, writer: RedisRunStore
) -> None:
    """Each follower gets all its events though the feed was deleted."""
    idle = await idle_runs(writer, MOST_DIRECT + 1)
    readers = [asyncio.create_task(numbers(store, run_id)) for run_id in idle]
    await wait_for(store, len(readers), FeedSource)
    space.admin.delete(space.keys.feed(0))
    for run_id in idle:
        await writer.append(run_id, note(run_id, 1))
        await writer.finish(run_id, RunState.COMPLETED)
    assert await asyncio.gather(*readers) == [[1]] * len(idle)


@pytest.mark.parametrize("row", ["run", "journal"])
@pytest.mark.parametrize("count", [1, MOST_DIRECT + 1])
async def test_a_deleted_hash_or_journal_ends_blocked_readers(
    space: Space,
    store: RedisRunStore,
    writer: RedisRunStore,
    monkeypatch: pytest.MonkeyPatch,
    row: str,
    count: int,
) -> None:
    """Readers that block get an error when the run's hash or journal is deleted by hand."""
    monkeypatch.setattr(hub, "EXISTS_SECONDS", 0.2)
    idle = await idle_runs(writer, count)
    seen = {run_id: await first_cursor(writer, run_id) for run_id in idle}
    readers = [asyncio.create_task(after(store, run_id, seen[run_id])) for run_id in idle]
    await wait_for(store, count, DirectSource if count == 1 else FeedSource)
    space.admin.delete(*(getattr(space.keys, row)(run_id) for run_id in idle))
    async with asyncio.timeout(20):
        ends = await asyncio.gather(*readers, return_exceptions=True)
    assert {type(end) for end in ends} == {CursorResetError}
    for run_id in idle:
        space.admin.delete(*space.keys.of_run(run_id))


async def first_cursor(store: RedisRunStore, run_id: str) -> str:
    entry = await anext(aiter(store.journal(run_id)))
    return entry.cursor


async def after(store: RedisRunStore, run_id: str, cursor: str) -> list[object]:
    return [event.data async for event in store.stream(run_id, after=cursor)]


async def test_a_trim_under_a_stalled_feed_reader_is_a_gap(
    space: Space, store: RedisRunStore, writer: RedisRunStore
) -> None:
    """The process is stalled while its feed and the journal are trimmed."""
    idle = await idle_runs(writer, MOST_DIRECT + 1)
    readers = [asyncio.create_task(numbers(store, run_id)) for run_id in idle]
    await wait_for(store, len(readers), FeedSource)
    followed = store._tails._live[0]
    await wait_until(lambda: bool(followed._tasks), "the source reads")
    # Nothing is read while the process stalls: a thread writes, and trims what was written.
    stall(space, idle[0])
    with pytest.raises(CursorGapError) as caught:
        await readers[0]
    resumed = await after(store, idle[0], caught.value.resume_cursor or "")
    assert resumed == list(range(290, 300))
    await cancel(readers[1:])


def stall(space: Space, run_id: str) -> None:
    async def work() -> None:
        async with space.store() as other:
            await other.append(run_id, note(run_id, 0))
            await other.append(run_id, *(note(run_id, number) for number in range(1, 300)))
            await other.finish(run_id, RunState.COMPLETED)
            space.admin.xtrim(space.keys.feed(0), maxlen=5, approximate=False)
            space.admin.xtrim(space.keys.journal(run_id), maxlen=11, approximate=False)

    thread = threading.Thread(target=lambda: asyncio.run(work()))
    thread.start()
    thread.join()


@pytest.mark.fault("F35")
async def test_a_slow_subscriber_costs_bounded_memory(
    store: RedisRunStore, writer: RedisRunStore
) -> None:
    """And it still gets every event."""
    await writer.create("run", "t")
    await writer.append("run", note("run", 0))
    slow = store.stream("run")
    assert (await anext(slow)).data == 0
    for first in range(1, 5_001, 500):
        await writer.append("run", *(note("run", first + number) for number in range(500)))
    await writer.finish("run", RunState.COMPLETED)
    run = store._tails._live[0]._followed["run"]
    await wait_until(lambda: run.last_id.endswith("-5003"), "all of it was delivered")
    assert len(run._tail or ()) == 256
    assert [event.data async for event in slow] == list(range(1, 5_001))


async def test_the_end_of_a_bounded_read_finds_a_deleted_feed(
    space: Space, writer: RedisRunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The feed was deleted and has no new entries, so only the end of the read can find it."""
    monkeypatch.setattr(sources, "BLOCK_SECONDS", 0.2)
    await writer.create("run", "t")
    feed = writer.feed()
    await anext(feed)
    waiting = asyncio.ensure_future(anext(feed))
    space.admin.delete(space.keys.feed(0))
    with pytest.raises(CursorResetError) as caught:
        await waiting
    resumed = writer.feed(after=caught.value.resume_cursor)
    await writer.append("run", note("run", 5))
    assert (await anext(resumed)).entry.fields["data"] == "5"
    await resumed.aclose()


async def test_a_closing_event_in_time_is_not_asked_for(
    store: RedisRunStore, writer: RedisRunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The question when a run is sealed would delay its last event."""
    monkeypatch.setattr(tail, "CLOSING_SECONDS", 60.0)
    asked: list[str] = []
    seal = store._tails.seal

    async def counted(run_id: str) -> Answer:
        asked.append(run_id)
        return await seal(run_id)

    store._tails.seal = counted
    await writer.create("run", "t")
    reader = asyncio.create_task(numbers(store, "run"))
    await wait_for(store, 1, DirectSource)
    await writer.set_state("run", RunState.COMPLETED)
    await wait_until(lambda: store._tails._live[0]._followed["run"].changes > 0, "it has ended")
    await writer.push_event("run", RunEvent(type=RunEventType.AGENT_COMPLETED, run_id="run"))
    assert await reader == [None]
    assert not asked


async def test_without_a_closing_event_the_seal_is_asked_for(space: Space) -> None:
    """The stream of a run that ended while it was followed ends, too."""
    async with space.store(late_event_seconds=0) as store:
        await store.create("run", "t")
        reader = asyncio.create_task(numbers(store, "run"))
        await wait_for(store, 1, DirectSource)
        await store.set_state("run", RunState.COMPLETED)
        assert await reader == []


@pytest.mark.parametrize("kind", [DirectSource, FeedSource])
async def test_a_fault_while_entries_are_taken_ends_subscribers(
    store: RedisRunStore, monkeypatch: pytest.MonkeyPatch, kind: type
) -> None:
    """It happens where the bytes arrive, and must neither be lost nor be tried again for ever."""
    runs = await idle_runs(store, 1 if kind is DirectSource else MOST_DIRECT + 1)
    readers = [asyncio.create_task(numbers(store, run_id)) for run_id in runs]
    await wait_for(store, len(runs), kind)

    def put(*_: object) -> None:
        raise LookupError("a fault")

    monkeypatch.setattr(Followed, "put", put)
    await store.append(runs[0], note(runs[0], 1))
    ends = await asyncio.gather(*readers, return_exceptions=True)
    assert {str(end) for end in ends} == {"a fault"}
