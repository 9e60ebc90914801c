"""Calls to several servers: a slow one delays no other, and its late result is not lost."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from murmur_streams.core.model.errors import StoreUnavailableError
from murmur_streams.stores.redis.side_by_side import SideBySide

PATIENCE = 0.05


class SlowCall:
    """A call that ends when the test says so, and is counted."""

    def __init__(self, result: str | Exception) -> None:
        self.result = result
        self.ends = asyncio.Event()
        self.begun = 0

    async def __call__(self) -> str:
        """Its result, once it may end."""
        self.begun += 1
        await self.ends.wait()
        if isinstance(self.result, Exception):
            raise self.result
        return self.result


def at_once(result: str | Exception) -> Callable[[], Awaitable[str]]:
    """A call that ends at once."""
    call = SlowCall(result)
    call.ends.set()
    return call


async def ended() -> None:
    """Let the calls that may end do so."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_slow_call_delays_no_other() -> None:
    """The results that are there are returned; the late one is among those of the next call."""
    calls, slow = SideBySide[str](PATIENCE), SlowCall("late")
    assert await calls.gather({"a": at_once("soon"), "b": slow}) == ["soon"]
    slow.ends.set()
    await ended()
    assert sorted(await calls.gather({"a": at_once("again")})) == ["again", "late"]


async def test_a_call_under_way_is_not_made_again() -> None:
    """A frozen server does not collect calls."""
    calls, slow = SideBySide[str](PATIENCE), SlowCall("late")
    for _ in range(3):
        assert await calls.gather({"b": slow}) == []
        assert await calls.ask("b", slow) is None
    assert slow.begun == 1
    slow.ends.set()
    await ended()
    assert calls.late() == ["late"]
    assert calls.late() == []


async def test_one_that_fails_does_not_hide_the_others() -> None:
    """Its error is raised only when no call has a result."""
    calls, gone = SideBySide[str](PATIENCE), StoreUnavailableError("gone")
    assert await calls.gather({"a": at_once("here"), "b": at_once(gone)}) == ["here"]
    with pytest.raises(StoreUnavailableError, match="gone"):
        await calls.gather({"a": at_once(gone), "b": at_once(gone)})


async def test_a_late_error_is_not_that_of_a_later_call() -> None:
    """The next call to the server says what is the case by then."""
    calls, slow = SideBySide[str](PATIENCE), SlowCall(StoreUnavailableError("gone"))
    assert await calls.ask("b", slow) is None
    slow.ends.set()
    await ended()
    assert calls.late() == []
    assert await calls.ask("b", at_once("here")) == "here"


async def test_an_error_of_the_program_is_raised() -> None:
    """Only errors of the store are expected of a server."""
    calls = SideBySide[str](PATIENCE)
    with pytest.raises(ZeroDivisionError):
        await calls.gather({"a": at_once("here"), "b": at_once(ZeroDivisionError())})


async def test_one_call_is_answered_or_late() -> None:
    """``ask`` waits for one server no longer than ``gather``."""
    calls, slow = SideBySide[str](PATIENCE), SlowCall("late")
    assert await calls.ask("a", at_once("soon")) == "soon"
    assert await calls.ask("b", slow) is None
    slow.ends.set()
    await ended()
    assert calls.late() == ["late"]
    with pytest.raises(StoreUnavailableError):
        await calls.ask("a", at_once(StoreUnavailableError("gone")))


async def test_with_one_server_every_call_is_waited_for() -> None:
    """There is nothing to go on with meanwhile; the first error is raised."""
    calls, slow = SideBySide[str](None), SlowCall("slow")
    asking = asyncio.ensure_future(calls.gather({"a": at_once("soon"), "b": slow}))
    await asyncio.sleep(2 * PATIENCE)
    assert not asking.done()
    slow.ends.set()
    assert await asking == ["soon", "slow"]
    assert await calls.ask("a", at_once("one")) == "one"
    with pytest.raises(StoreUnavailableError):
        await calls.gather({"a": at_once("here"), "b": at_once(StoreUnavailableError("gone"))})
