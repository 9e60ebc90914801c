"""SystemExit and KeyboardInterrupt do not end the loop that all blocking callers share."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest

from murmur_streams import Fleet
from murmur_streams.core.model.states import RunState
from tests.fleet.stage import PATIENCE_SECONDS

ENDINGS = [SystemExit(4), KeyboardInterrupt("by hand")]


@pytest.fixture
def fleet() -> Fleet:
    """One that needs no server."""
    return Fleet("redis://127.0.0.1:1")


async def one() -> int:
    return 1


@pytest.mark.parametrize("error", ENDINGS)
def test_the_caller_gets_it_and_the_others_go_on(fleet: Fleet, error: BaseException) -> None:
    """SystemExit in one blocking call reaches its caller; another call goes on waiting."""

    async def make() -> tuple[asyncio.Event, asyncio.Event]:
        return asyncio.Event(), asyncio.Event()

    begun, gate = fleet.sync.run(make)

    async def waits() -> str:
        begun.set()
        await gate.wait()
        return "waited"

    async def raises() -> None:
        raise error

    async def opens() -> None:
        gate.set()

    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(fleet.sync.run, waits)
        fleet.sync.run(begun.wait)
        with pytest.raises(type(error), match=str(error)):
            fleet.sync.run(raises)
        fleet.sync.run(opens)
        assert other.result(PATIENCE_SECONDS) == "waited"
    assert fleet.sync.run(one) == 1


@pytest.mark.parametrize("error", ENDINGS)
def test_an_exit_that_is_not_awaited_ends_nothing(fleet: Fleet, error: BaseException) -> None:
    """An exit in a callback of the shared loop leaves the loop working."""

    async def leaves_it() -> None:
        def raises() -> None:
            raise error

        asyncio.get_running_loop().call_soon(raises)

    fleet.sync.run(leaves_it)
    assert fleet.sync.run(one) == 1


@pytest.mark.parametrize("error", ENDINGS)
async def test_an_inline_agent_that_raises_it_has_failed(
    fleet: Fleet, error: BaseException
) -> None:
    """The exception is the result of the run, with and without a loop of the caller."""

    @fleet.agent
    async def ends() -> None:
        raise error

    done = await fleet.run_inline(ends)
    assert (done.state, done.result.error) == (RunState.FAILED, error)
    done = await asyncio.to_thread(fleet.sync.run_inline, ends)
    assert (done.state, done.result.error) == (RunState.FAILED, error)
