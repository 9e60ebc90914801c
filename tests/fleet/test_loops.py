"""One fleet, several event loops and forked processes: each gets connections of its own."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from typing import Any, cast

import pytest

from murmur_streams import Fleet
from murmur_streams.core.model.errors import StoreConfigurationError
from murmur_streams.fleet.stores import StoreOfLoop
from tests.servers import Space
from tests.warm import ROOT

FORK = """
import asyncio, os, sys
import pytest

from murmur_streams import Fleet
from murmur_streams.core.model.errors import StoreConfigurationError

fleet = Fleet(sys.argv[1], key_prefix=sys.argv[2])

async def submit(*names):
    for name in names:
        await fleet.submit("any", run_id=name)

async def in_a_child():
    async with fleet:
        await submit(*(f"child-{number}" for number in range(20)))

loop = asyncio.new_event_loop()
loop.run_until_complete(submit("before"))
pid = os.fork()
if pid == 0:
    asyncio.run(in_a_child())
    os._exit(0)
loop.run_until_complete(submit(*(f"parent-{number}" for number in range(20))))
_, status = os.waitpid(pid, 0)
loop.run_until_complete(submit("after"))
loop.run_until_complete(fleet.close())
loop.close()
sys.exit(os.waitstatus_to_exitcode(status))
"""


# Python 3.12 warns of any fork beside threads; asyncio keeps some for opening stores.
WARNINGS = ("-W", "error", "-W", "ignore:This process:DeprecationWarning")


def test_a_fleet_serves_one_event_loop_after_another(space: Space) -> None:
    """asyncio.run twice with the same fleet."""
    fleet = Fleet(space.url, key_prefix=space.prefix)

    async def submit(name: str) -> str:
        async with fleet:
            return (await fleet.submit("any", run_id=name)).run_id

    assert [asyncio.run(submit(name)) for name in ("one", "two")] == ["one", "two"]
    assert space.admin.zcard(space.keys.queue("any", 0)) == 2


def test_two_loops_at_the_same_time_have_stores_of_their_own(space: Space) -> None:
    """Each loop gets the same store each time."""
    fleet = Fleet(space.url, key_prefix=space.prefix)
    one, two = asyncio.new_event_loop(), asyncio.new_event_loop()
    try:
        stores = [loop.run_until_complete(fleet.store()) for loop in (one, two, one, two)]
        assert stores[0] is stores[2]
        assert stores[1] is stores[3]
        assert stores[0] is not stores[1]
    finally:
        for loop in (one, two):
            loop.run_until_complete(fleet.close())
            loop.close()


def test_runs_in_memory_belong_to_one_event_loop_at_a_time() -> None:
    """A second loop would get an empty store: it gets an error, until the first loop is closed."""
    fleet = Fleet("memory:")
    one, two = asyncio.new_event_loop(), asyncio.new_event_loop()
    try:
        one.run_until_complete(fleet.submit("any", run_id="a"))
        with pytest.raises(StoreConfigurationError, match="belong to another event loop"):
            two.run_until_complete(fleet.store())
        one.run_until_complete(fleet.close())
        assert two.run_until_complete(fleet.store()).where == "memory:"
    finally:
        two.run_until_complete(fleet.close())
        one.close()
        two.close()


def test_a_forked_child_and_its_parent_do_not_disturb_each_other(space: Space) -> None:
    """Both submit at the same time, without a warning."""
    done = subprocess.run(
        (sys.executable, *WARNINGS, "-c", FORK, space.url, space.prefix),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert space.admin.zcard(space.keys.queue("any", 0)) == 42


async def test_two_threads_may_forget_one_closed_loop_at_once() -> None:
    """Two threads may remove the store of the same closed loop at the same time."""
    stores = StoreOfLoop("redis://127.0.0.1:1", {})

    class Closed:
        """A loop whose end another thread notices at this very moment."""

        def is_closed(self) -> bool:
            stores._opened.clear()
            return True

    gone: Any = Closed()
    stores._opened[os.getpid(), gone] = cast("Any", None)
    await stores.get()
    await stores.close()


async def test_a_fleet_that_was_never_used_has_nothing_to_close() -> None:
    """No connection was made."""
    async with Fleet("redis://127.0.0.1:1") as fleet:
        assert fleet.agents == {}
