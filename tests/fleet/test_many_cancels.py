"""A thousand cancels, at certain moments and at random ones: none is lost."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Any

import pytest

from murmur_streams import Backoff, Cancellation, Fleet, RunContext, RunHandle
from murmur_streams.core.model.entries import EntryType
from murmur_streams.core.model.states import RunState
from tests.fleet.stage import wait_until
from tests.fleet.working import working

OF_EACH_MOMENT = 100
AT_RANDOM = 700
AT_ONCE = 100
LONGEST_SECONDS = 0.05


def add_agents(fleet: Fleet) -> None:
    """Agents that end soon, late, never, badly, and in a thread."""

    @fleet.agent(retries=2, backoff=Backoff(first_seconds=0.02))
    async def mixed(seconds: float, run: RunContext) -> float:
        run.emit("began")
        await asyncio.sleep(seconds)
        if seconds * 1000 % 3 < 1:
            raise ValueError("by chance")
        return seconds

    @fleet.agent(cancel_grace_seconds=0.01)
    def mixed_in_a_thread(seconds: float, run: RunContext) -> float:
        run.emit("began")
        return seconds

    @fleet.agent
    async def waits() -> None:
        await asyncio.Event().wait()

    @fleet.agent(retries=1, backoff=Backoff(first_seconds=3600, most_seconds=3600))
    async def fails() -> None:
        raise ValueError("always")


async def all_in(handles: Sequence[RunHandle[Any]], state: RunState, attempt: int) -> None:
    """Wait until all these runs are in this state, at this attempt."""
    for handle in handles:

        async def is_in(handle: RunHandle[Any] = handle) -> bool:
            run = await handle.snapshot()
            return (run.state, run.attempt) == (state, attempt)

        await wait_until(is_in, f"run {handle.run_id} is {state}")


async def cancel_all(handles: Sequence[RunHandle[Any]]) -> list[tuple[RunHandle[Any], RunState]]:
    """Cancel them all at once; each with the state that the request was answered with."""
    found = await asyncio.gather(*(handle.cancel() for handle in handles))
    return list(zip(handles, (each.state for each in found), strict=True))


async def at_random(fleet: Fleet, chance: random.Random) -> list[tuple[RunHandle[Any], RunState]]:
    """Cancel runs before pickup, while they start, run, wait for a retry and end, as it comes."""

    async def one(agent: str, seconds: float, until_cancel: float) -> tuple[Any, RunState]:
        handle = await fleet.submit(agent, seconds)
        await asyncio.sleep(until_cancel)
        return handle, (await handle.cancel()).state

    found: list[tuple[RunHandle[Any], RunState]] = []
    for _ in range(AT_RANDOM // AT_ONCE):
        moments = [
            one(
                chance.choice(("mixed", "mixed", "mixed_in_a_thread")),
                chance.uniform(0, LONGEST_SECONDS),
                chance.uniform(0, 2 * LONGEST_SECONDS),
            )
            for _ in range(AT_ONCE)
        ]
        found += await asyncio.gather(*moments)
    return found


async def check(handle: RunHandle[Any], answer: RunState) -> None:
    """Each caller that got the promise of a cancelled run got the truth, as the journal shows."""
    await handle.result(timeout=60)
    run = await handle.snapshot()
    store = await handle._stores.get()
    types = [entry.type async for entry in store.journal(handle.run_id)]
    requests, deliveries = (
        types.count(kind) for kind in (EntryType.CANCEL_REQUESTED, EntryType.CANCEL_DELIVERED)
    )
    report = await store.audit(handle.run_id)
    assert report.ok, report
    if answer in {RunState.COMPLETED, RunState.FAILED}:
        assert (run.state, requests, deliveries) == (answer, 0, 0)
        return
    assert (run.state, requests) == (RunState.CANCELLED, 1)
    assert deliveries <= 1
    found: Cancellation = await handle.cancel()
    assert found.requested is not None
    assert found.stopped is not None
    assert found.how in {"handler", "grace", "pending"}
    if found.how == "pending":
        assert deliveries == 0


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.fault("F31")
async def test_none_of_a_thousand_cancels_is_lost(fleet: Fleet) -> None:
    """The runs are in the queue, before a retry, or running."""
    add_agents(fleet)
    await fleet.pause("fine")
    found: list[tuple[RunHandle[Any], RunState]] = []
    async with working(fleet, concurrency=60), working(fleet, concurrency=60):
        queued = [await fleet.submit("fine", 1) for _ in range(OF_EACH_MOMENT)]
        retried = [await fleet.submit("fails") for _ in range(OF_EACH_MOMENT)]
        running = [await fleet.submit("waits") for _ in range(OF_EACH_MOMENT)]
        await all_in(retried, RunState.PENDING, 1)
        await all_in(running, RunState.RUNNING, 1)
        for handles in (queued, retried, running):
            found += await cancel_all(handles)
        assert {state for _, state in found} <= {RunState.CANCELLED, RunState.RUNNING}
        found += await at_random(fleet, random.Random(20_240_816))
        assert len(found) == 3 * OF_EACH_MOMENT + AT_RANDOM
        for handle, state in found:
            await check(handle, state)
