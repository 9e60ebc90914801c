"""A store lets go of its file and its threads, however it is left."""

from __future__ import annotations

import asyncio
import gc
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from murmur_streams import StoreClosedError
from murmur_streams.testing.workbench import Subscriber, note, wait_until
from tests.stores.local.stores import Open


def threads() -> list[str]:
    """Those of stores on disk."""
    names = [thread.name for thread in threading.enumerate()]
    return [name for name in names if name.startswith(("read ", "write "))]


async def test_a_close_that_is_cancelled_closes_all_the_same(open_again: Open) -> None:
    """The file can be opened again, and no thread of the store is left."""
    store = open_again()
    await store.create("run", "target")
    closing = asyncio.create_task(store.close())
    await asyncio.sleep(0)
    closing.cancel()
    await asyncio.gather(closing, return_exceptions=True)
    await store.close()
    assert threads() == []
    async with open_again() as again:
        assert (await again.snapshot("run")).version == 1


async def test_every_close_returns_when_the_file_is_closed(open_again: Open) -> None:
    """Three closes at once all wait for the same end."""
    store = open_again()
    await store.create("run", "target")
    await asyncio.gather(store.close(), store.close(), store.close())
    assert threads() == []


async def test_closing_needs_no_thread_of_the_programs(open_again: Open) -> None:
    """The default executor is full, and the store closes nevertheless."""
    may_end = threading.Event()
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(1) as pool:
        loop.set_default_executor(pool)
        busy = loop.run_in_executor(None, may_end.wait)
        try:
            store = open_again()
            await store.create("run", "target")
            await store.close()
            assert threads() == []
        finally:
            may_end.set()
            await busy


def test_a_store_whose_loop_ended_is_closed_by_another(open_again: Open) -> None:
    """A store of a finished asyncio.run can be closed and opened in the next one."""
    store = open_again()

    async def use() -> None:
        await store.create("run", "target")

    async def close_and_open() -> int:
        await store.close()
        with pytest.raises(StoreClosedError):
            await store.get_status("run")
        await wait_until(lambda: threads() == [], "the file is let go of")
        async with open_again() as again:
            return (await again.snapshot("run")).version

    asyncio.run(use())
    assert asyncio.run(close_and_open()) == 1


async def test_a_close_from_another_loop_is_done_on_its_own(open_again: Open) -> None:
    """It is handed over to the event loop that the store belongs to."""
    store = open_again()
    await store.create("run", "target")
    await asyncio.to_thread(lambda: asyncio.run(store.close()))
    assert threads() == []
    async with open_again() as again:
        assert (await again.snapshot("run")).version == 1


def test_a_store_that_was_forgotten_lets_go_of_its_file(open_again: Open) -> None:
    """A store that was collected without a close does not block its file."""

    async def use() -> None:
        await open_again().create("run", "target")

    def is_let_go() -> bool:
        # Its threads may have held it when it was collected before.
        gc.collect()
        return threads() == []

    async def again() -> int:
        await wait_until(is_let_go, "the file is let go of")
        async with open_again() as store:
            return (await store.snapshot("run")).version

    asyncio.run(use())
    assert asyncio.run(again()) == 1


async def test_subscribers_who_come_and_go_leave_nothing_behind(open_again: Open) -> None:
    """Fifty short subscriptions beside a long one leave neither waiters nor counts."""
    async with open_again() as store:
        await store.create("run", "target")
        await store.append("run", note("run", 1))
        stays = Subscriber(store.stream("run"))
        await stays.until(1)
        for _ in range(50):
            goes = Subscriber(store.stream("run"))
            await goes.until(1)
            await goes.cancel()
        followed = store._tails._followed["run"]
        assert len(followed._waiting) <= 1
        assert followed.subscribers == 1
        await stays.cancel()
        assert store._tails.following == 0
