"""A server that takes no write for a while: no run fails for that, it is done again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from murmur_streams import Fleet, RunContext
from murmur_streams.core.errors import StoreError, StoreFullError, StoreReadOnlyError
from murmur_streams.core.states import RunState
from murmur_streams.stores.redis.store import RedisRunStore
from tests.fleet.working import working

REFUSALS = [StoreFullError("out of memory"), StoreReadOnlyError("a replica")]
by_error = pytest.mark.parametrize("error", REFUSALS, ids=lambda error: type(error).__name__)


def refuse_once(monkeypatch: pytest.MonkeyPatch, method: str, error: StoreError) -> None:
    """Let the store refuse the first call of one of its methods."""
    write: Callable[..., Any] = getattr(RedisRunStore, method)
    refused: list[str] = []

    async def refuses(self: RedisRunStore, run_id: str, *given: Any, **named: Any) -> Any:
        if not refused:
            refused.append(run_id)
            raise error
        return await write(self, run_id, *given, **named)

    monkeypatch.setattr(RedisRunStore, method, refuses)


@by_error
@pytest.mark.parametrize("method", ["finish", "append"])
async def test_a_run_whose_write_the_server_refused_is_done_again(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, method: str, error: StoreError
) -> None:
    @fleet.agent
    async def tells(run: RunContext) -> int:
        await run.emit("step")
        return run.attempt

    refuse_once(monkeypatch, method, error)
    async with working(fleet, lease_seconds=1):
        handle = await fleet.submit(tells)
        assert await handle.output(timeout=30) == 2
    assert (await handle.snapshot()).state is RunState.COMPLETED


async def test_a_worker_that_stops_with_a_deleted_run_in_hand_stops_well(fleet: Fleet) -> None:
    began = asyncio.Event()

    @fleet.agent
    async def waits() -> None:
        began.set()
        await asyncio.Event().wait()

    async with working(fleet):
        handle = await fleet.submit(waits)
        await began.wait()
        assert await (await fleet.store()).delete(handle.run_id, force=True)
