"""Blocking work is done by the store's own threads, and they end with the store."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import psutil
import pytest

from murmur_streams import AgentResult, RunState
from murmur_streams.stores.local.engine.database import Database, Reader
from murmur_streams.stores.local.engine.file_store import FileRunStore
from murmur_streams.testing.workbench import Subscriber, note, wait_until
from tests.stores.local.stores import Open, access_of, file_of

BLOCKING = [
    name for protocol in (Database, Reader) for name in vars(protocol) if not name.startswith("_")
]


def watch(target: Any, threads: set[threading.Thread]) -> None:
    """Note in which thread each of the target's blocking methods is called."""

    def noting(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            threads.add(threading.current_thread())
            return method(*given, **named)

        return call

    for name in BLOCKING:
        if hasattr(target, name):
            setattr(target, name, noting(getattr(target, name)))


async def live(store: FileRunStore) -> None:
    """Do everything that touches the file."""
    await store.create("run", "target", input={"a": 1})
    subscriber = Subscriber(store.stream("run"))
    await store.append("run", note("run", 1))
    await subscriber.until(1)
    result = AgentResult[Any](output=1, agent_name="target", task_id="t")
    await store.finish("run", RunState.COMPLETED, result=result)
    await subscriber.ended()
    await store.get_status("run")
    await store.get_input("run")
    await store.get_result("run")
    await store.snapshot("run")
    await store.list_runs(target="target")
    await store.last_entries("run", 3)
    assert (await store.audit("run")).ok
    await store.rebuild("run")
    archive = await store.archive("run")
    await store.delete("run")
    await store.restore(archive)
    await store.sweep()
    await store.check_feed_cursor(await first_cursor(store))


async def first_cursor(store: FileRunStore) -> str:
    feed = store.feed()
    entry = await anext(feed)
    await feed.aclose()
    return entry.cursor


async def test_nothing_that_blocks_is_called_on_the_event_loop(
    open_again: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each call of the database runs in a thread of the store, and the threads end with it."""
    threads: set[threading.Thread] = set()
    store = open_again()
    opening = store._open_database

    def open_database() -> Database:
        threads.add(threading.current_thread())
        database: Any = opening()
        reader_of = database.reader

        def reader() -> Reader:
            made = reader_of()
            watch(made, threads)
            return made

        database.reader = reader
        watch(database, threads)
        return database

    monkeypatch.setattr(access_of(store), "open_database", open_database)
    async with store:
        await live(store)
    assert threads
    assert threading.main_thread() not in threads
    assert not any(thread.is_alive() for thread in threads), "they end with the store"


async def test_the_event_loop_goes_on_while_a_commit_takes_long(store: FileRunStore) -> None:
    """During a slow commit the loop answers reads."""
    await store.create("run", "target")
    database: Any = (await file_of(store)).writer.database
    commit, is_committing, may_go_on = database.commit, threading.Event(), threading.Event()

    def slow(changes: Any) -> Any:
        is_committing.set()
        assert may_go_on.wait(20), "the event loop was blocked by the commit"
        return commit(changes)

    database.commit = slow
    write = asyncio.create_task(store.append("run", note("run", 1)))
    await wait_until(is_committing.is_set, "the commit has begun")
    # The reader's thread is another one.
    assert (await store.get_status("run")).state is RunState.PENDING
    assert not write.done()
    may_go_on.set()
    assert await write == 2


async def test_many_stores_leave_no_thread_and_no_open_file(open_again: Open) -> None:
    """Fifty stores, opened and closed, leave the process as it was."""
    process = psutil.Process()
    async with open_again() as store:
        await store.create("run", "target")
    files = process.num_fds()
    for _ in range(50):
        async with open_again() as store:
            await store.get_status("run")
    named = [thread.name for thread in threading.enumerate()]
    assert [name for name in named if name.startswith(("read ", "write "))] == []
    assert process.num_fds() <= files
