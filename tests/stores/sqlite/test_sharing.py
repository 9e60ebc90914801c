"""Several processes on one file: no write is lost, and each sees what the others write."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from murmur_streams import RunNotFoundError, SQLiteRunStore, StoreUnavailableError
from murmur_streams.stores.local.engine.database import FeedRow
from murmur_streams.stores.local.sqlite.store import LOOK_SECONDS
from murmur_streams.testing.workbench import Subscriber, journal_of, note, numbers, wait_until
from tests.stores.local.stores import file_of
from tests.warm import ROOT

RUN = "shared"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs.db"


@pytest_asyncio.fixture
async def store(path: Path) -> AsyncIterator[SQLiteRunStore]:
    async with SQLiteRunStore(path) as store:
        await store.create(RUN, "target")
        yield store


async def elsewhere(path: Path, *arguments: object) -> None:
    """Do something in another process, to its end."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.stores.sqlite.sharing_process", str(path)),
        *map(str, arguments),
        cwd=ROOT,
    )
    assert await process.wait() == 0


async def recorded(store: SQLiteRunStore) -> list[object]:
    return numbers([event for each in await journal_of(store, RUN) if (event := each.event())])


async def test_four_processes_append_and_each_event_is_there_once(
    store: SQLiteRunStore, path: Path
) -> None:
    """All write to one run at the same time, and its journal passes the audit."""
    await asyncio.gather(*(elsewhere(path, "append", RUN, 200, 1000 * each) for each in range(4)))
    found = await recorded(store)
    expected = [1000 * each + number for each in range(4) for number in range(200)]
    assert sorted(map(int, map(str, found))) == expected
    assert (await store.audit(RUN)).ok


async def test_an_expected_version_holds_across_processes(
    store: SQLiteRunStore, path: Path
) -> None:
    """Three processes that count up by expected version lose no step."""
    await asyncio.gather(*(elsewhere(path, "count", RUN, 40, 1000 * each) for each in range(3)))
    found = await recorded(store)
    assert len(found) == 120
    assert (await store.snapshot(RUN)).version == 121
    assert (await store.audit(RUN)).ok


async def test_subscribers_see_the_writes_of_another_process(
    store: SQLiteRunStore, path: Path
) -> None:
    """Each of three subscribers gets every event in order, and its stream ends with the run."""
    subscribers = [Subscriber(store.stream(RUN)) for _ in range(3)]
    await store.append(RUN, note(RUN, 0))
    await elsewhere(path, "finish", RUN, 100, 1)
    for subscriber in subscribers:
        assert numbers(await subscriber.ended()) == list(range(101))


async def test_writes_here_and_there_come_in_one_order_without_a_gap(
    store: SQLiteRunStore, path: Path
) -> None:
    """A subscriber sees the entries of two writing processes with dense seqs."""
    subscriber = Subscriber(store.stream(RUN))
    there = asyncio.create_task(elsewhere(path, "append", RUN, 300, 1000))
    here = 0
    while not there.done():
        await store.append(RUN, note(RUN, here))
        here += 1
        await asyncio.sleep(0)
    await there
    await subscriber.until(here + 300)
    assert [event.seq for event in subscriber.seen] == list(range(2, here + 302))
    assert numbers(subscriber.seen) == await recorded(store)
    await subscriber.cancel()


async def test_the_feed_has_the_writes_of_another_process(
    store: SQLiteRunStore, path: Path
) -> None:
    """A reader of the feed gets each entry that another process writes."""
    seen: list[str] = []

    async def read() -> None:
        async for each in store.feed():
            seen.append(each.entry.type)  # noqa: PERF401  # one by one is what is looked at

    reading = asyncio.create_task(read())
    await elsewhere(path, "finish", RUN, 2, 0)
    await wait_until(lambda: "run.state" in seen, "the end is in the feed")
    assert seen == ["run.created", "custom", "custom", "run.state"]
    reading.cancel()


async def test_a_run_that_is_deleted_there_ends_here(store: SQLiteRunStore, path: Path) -> None:
    """A deletion by another process ends the stream in this one."""
    subscriber = Subscriber(store.stream(RUN))
    await store.append(RUN, note(RUN, 1))
    await subscriber.until(1)
    await elsewhere(path, "delete", RUN)
    assert numbers(await subscriber.ended()) == [1]
    with pytest.raises(RunNotFoundError):
        await store.get_status(RUN)


async def test_the_file_is_looked_at_only_while_somebody_waits(store: SQLiteRunStore) -> None:
    """Without subscribers, this process does not look for foreign writes."""
    looks = 0
    file = await file_of(store)
    look = file.reader.has_foreign_writes

    def counted() -> bool:
        nonlocal looks
        looks += 1
        return look()

    file.reader.has_foreign_writes = counted
    for number in range(20):
        await store.append(RUN, note(RUN, number))
        await asyncio.sleep(LOOK_SECONDS / 2)
    assert looks == 0
    subscriber = Subscriber(store.stream(RUN))
    await wait_until(lambda: looks > 3, "it looks while a subscriber waits")
    await subscriber.cancel()
    await store.get_status(RUN)
    before = looks
    await asyncio.sleep(LOOK_SECONDS * 5)
    assert looks == before


async def test_own_writes_are_not_read_again_for_subscribers(
    store: SQLiteRunStore,
) -> None:
    """Fifty events of this process cost at most five reads of the journal."""
    subscriber = Subscriber(store.stream(RUN))
    await store.append(RUN, note(RUN, 0))
    await subscriber.until(1)
    file = await file_of(store)
    reads = 0
    read = file.reader.journal

    def counted(run_id: str, after_seq: int, limit: int) -> object:
        nonlocal reads
        reads += 1
        return read(run_id, after_seq, limit)

    file.reader.journal = counted  # type: ignore[method-assign,assignment]
    for number in range(1, 50):
        await store.append(RUN, note(RUN, number))
        await subscriber.until(number + 1)
    # A look may fall between a commit and the delivery of its entries.
    assert reads <= 5
    await subscriber.cancel()


async def test_foreign_writes_arrive_while_this_process_polls(
    store: SQLiteRunStore, path: Path
) -> None:
    """Constant status reads do not hide the writes of another process from a subscriber."""
    subscriber = Subscriber(store.stream(RUN))
    await wait_until(lambda: store._tails.following == 1, "it follows")

    async def poll() -> None:
        while True:
            await store.get_status(RUN)

    polling = [asyncio.create_task(poll()) for _ in range(3)]
    await elsewhere(path, "append", RUN, 5, 0)
    await subscriber.until(5)
    for each in polling:
        each.cancel()
    await subscriber.cancel()


async def test_subscribers_go_on_after_a_failed_look(store: SQLiteRunStore, path: Path) -> None:
    """A failed look for foreign writes is repeated, and the subscriber gets every event."""
    subscriber = Subscriber(store.stream(RUN))
    await store.append(RUN, note(RUN, 0))
    await subscriber.until(1)
    file = await file_of(store)
    feed, failures = file.reader.feed, [RecursionError("deep"), StoreUnavailableError("busy")]

    def failing(after_n: int, limit: int) -> list[FeedRow]:
        if failures:
            raise failures.pop()
        return feed(after_n, limit)

    file.reader.feed = failing
    for number in (1, 2, 3):
        await elsewhere(path, "append", RUN, 1, number)
        await subscriber.until(number + 1)
    assert failures == []
    assert (await store.get_status(RUN)).state == "pending"
    await subscriber.cancel()
