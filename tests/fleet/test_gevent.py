"""fleet.sync in a program whose threads gevent has made greenlets of: one event loop for all."""

from __future__ import annotations

import subprocess
import sys

from tests.servers import Space
from tests.warm import ROOT

START = """
from gevent import monkey
monkey.patch_all()
import asyncio, sys
import gevent
import gevent.event
from murmur_streams import Fleet

fleet = Fleet(sys.argv[1], key_prefix=sys.argv[2])


def submit():
    return str(fleet.sync.submit("any", 1).status().state)


async def answer():
    await asyncio.sleep(0.01)
    return 42


def refused(call):
    try:
        call()
    except RuntimeError as error:
        return str(error)
"""


def ran(space: Space, text: str) -> list[str]:
    """The output of a program that gevent has patched."""
    command = [sys.executable, "-c", START + text, space.url, space.prefix]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_greenlets_share_the_background_loop(space: Space) -> None:
    """Calls of many greenlets are answered, and a coroutine of the program runs there, too."""
    text = """
print([greenlet.get() for greenlet in [gevent.spawn(submit) for _ in range(9)]] == ["pending"] * 9)
print(gevent.spawn(lambda: fleet.sync.run(answer)).get())
"""
    assert ran(space, text) == ["True", "42"]


def test_asyncio_run_is_refused_after_fleet_sync(space: Space) -> None:
    """As in docs/fleet.md: asyncio has one loop in a thread, and fleet.sync's is running."""
    text = """
submit()
coroutine = answer()
print(refused(lambda: asyncio.run(coroutine)))
coroutine.close()
print(fleet.sync.run(answer))
"""
    refusal, found = ran(space, text)
    assert "cannot be called from a running event loop" in refusal
    assert found == "42"


def test_fleet_sync_is_refused_during_asyncio_run(space: Space) -> None:
    """A first call that could never be answered raises, and works once the other loop has ended."""
    text = """
begun, over = gevent.event.Event(), gevent.event.Event()


async def runs():
    begun.set()
    while not over.is_set():
        await asyncio.sleep(0.01)


running = gevent.spawn(lambda: asyncio.run(runs()))
begun.wait()
print(refused(submit))
over.set()
running.join()
print(submit())
"""
    refusal, state = ran(space, text)
    assert "fleet.sync cannot start" in refusal
    assert state == "pending"
