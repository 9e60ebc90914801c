"""The order in which runs are claimed: priority, delays, pauses, the most attempts, deadlines."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from murmur_streams.core.model.errors import InvalidInputError, LeaseLostError
from murmur_streams.core.model.states import RunState
from murmur_streams.core.model.work import Claim, TargetRule
from murmur_streams.core.rules.executions import DEADLINE_TEXT
from murmur_streams.stores.redis.queue import Queue
from murmur_streams.stores.redis.store import RedisRunStore
from murmur_streams.testing import wait_until
from tests.servers import Space
from tests.stores.redis.working import (
    WORK,
    claimed,
    entries,
    expire_leases,
    handed_on,
    ids,
    let_an_hour_pass,
    server_ms,
    take,
)


async def test_a_claim_has_all_that_the_execution_needs(store: RedisRunStore, queue: Queue) -> None:
    """Input, deadline, trace, attempt and token of the run."""
    trace = {"traceparent": "00-0af7-b7ad-01", "tracestate": "a=b", "baggage": "x"}
    await store.submit("run", "work", input={"n": 1}, deadline_seconds=3600, trace=trace)
    (claim,) = await take(queue)
    run = await store.snapshot("run")
    assert run.deadline_ms == run.created_ms + 3_600_000
    assert run.trace == {"traceparent": "00-0af7-b7ad-01", "tracestate": "a=b"}
    assert (run.worker, run.host, run.claim) == ("first", "host-1", claim.token)
    assert claim == Claim(
        "run", "work", 1, claim.token, run.version, '{"n":1}', 0, 0, run.deadline_ms, None,
        run.trace, claim.deadline_left_seconds,
    )  # fmt: skip


async def test_the_time_left_to_a_deadline_is_by_the_servers_clock(
    space: Space, store: RedisRunStore, queue: Queue
) -> None:
    """The claim has the seconds from the claim to the deadline; None without one."""
    await store.submit("run", "work", deadline_seconds=3600)
    await store.submit("for-ever", "work")
    before = server_ms(space)
    claims = {claim.run_id: claim for claim in await take(queue, 2)}
    run, for_ever = claims["run"], claims["for-ever"]
    assert run.deadline_ms is not None
    assert run.deadline_left_seconds is not None
    claimed_ms = run.deadline_ms - run.deadline_left_seconds * 1000
    assert before <= round(claimed_ms) <= server_ms(space)
    assert for_ever.deadline_left_seconds is None


async def test_a_run_of_higher_priority_is_taken_first(store: RedisRunStore, queue: Queue) -> None:
    """Claims come in the order of priority."""
    for name, priority in (("low", -5), ("plain", 0), ("high", 5), ("highest", 100)):
        await store.submit(name, "work", priority=priority)
    assert ids(await take(queue, 4)) == ["highest", "high", "plain", "low"]


async def test_a_step_of_priority_is_a_minute_so_that_nothing_starves(
    space: Space, store: RedisRunStore, queue: Queue
) -> None:
    """A run that has waited for an hour comes before a new one of priority 5."""
    await store.submit("old", "work", delay_seconds=3240)
    let_an_hour_pass(space)
    await store.submit("young", "work", priority=5)
    await store.submit("urgent", "work", priority=7)
    assert ids(await take(queue, 3)) == ["urgent", "old", "young"]


async def test_a_moment_that_is_over_is_no_head_start(store: RedisRunStore, queue: Queue) -> None:
    """An at= in the past counts as now."""
    await store.submit("first", "work")
    await store.submit("urgent", "work", priority=100)
    await store.submit("past", "work", at=datetime.now(tz=UTC) - timedelta(days=3650))
    assert (await store.snapshot("past")).due_ms is None
    assert ids(await take(queue, 3)) == ["urgent", "first", "past"]


async def test_a_delayed_run_is_taken_when_it_is_due(store: RedisRunStore, queue: Queue) -> None:
    """An empty claim returns the seconds until then."""
    await store.submit("later", "work", delay_seconds=0.3)
    await store.submit("of-others", "other", delay_seconds=0.1)
    answer = await queue.claim("first", WORK, 1)
    assert answer.claims == []
    assert answer.next_due_seconds is not None
    assert 0 <= answer.next_due_seconds <= 0.3
    found: list[Claim] = []

    async def is_due() -> bool:
        found.extend(await take(queue))
        return bool(found)

    await wait_until(is_due, "it is due")
    run = await store.snapshot("later")
    assert run.due_ms is not None
    assert run.started_ms is not None
    assert run.started_ms >= run.due_ms
    assert (await queue.claim("first", WORK, 1)).next_due_seconds is None


async def test_a_delayed_run_that_is_due_is_ordered_by_priority(
    space: Space, store: RedisRunStore, queue: Queue
) -> None:
    """Of two that became due, the higher priority comes first."""
    for name, priority in (("plain", 0), ("high", 9)):
        await store.submit(name, "work", priority=priority, delay_seconds=3599)
    assert await take(queue, 2) == []
    let_an_hour_pass(space)
    assert ids(await take(queue, 2)) == ["high", "plain"]


async def test_a_run_that_is_not_due_needs_no_writes(space: Space) -> None:
    """Its time to live without writes begins when it is due."""
    async with space.store(live_ttl_seconds=60) as store:
        await store.submit("later", "work", delay_seconds=3600)
        run = await store.snapshot("later")
        live_until = int(space.admin.hget(space.keys.run("later"), "live_until") or 0)
        assert run.due_ms is not None
        assert live_until == run.due_ms + 60_000


@pytest.mark.parametrize(
    "order",
    [
        {"priority": 101},
        {"priority": True},
        {"priority": 1.0},
        {"delay_seconds": -1},
        {"delay_seconds": float("nan")},
        {"deadline_seconds": -1},
        {"deadline_seconds": float("inf")},
        {"at": datetime(2026, 1, 1)},  # noqa: DTZ001  # that is the point
        {"at": datetime(9999, 1, 1, tzinfo=UTC)},
        {"at": datetime(2026, 1, 1, tzinfo=UTC), "delay_seconds": 1},
    ],
    ids=str,
)
async def test_an_order_that_makes_no_sense_is_refused(
    store: RedisRunStore, order: dict[str, Any]
) -> None:
    """Priorities, delays and deadlines out of range raise, and no run is created."""
    with pytest.raises(InvalidInputError):
        await store.submit("run", "work", **order)
    assert (await store.list_runs()).runs == ()


async def test_a_paused_target_is_passed_over_until_it_is_resumed(
    space: Space, store: RedisRunStore, queue: Queue
) -> None:
    """Runs of other targets are claimed meanwhile."""
    await store.submit("run", "work")
    await store.submit("later", "work", delay_seconds=3600)
    await store.submit("other", "other")
    await store.pause("work")
    await store.pause("work")
    assert await store.paused() == {"work"}
    answer = await queue.claim("first", [*WORK, TargetRule("other")], 5)
    assert (ids(answer.claims), answer.next_due_seconds) == (["other"], None)
    tokens = space.admin.xlen(space.keys.wake("work", 0))
    await store.resume("work")
    assert await store.paused() == set()
    assert space.admin.xlen(space.keys.wake("work", 0)) > tokens
    assert ids(await take(queue, 5)) == ["run"]


async def test_a_released_run_keeps_its_queue_position(store: RedisRunStore, queue: Queue) -> None:
    """Released without a delay, it is claimed before later runs."""
    for number in range(3):
        await store.submit(f"run-{number}", "work")
        await asyncio.sleep(0.002)
    (first,) = await take(queue)
    state = await store.release(first.run_id, first.token, "failed", error="no\nluck")
    assert state is RunState.PENDING
    (again,) = await take(queue)
    assert (again.run_id, again.attempt, again.failures) == ("run-0", 2, 1)
    assert (await store.snapshot("run-0")).errors == "1 no luck"


async def test_a_run_that_is_tried_again_later_is_not_taken_before(
    space: Space, store: RedisRunStore, queue: Queue
) -> None:
    """Released with a delay, it is claimed when that is over."""
    (claim,) = await claimed(store, queue)
    await store.release(claim.run_id, claim.token, "retry_later", delay_seconds=3599)
    answer = await queue.claim("first", WORK, 1)
    assert answer.claims == []
    assert answer.next_due_seconds is not None
    assert 3500 < answer.next_due_seconds <= 3599
    let_an_hour_pass(space)
    (again,) = await take(queue)
    assert (again.attempt, again.failures, again.excused) == (2, 0, 1)


async def test_only_excused_executions_do_not_count_as_attempts(
    space: Space, store: RedisRunStore, queue: Queue
) -> None:
    """Failures and lost leases count against max_attempts."""
    rules = [TargetRule("work", max_attempts=2)]
    await store.submit("run", "work", input=1)
    for reason in ("worker_stopped", "failed", "retry_later"):
        (claim,) = (await queue.claim("first", rules, 1)).claims
        await store.release("run", claim.token, reason)
    (claim,) = (await queue.claim("first", rules, 1)).claims
    expire_leases(space)
    assert await handed_on(queue) == ["run"]
    assert (await queue.claim("first", rules, 1)).claims == []
    run = await store.snapshot("run")
    why = "given up after 4 attempts: the lease of 1 ran out"
    assert (run.state, run.error, run.attempt) == (RunState.FAILED, why, 4)
    letter = await store.dead_letters().get("run")
    assert (letter.reason, letter.attempts, letter.failures) == ("attempts_exhausted", 4, 1)


@pytest.mark.parametrize(
    ("most", "why"),
    [
        (1, "given up after 1 attempt: its lease ran out"),
        (2, "given up after 2 attempts: the lease of each ran out"),
    ],
)
async def test_a_run_whose_workers_all_died_says_so(
    space: Space, store: RedisRunStore, queue: Queue, most: int, why: str
) -> None:
    """The error has the number of lost executions."""
    rules = [TargetRule("work", max_attempts=most)]
    await store.submit("run", "work", input=1)
    for _ in range(most):
        assert (await queue.claim("first", rules, 1)).claims
        expire_leases(space)
        assert await handed_on(queue) == ["run"]
    assert (await queue.claim("first", rules, 1)).claims == []
    assert (await store.snapshot("run")).error == why


@pytest.mark.parametrize("by", ["claim", "tend", "sweep"])
async def test_a_run_whose_deadline_is_over_is_not_started(
    store: RedisRunStore, queue: Queue, by: str
) -> None:
    """Claim, housekeeping and sweep each end it."""
    await store.submit("in-time", "work", deadline_seconds=3600)
    await store.submit("run", "work", deadline_seconds=0.001)
    await asyncio.sleep(0.01)
    if by == "claim":
        assert ids(await take(queue, 5)) == ["in-time"]
    elif by == "tend":
        assert (await queue.tend("first", [], 60)).ended == ["run"]
    else:
        assert await store.sweep() == 1
    run = await store.snapshot("run")
    assert (run.state, run.error, run.attempt) == (RunState.FAILED, DEADLINE_TEXT, 0)
    assert (await store.dead_letters().get("run")).reason == "deadline_exceeded"


async def test_a_deadline_counts_from_when_the_run_is_due(store: RedisRunStore) -> None:
    """A delay moves the deadline, too."""
    await store.submit("run", "work", delay_seconds=100, deadline_seconds=5)
    run = await store.snapshot("run")
    assert run.due_ms is not None
    assert run.deadline_ms == run.due_ms + 5_000


async def test_a_large_input_leaves_the_rest_to_the_next_claim(
    store: RedisRunStore, queue: Queue
) -> None:
    """A claim returns a bounded amount of input, and asks to be called again."""
    for number in range(3):
        await store.submit(f"run-{number}", "work", input="x" * 700_000)
    answer = await queue.claim("first", WORK, 3)
    assert (len(answer.claims), answer.next_due_seconds) == (2, 0.0)
    assert len(await take(queue, 3)) == 1


async def test_a_claim_looks_at_a_limited_number_of_dead_entries(
    space: Space, store: RedisRunStore, queue: Queue
) -> None:
    """The rest of very many dead queue entries is left to the next call."""
    space.admin.zadd(space.keys.queue("work", 0), {f"gone-{n}": n for n in range(1200)})
    await store.submit("run", "work")
    found: list[Claim] = []
    calls = 0
    while not found:
        answer = await queue.claim("first", WORK, 1)
        found, calls = answer.claims, calls + 1
        assert found or answer.next_due_seconds == 0.0
    assert (ids(found), calls) == (["run"], 3)


async def test_a_stale_claim_hands_nothing_back(
    space: Space, store: RedisRunStore, queue: Queue
) -> None:
    """Release and checkpoint of the first worker are refused."""
    (old,) = await claimed(store, queue)
    expire_leases(space)
    await handed_on(queue)
    (new,) = await take(queue, worker="second")
    before = await store.snapshot(old.run_id)
    with pytest.raises(LeaseLostError):
        await store.release(old.run_id, old.token, "failed")
    with pytest.raises(LeaseLostError):
        await store.checkpoint(old.run_id, 1, old.token)
    await queue.release(old, "worker_stopped")
    assert await store.snapshot(old.run_id) == before
    assert before.claim == new.token


@pytest.mark.parametrize("claim", ["", None])
async def test_what_is_no_claim_is_refused(store: RedisRunStore, queue: Queue, claim: Any) -> None:
    """An empty or missing claim raises InvalidInputError."""
    await store.submit("run", "work")
    await take(queue)
    with pytest.raises(InvalidInputError, match="claim is"):
        await store.release("run", claim, "failed")
    with pytest.raises(InvalidInputError, match="claim is"):
        await store.deliver_cancel("run", claim)


async def test_a_checkpoint_reaches_the_next_execution(
    space: Space, store: RedisRunStore, queue: Queue
) -> None:
    """It expires with the run."""
    (claim,) = await claimed(store, queue)
    run_id = claim.run_id
    assert await store.last_checkpoint(run_id) is None
    await store.checkpoint(run_id, 1, claim.token)
    await store.checkpoint(run_id, {"at": 2}, claim.token)
    assert await store.last_checkpoint(run_id) == {"at": 2}
    await store.release(run_id, claim.token, "failed")
    (again,) = await take(queue)
    assert again.checkpoint_json == '{"at":2}'
    assert len(await entries(store, run_id, "run.checkpoint")) == 2
    await store.finish(run_id, RunState.COMPLETED, claim=again.token)
    assert space.admin.exists(space.keys.checkpoint(run_id))
    await store.delete(run_id)
    assert not space.admin.exists(space.keys.checkpoint(run_id))
