"""The thread of a database: how it hands outcomes to its event loop, and what it leaves behind."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import weakref
from pathlib import Path

import pytest

from murmur_streams.stores.local.engine.database_thread import DatabaseThread


def refuse(*_: object) -> int:
    """The system has no descriptor left."""
    raise OSError(24, "Too many open files")


def descriptors() -> int:
    """How many descriptors this process has open; 0 where the system does not list them."""
    folder = Path("/proc/self/fd")
    return len([*folder.iterdir()]) if folder.exists() else 0


async def outcomes(count: int) -> list[int]:
    """What calls of a thread return, in the order in which the loop gets it."""
    thread, found = DatabaseThread("test", asyncio.get_running_loop()), list[int]()

    async def call(number: int) -> None:
        found.append(await thread.run(lambda: number))

    await asyncio.gather(*map(call, range(count)))
    await thread.stop()
    return found


async def test_outcomes_come_in_order() -> None:
    """Calls are made, and answered, in the order in which they were handed in."""
    assert await outcomes(100) == list(range(100))


async def test_it_works_without_a_counter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system has no eventfd, or none left, asyncio's own way is used."""
    monkeypatch.setattr(os, "eventfd", refuse, raising=False)
    assert await outcomes(100) == list(range(100))


async def test_an_error_on_the_loop_loses_no_other_call() -> None:
    """A call that raises on the loop is logged there; the calls behind it are still made."""
    loop, logged = asyncio.get_running_loop(), list[object]()
    loop.set_exception_handler(lambda _, context: logged.append(context["exception"]))
    thread, error = DatabaseThread("test", loop), ValueError("of this test")

    def fail() -> None:
        raise error

    def hand_in() -> None:
        thread.call_on_loop(fail)

    thread.submit(hand_in)
    assert await thread.run(lambda: 5) == 5
    assert logged == [error]
    await thread.stop()


async def test_a_thread_that_has_ended_leaves_no_descriptor() -> None:
    """Each thread has a descriptor of its own, which goes with it, also without a stop."""
    loop, before = asyncio.get_running_loop(), descriptors()
    for _ in range(5):
        await DatabaseThread("stopped", loop).stop()
        DatabaseThread("left", loop).leave()
    async with asyncio.timeout(5):
        while descriptors() != before:  # noqa: ASYNC110  # the threads end by themselves
            await asyncio.sleep(0.01)


def test_a_closed_loop_drops_what_it_did_not_call() -> None:
    """The thread of a closed loop keeps nothing alive that the loop was still to call."""

    class Outcome:
        """Stands for a store."""

    handed, goes_on = threading.Event(), threading.Event()

    async def work() -> tuple[DatabaseThread, weakref.ref[Outcome]]:
        thread, outcome = DatabaseThread("test", asyncio.get_running_loop()), Outcome()
        known = weakref.ref(outcome)
        given = [outcome]

        def hand_in() -> None:
            goes_on.wait(5)
            thread.call_on_loop(print, given.pop())
            handed.set()

        thread.submit(hand_in)
        return thread, known

    loop = asyncio.new_event_loop()
    thread, known = loop.run_until_complete(work())
    goes_on.set()
    assert handed.wait(5)
    loop.close()
    gc.collect()
    assert known() is None
    thread.leave()
