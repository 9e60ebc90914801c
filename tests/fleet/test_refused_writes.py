"""A server that takes no write for a while: no run fails for that, it is done again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from murmur_streams import Fleet, RunContext
from murmur_streams.core.errors import StoreError, StoreFullError, StoreReadOnlyError
from murmur_streams.core.states import RunState
from murmur_streams.fleet.worker.leases import heartbeat_seconds
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


async def is_done_again(fleet: Fleet, agent: Callable[..., Any]) -> None:
    """Execute a run of the agent: the first attempt is lost, and the second completes it."""
    async with working(fleet, lease_seconds=1) as worker:
        handle = await fleet.submit(agent)
        assert await handle.output(timeout=30) == 2
        assert worker.counts["left"] == 1
    run = await handle.snapshot()
    assert (run.state, run.attempt, run.failures) == (RunState.COMPLETED, 2, 0)


@by_error
async def test_an_output_that_the_server_does_not_take_is_no_failure(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, error: StoreError
) -> None:
    @fleet.agent
    async def counts(run: RunContext) -> int:
        return run.attempt

    refuse_once(monkeypatch, "finish", error)
    await is_done_again(fleet, counts)


@by_error
@pytest.mark.parametrize("awaited", [False, True])
async def test_an_event_that_the_server_does_not_take_is_no_failure(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, error: StoreError, *, awaited: bool
) -> None:
    @fleet.agent
    async def emits(run: RunContext) -> int:
        written = run.emit("an event")
        if awaited:
            await written
        return run.attempt

    refuse_once(monkeypatch, "append", error)
    await is_done_again(fleet, emits)


@pytest.mark.parametrize(
    ("lease_seconds", "live_ttl_ms", "seconds"), [(15, 0, 5), (15, 3_000, 1), (3, 60_000, 1)]
)
def test_heartbeats_come_before_lease_and_run_are_over(
    lease_seconds: float, live_ttl_ms: int, seconds: float
) -> None:
    assert heartbeat_seconds(lease_seconds, live_ttl_ms) == seconds
