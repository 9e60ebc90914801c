"""Waiting for the end of a run without its events, and what may happen meanwhile."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from murmur_streams.core.model.errors import RunNotFoundError, StoreClosedError
from murmur_streams.core.model.results import AgentResult, RunResult
from murmur_streams.core.model.states import RunState
from murmur_streams.stores.redis import ends
from murmur_streams.stores.redis.store import RedisRunStore
from murmur_streams.testing import wait_until
from tests.servers import Space

RESULT = AgentResult[Any](output=1, agent_name="work", task_id="run")


def waiting(store: RedisRunStore, seen: list[str]) -> asyncio.Task[RunResult | None]:
    """A caller that waits for ``run``, and notes the states that it hears of."""
    return asyncio.create_task(
        store.result_at_end("run", lambda target, state: seen.append(f"{target} {state}"))
    )


async def blocked(space: Space, clients: int = 1) -> None:
    """Wait until so many clients are in a blocking read."""

    async def are_blocked() -> bool:
        found: Any = space.admin.info("clients")
        return int(found["blocked_clients"]) == clients

    await wait_until(are_blocked, "the callers wait")


@pytest.mark.parametrize("most", [ends.MOST_WAITS, 0])
async def test_a_caller_hears_of_each_state_and_gets_the_result(
    store: RedisRunStore, space: Space, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    """On a connection of its own, and by the source that all readers share."""
    monkeypatch.setattr(ends, "MOST_WAITS", most)
    await store.create("run", "work")
    seen: list[str] = []
    caller = waiting(store, seen)
    await blocked(space)
    await store.set_state("run", RunState.RUNNING)
    await wait_until(lambda: seen == ["work pending", "work running"], "it has heard of the start")
    await store.finish("run", RunState.COMPLETED, result=RESULT)
    assert await caller == RESULT
    assert seen[-1] == "work completed"
    again: list[str] = []
    assert await waiting(store, again) == RESULT
    assert again == ["work completed"]


async def test_an_end_without_a_result_has_none(store: RedisRunStore, space: Space) -> None:
    """A run that was cancelled before it began leaves no result."""
    await store.submit("run", "work")
    caller = waiting(store, [])
    await blocked(space)
    await store.request_cancel("run")
    assert await caller is None


async def test_a_run_that_is_not_there_cannot_be_awaited(
    store: RedisRunStore, space: Space
) -> None:
    """Neither one that never was nor one that is deleted meanwhile, also when the id is reused."""
    with pytest.raises(RunNotFoundError):
        await waiting(store, [])
    await store.create("run", "work")
    caller = waiting(store, [])
    await blocked(space)
    await store.delete("run", force=True)
    await store.create("run", "work")
    with pytest.raises(RunNotFoundError):
        await caller


async def test_a_wait_outlasts_a_broken_connection(store: RedisRunStore, space: Space) -> None:
    """The caller looks at the run again, on a new connection."""
    await store.create("run", "work")
    caller = waiting(store, [])
    for _ in range(3):
        await blocked(space)
        space.admin.client_kill_filter(_type="normal", skipme=True)
    await store.finish("run", RunState.COMPLETED, result=RESULT)
    assert await caller == RESULT


async def test_a_wait_ends_with_its_store(space: Space) -> None:
    """The caller gets a StoreClosedError."""
    async with space.store() as store:
        await store.create("run", "work")
        caller = waiting(store, [])
        await blocked(space)
    with pytest.raises(StoreClosedError):
        await caller
