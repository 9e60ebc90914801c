"""close() ends every waiting call, frees everything, and may be called again."""

from __future__ import annotations

import asyncio

import pytest
from redis.asyncio import Redis

from murmur_streams.core.model.errors import OutcomeUnknownError, StoreClosedError
from murmur_streams.stores.redis.store import RedisRunStore
from murmur_streams.testing.faults import Fault, FaultProxy, always, calls, commands
from tests.stores.faults.conftest import StoreMaker
from tests.stores.faults.events import names_in_journal, names_in_stream, note
from tests.stores.faults.waiting import wait_for_subscribers, wait_until


@pytest.fixture
async def run(store: RedisRunStore) -> str:
    await store.create("run", "work")
    await store.append("run", note("run", "first"))
    return "run"


async def test_a_close_wakes_subscribers_with_an_error(
    store: RedisRunStore, run: str, admin: Redis, proxy: FaultProxy
) -> None:
    """Each gets StoreClosedError, and all connections are closed."""
    readers = [asyncio.create_task(names_in_stream(store, run)) for _ in range(10)]
    await wait_for_subscribers(store, admin, 10)
    await store.close()
    ends = await asyncio.gather(*readers, return_exceptions=True)
    assert {type(end) for end in ends} == {StoreClosedError}
    await wait_until(lambda: proxy.connections == 0, "every connection is closed")


async def test_closing_twice_and_at_the_same_time_is_closing_once(store: RedisRunStore) -> None:
    """Two closes at once, and one more, raise nothing."""
    await store.create("run", "work")
    await asyncio.gather(store.close(), store.close())
    await store.close()


async def test_a_closed_store_refuses_every_call(store: RedisRunStore, run: str) -> None:
    """Reads, writes, streams and sweeps raise StoreClosedError."""
    await store.close()
    for call in (
        store.append(run, note(run, "late")),
        store.get_status(run),
        store.snapshot(run),
        store.create("another", "work"),
        names_in_stream(store, run),
        store.sweep(),
    ):
        with pytest.raises(StoreClosedError):
            await call


async def test_writes_under_way_are_finished_first(
    store: RedisRunStore, run: str, proxy: FaultProxy, straight: RedisRunStore
) -> None:
    """Writes that were called before the close are all applied."""
    proxy.plan = always(Fault.DELAY, calls())
    writes = [asyncio.create_task(store.append(run, note(run, str(n)))) for n in range(10)]
    await asyncio.sleep(0)
    await store.close()
    assert [await write for write in writes] == list(range(3, 13))
    assert await names_in_journal(straight, run) == ["first", *(str(n) for n in range(10))]


async def test_a_close_makes_unfinished_writes_unknown(
    store: RedisRunStore, run: str, proxy: FaultProxy
) -> None:
    """The caller of a write that could not be finished gets OutcomeUnknownError."""
    proxy.plan = always(Fault.DROP_REQUEST, calls())
    writes = [asyncio.create_task(store.append(run, note(run, str(n)))) for n in range(3)]
    await wait_until(lambda: bool(proxy.seen), "a write was sent")
    await store._writer.close(seconds=0.05)
    ends = await asyncio.gather(*writes, return_exceptions=True)
    assert {type(end) for end in ends} == {OutcomeUnknownError}
    with pytest.raises(StoreClosedError):
        await store.append(run, note(run, "later"))


async def test_a_close_ends_reads_that_are_being_retried(
    store: RedisRunStore, run: str, proxy: FaultProxy
) -> None:
    """A read in the middle of its retries raises StoreClosedError at once."""
    proxy.plan = always(Fault.DROP_REPLY, commands("HMGET"))
    read = asyncio.create_task(store.get_status(run))
    await wait_until(lambda: len(proxy.seen) > 2, "the read is being retried")
    await store.close()
    with pytest.raises(StoreClosedError):
        await read
    await wait_until(lambda: proxy.connections == 0, "every connection is closed")


async def test_a_close_ends_callers_waiting_for_the_first_connection(
    store: RedisRunStore, proxy: FaultProxy
) -> None:
    """Callers that wait for the check of the server get StoreClosedError."""
    proxy.plan = always(Fault.DROP_REQUEST, commands("INFO"))
    reads = [asyncio.create_task(store.get_status("run")) for _ in range(3)]
    await wait_until(lambda: bool(proxy.seen), "the server is being checked")
    await store.close()
    ends = await asyncio.gather(*reads, return_exceptions=True)
    assert {type(end) for end in ends} == {StoreClosedError}


async def test_cancelled_subscribers_do_not_disturb_others(
    store: RedisRunStore, run: str, admin: Redis
) -> None:
    """Nine of ten are cancelled, and the last one gets all its events."""
    readers = [asyncio.create_task(names_in_stream(store, run)) for _ in range(10)]
    await wait_for_subscribers(store, admin, 10)
    for reader in readers[:9]:
        reader.cancel()
    await asyncio.gather(*readers[:9], return_exceptions=True)
    await wait_for_subscribers(store, admin, 1)
    await store.append(run, note(run, "second"))
    await store.delete(run, force=True)
    assert await readers[9] == ["first", "second"]


@pytest.mark.fault("F7")
async def test_cancelled_readers_leave_no_slot_of_the_pool_taken(
    store: RedisRunStore, run: str
) -> None:
    """After many cancelled reads every connection is free again."""
    for turn in range(60):
        reads = [asyncio.create_task(store.get_status(run)) for _ in range(40)]
        for _ in range(turn % 12):
            await asyncio.sleep(0)
        for read in reads:
            read.cancel()
        await asyncio.gather(*reads, return_exceptions=True)
    assert len(store._server.nodes.all[0].commands._lent) == 0
    statuses = await asyncio.gather(*(store.get_status(run) for _ in range(64)))
    assert {status.run_id for status in statuses} == {run}


async def test_a_cancellation_during_close_stays_a_cancellation(
    store: RedisRunStore, run: str, proxy: FaultProxy
) -> None:
    """The cancelled caller gets CancelledError, not an error of the close."""
    proxy.plan = always(Fault.DROP_REQUEST, calls())
    write = asyncio.create_task(store.append(run, note(run, "a")))
    await wait_until(lambda: bool(proxy.seen), "a write was sent")
    write.cancel()
    await store._writer.close(seconds=0.0)
    with pytest.raises(asyncio.CancelledError):
        await write


@pytest.mark.fault("F7")
async def test_a_cancelled_first_caller_leaves_a_usable_store(
    proxy: FaultProxy, make_store: StoreMaker
) -> None:
    """The check of the server that its call has begun ends without it, and counts."""
    store = make_store(proxy.url)
    proxy.stall()
    first = asyncio.create_task(store.create("first", "work"))
    await wait_until(lambda: proxy.connections > 0, "the check is under way")
    first.cancel()
    await asyncio.wait([first])
    proxy.resume()

    def is_checked() -> bool:
        check = store._server._ready
        return check is not None and check.done()

    await wait_until(is_checked, "the check has ended")
    await store.create("run", "work")
    assert (await store.snapshot("run")).version == 1
