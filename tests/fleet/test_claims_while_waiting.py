"""A claim that the server makes in the moment in which an idle worker's wait ends."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from typing import Any

import pytest

from murmur_streams import Fleet
from murmur_streams.core.model.states import RunState
from murmur_streams.core.model.work import Claimed, TargetRule
from murmur_streams.stores.bell import Bell
from murmur_streams.stores.redis.queue import Queue
from murmur_streams.stores.redis.store import RedisRunStore
from murmur_streams.testing import wait_until
from tests.fleet.working import working
from tests.servers import Space, forget_scripts

WORK = [TargetRule("work")]


@pytest.fixture
async def store(space: Space) -> AsyncIterator[RedisRunStore]:
    """A store in the test's key space."""
    async with space.store() as store:
        yield store


@pytest.fixture
async def queue(store: RedisRunStore) -> Queue:
    """A queue that is ready for a worker of ``work``."""
    queue = store.queue(lease_seconds=60)
    await queue.prepare(["work"])
    return queue


def waiting(queue: Queue, bell: Bell, seconds: float = 30, count: int = 2) -> asyncio.Task[Claimed]:
    """A worker that waits for work."""
    claim = queue.wait_and_claim("worker", WORK, count, "host", seconds=seconds, bell=bell)
    return asyncio.create_task(claim)


async def until_blocked(space: Space, clients: int = 1) -> None:
    """Wait until so many clients are in a blocking read."""

    async def are_blocked() -> bool:
        found: Any = space.admin.info("clients")
        return int(found["blocked_clients"]) == clients

    await wait_until(are_blocked, "the worker waits")


async def test_a_submission_is_claimed_by_the_wait(
    store: RedisRunStore, queue: Queue, space: Space
) -> None:
    """The worker has the run with its wake-up."""
    claim = waiting(queue, Bell())
    await until_blocked(space)
    await store.submit("run", "work", input=1)
    (found,) = (await claim).claims
    assert (found.run_id, found.attempt, found.input_json) == ("run", 1, "1")


async def test_a_wait_that_is_over_looks_at_the_queue(
    store: RedisRunStore, queue: Queue, space: Space
) -> None:
    """A run whose token was lost is found when the time is over."""
    await store.submit("run", "work")
    space.admin.xtrim(space.keys.wake("work", 0), maxlen=0)
    found = await waiting(queue, Bell(), seconds=0.05)
    assert [claim.run_id for claim in found.claims] == ["run"]
    assert (await waiting(queue, Bell(), seconds=0.05)).claims == []


async def test_a_wait_that_was_ended_early_claims_nothing(
    store: RedisRunStore, queue: Queue, space: Space
) -> None:
    """The server drops the claim of a worker that does not wait any more."""
    bell = Bell()
    claim = waiting(queue, bell)
    await until_blocked(space)
    bell.ring()
    assert await asyncio.wait_for(claim, 5) == Claimed([], 0.0)
    await until_blocked(space, clients=0)
    await store.submit("run", "work")
    assert (await store.get_status("run")).state is RunState.PENDING


async def test_no_claim_is_lost_when_a_wait_is_ended(
    store: RedisRunStore, queue: Queue, space: Space
) -> None:
    """However a token and the end of the wait meet: a run that was started is in the answer."""
    for number in range(60):
        bell, run_id = Bell(), secrets.token_hex(4)
        claim = waiting(queue, bell)
        await until_blocked(space)
        submission = asyncio.create_task(store.submit(run_id, "work"))
        for _ in range(number % 12):
            await asyncio.sleep(0)
        bell.ring()
        found = [each.run_id for each in (await claim).claims]
        await submission
        is_started = (await store.get_status(run_id)).state is RunState.RUNNING
        assert found == ([run_id] if is_started else [])
        if not is_started:
            assert len((await queue.claim("worker", WORK, 1)).claims) == 1
        space.admin.xtrim(space.keys.wake("work", 0), maxlen=0)


async def test_a_claim_counts_although_its_wait_failed(
    store: RedisRunStore, queue: Queue, space: Space
) -> None:
    """Without its wake-up stream the worker gets the run, and makes the stream again."""
    await store.submit("run", "work")
    space.admin.delete(space.keys.wake("work", 0))
    found = await waiting(queue, Bell())
    assert [claim.run_id for claim in found.claims] == ["run"]
    assert (await waiting(queue, Bell())).claims == []
    assert space.admin.exists(space.keys.wake("work", 0)) == 1


async def test_a_wait_without_loaded_scripts_asks_for_a_claim(
    store: RedisRunStore, queue: Queue, space: Space
) -> None:
    """After a restart of the server the next claim loads them."""
    await store.submit("run", "work")
    forget_scripts(space.admin)
    assert await waiting(queue, Bell()) == Claimed([], 0.0)
    assert len((await queue.claim("worker", WORK, 1)).claims) == 1


async def test_an_agent_begins_before_its_worker_waits_again(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sending the next wait takes longer than the rest of a start."""
    waits, when_begun = list[str](), list[list[str]]()

    async def noted(self: Queue, *args: Any, **options: Any) -> Claimed:
        waits.append("begun")
        try:
            return await wait_and_claim(self, *args, **options)
        finally:
            waits.append("ended")

    wait_and_claim = Queue.wait_and_claim
    monkeypatch.setattr(Queue, "wait_and_claim", noted)

    @fleet.agent
    async def note() -> None:
        when_begun.append(waits[-1:])

    async with working(fleet, lease_seconds=3600):
        await wait_until(lambda: waits[-1:] == ["begun"], "the worker waits")
        await (await fleet.submit(note)).output(timeout=30)
    assert when_begun == [["ended"]]
