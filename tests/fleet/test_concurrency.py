"""How many runs a worker executes at once, and that none of them stalls the others."""

from __future__ import annotations

from collections import Counter

import pytest

from murmur_streams import Fleet, RunHandle
from murmur_streams.core.model.states import RunState
from murmur_streams.stores.redis.store import redis_only
from tests.fleet.stage import Stage, wait_until
from tests.fleet.working import working

LEASE_SECONDS = 3.0
LONG_MS = 1.5 * LEASE_SECONDS * 1000


async def states(handles: list[RunHandle[object]]) -> Counter[RunState]:
    """How many runs are in which state."""
    return Counter([(await handle.status()).state for handle in handles])


@pytest.mark.parametrize("agent", ["waits", "waits_blocking"])
async def test_a_worker_executes_as_many_runs_as_its_concurrency(stage: Stage, agent: str) -> None:
    """A worker executes as many runs at a time as its concurrency, and no more."""
    gate = stage.gate()
    handles = [await stage.fleet.submit(agent, {"gate": str(gate)}) for _ in range(9)]
    await stage.ready(stage.start(concurrency=3))

    async def three_run() -> bool:
        return (await states(handles))[RunState.RUNNING] == 3

    await wait_until(three_run, "three runs are executed")
    gate.touch()
    for handle in handles:
        await handle.output(timeout=30)
    assert await stage.check(handles) == [1] * 9
    assert await most_at_once(stage, handles) == 3


async def most_at_once(stage: Stage, handles: list[RunHandle[object]]) -> int:
    """The largest number of runs that were running at the same moment, by the feed's order."""
    store = redis_only(await stage.fleet.store())
    running, most, wanted = set[str](), 0, {handle.run_id for handle in handles}
    for _, flat in await store._server.read("XRANGE", store._keys.feed(0), "-", "+"):
        fields = dict(zip(*[iter(part.decode() for part in flat)] * 2, strict=True))
        if fields["type"] != "run.state" or fields["run"] not in wanted:
            continue
        if fields["state"] == RunState.RUNNING:
            running.add(fields["run"])
        else:
            running.discard(fields["run"])
        most = max(most, len(running))
    return most


@pytest.mark.parametrize("agent", ["waits_blocking", "burns"])
async def test_blocking_agents_keep_their_leases(stage: Stage, agent: str) -> None:
    """Handlers that wait or compute in threads do not stop heartbeats or other runs."""
    gate = stage.gate()
    await stage.ready(stage.start(lease_seconds=LEASE_SECONDS, concurrency=4))
    await stage.ready(stage.start(lease_seconds=LEASE_SECONDS, concurrency=4))
    long = [await stage.fleet.submit(agent, {"gate": str(gate)}) for _ in range(3)]
    for handle in long:
        await stage.in_state(handle, RunState.RUNNING, attempt=1)
    short = [await stage.fleet.submit("counts", {"steps": 3}) for _ in range(20)]
    for handle in short:
        await handle.output(timeout=30)
    began_ms = max([(await handle.snapshot()).started_ms or 0 for handle in long])

    async def is_longer_than_a_lease() -> bool:
        seconds, _ = await redis_only(await stage.fleet.store())._server.read("TIME")
        return int(seconds) * 1000 > began_ms + LONG_MS

    await wait_until(is_longer_than_a_lease, "the long ones need their heartbeats")
    gate.touch()
    for handle in long:
        await handle.output(timeout=30)
    assert await stage.check([*long, *short]) == [1] * 23


async def test_an_agent_may_close_the_fleet_that_its_worker_uses(fleet: Fleet) -> None:
    """``async with fleet`` in an agent, as in every example, leaves the worker its store."""

    @fleet.agent
    async def parent(number: int) -> int:
        async with fleet:
            return await (await fleet.submit("fine", number)).output(timeout=30)

    async with working(fleet):
        assert await (await fleet.submit("parent", 1)).output(timeout=30) == 2
        assert await (await fleet.submit("fine", 2)).output(timeout=30) == 3
