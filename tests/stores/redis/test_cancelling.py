"""A cancel that was requested is never lost, whatever the run does at that moment."""

from __future__ import annotations

import socket

import pytest

from murmur_streams.core.model.errors import LeaseLostError, RunNotFoundError
from murmur_streams.core.model.events import RunEvent, RunEventType
from murmur_streams.core.model.results import AgentResult
from murmur_streams.core.model.states import RunState
from murmur_streams.core.model.work import Beat, ControlMessage, NoticeKind
from murmur_streams.stores.redis.queue import Queue
from murmur_streams.stores.redis.store import RedisRunStore
from tests.servers import Space
from tests.stores.redis.working import claimed, entries, expire_leases, take

END = RunState.CANCELLED
HOLDER = {"attempt": "1", "worker": "first", "host": "host-1"}


async def ends_of(store: RedisRunStore, run_id: str) -> list[dict[str, str]]:
    """The fields of the entries that cancelled the run."""
    found = await entries(store, run_id, "run.state")
    return [
        {name: text for name, text in fields.items() if name not in {"state", "seal"}}
        for fields in found
        if fields["state"] == END
    ]


@pytest.mark.parametrize("delay_seconds", [0, 3600])
async def test_a_run_that_waits_ends_at_once_and_never_starts(
    store: RedisRunStore, queue: Queue, delay_seconds: float
) -> None:
    """A pending run, also a delayed one, is cancelled in the step of the request."""
    await store.submit("run", "work", delay_seconds=delay_seconds)
    assert await store.request_cancel("run", reason="no need") is END
    run = await store.snapshot("run")
    assert (run.state, run.cancel_reason, run.cancel_requested) == (END, "no need", run.ended_ms)
    assert await entries(store, "run", "run.cancel_requested") == [
        {"attempt": "0", "host": socket.gethostname(), "reason": "no need"}
    ]
    assert await ends_of(store, "run") == [{"stopped": "pending"}]
    answer = await take(queue)
    assert answer == []


async def test_a_run_in_backoff_ends_at_once(store: RedisRunStore, queue: Queue) -> None:
    """So is a run that waits for its retry."""
    (claim,) = await claimed(store, queue)
    await store.release(claim.run_id, claim.token, "failed", delay_seconds=3600)
    assert await store.request_cancel(claim.run_id) is END
    assert await ends_of(store, claim.run_id) == [{"stopped": "pending"}]


async def test_a_cancel_wakes_the_worker_and_comes_with_each_heartbeat(
    store: RedisRunStore, queue: Queue
) -> None:
    """The worker gets one message at once, and a notice with every heartbeat."""
    claim, other = await claimed(store, queue, 2)
    assert await queue.control("first", "", 0.01) == ([], "0-0")
    assert await store.request_cancel(claim.run_id) is RunState.RUNNING
    messages, position = await queue.control("first", "", 5)
    assert messages == [ControlMessage("cancel", claim.run_id, claim.token)]
    assert await queue.control("first", position, 0.01) == ([], position)
    for _ in range(2):
        (notice,) = await queue.heartbeat([Beat(claim), Beat(other)])
        assert (notice.claim, notice.kind) == (claim, NoticeKind.CANCEL)


@pytest.mark.fault("F32")
async def test_a_cancel_request_is_recorded_once(store: RedisRunStore, queue: Queue) -> None:
    """The second request leaves reason and time of the first."""
    (claim,) = await claimed(store, queue)
    for reason in ("first", "second"):
        state = await store.request_cancel(claim.run_id, reason=reason)
        assert state is RunState.RUNNING
    notice = await entries(store, claim.run_id, "run.cancel_requested")
    assert notice == [{"attempt": "1", "host": socket.gethostname(), "reason": "first"}]
    assert (await store.snapshot(claim.run_id)).cancel_reason == "first"


async def test_a_cancels_delivery_is_recorded_once_by_the_holder(
    store: RedisRunStore, queue: Queue
) -> None:
    """Only the worker with the claim records it, and only after a request."""
    (claim,) = await claimed(store, queue)
    await store.deliver_cancel(claim.run_id, claim.token)
    assert await entries(store, claim.run_id, "run.cancel_delivered") == []
    await store.request_cancel(claim.run_id)
    with pytest.raises(LeaseLostError):
        await store.deliver_cancel(claim.run_id, "stale")
    for _ in range(2):
        await store.deliver_cancel(claim.run_id, claim.token)
    assert await entries(store, claim.run_id, "run.cancel_delivered") == [HOLDER]
    assert (await store.snapshot(claim.run_id)).cancel_delivered is not None


@pytest.mark.parametrize("stopped", [None, "grace"])
@pytest.mark.parametrize("state", [RunState.COMPLETED, RunState.FAILED, END])
@pytest.mark.fault("F32")
async def test_whatever_its_worker_asks_for_the_run_ends_cancelled(
    store: RedisRunStore, queue: Queue, state: RunState, stopped: str | None
) -> None:
    """Completed and failed become cancelled, and the result is dropped."""
    (claim,) = await claimed(store, queue)
    run_id = claim.run_id
    await store.request_cancel(run_id)
    is_failed = state is RunState.FAILED
    ended = await store.finish(
        run_id,
        state,
        result=None if state is END else AgentResult[int](output=1, agent_name="work", task_id="1"),
        event=RunEvent(type=RunEventType.AGENT_COMPLETED, run_id=run_id, agent="work"),
        error="it broke" if is_failed else None,
        claim=claim.token,
        dead="not_retryable" if is_failed else None,
        stopped=stopped if state is END else None,
    )
    assert ended
    run = await store.snapshot(run_id)
    assert (run.state, run.error, run.result_size, run.failures) == (END, None, None, 0)
    wanted = stopped if state is END and stopped else "handler"
    assert await ends_of(store, run_id) == [{**HOLDER, "stopped": wanted}]
    with pytest.raises(RunNotFoundError):
        await store.dead_letters().get(run_id)


async def test_a_program_without_workers_ends_its_run_as_it_likes(store: RedisRunStore) -> None:
    """A finish without a claim may complete the run despite the request."""
    await store.create("run", "work")
    await store.set_state("run", RunState.RUNNING)
    assert await store.request_cancel("run") is RunState.RUNNING
    assert (await store.snapshot("run")).cancel_requested is not None
    await store.finish("run", RunState.COMPLETED)
    assert (await store.get_status("run")).state is RunState.COMPLETED


async def test_a_run_that_is_set_waiting_after_the_request_ends(store: RedisRunStore) -> None:
    """SetState to pending ends it as cancelled."""
    await store.create("run", "work")
    await store.set_state("run", RunState.RUNNING)
    await store.request_cancel("run")
    await store.set_state("run", RunState.PENDING)
    assert (await store.get_status("run")).state is END


@pytest.mark.parametrize("reason", ["failed", "worker_stopped", "retry_later"])
async def test_a_run_that_is_handed_back_after_the_request_ends(
    store: RedisRunStore, queue: Queue, reason: str
) -> None:
    """A release for any reason ends it as cancelled, and no worker gets it."""
    (claim,) = await claimed(store, queue)
    await store.request_cancel(claim.run_id)
    assert await store.release(claim.run_id, claim.token, reason, delay_seconds=5) is END
    assert await ends_of(store, claim.run_id) == [{**HOLDER, "stopped": "handler"}]
    assert await take(queue) == []


async def test_a_run_whose_worker_is_lost_after_the_request_ends(
    space: Space, store: RedisRunStore, queue: Queue
) -> None:
    """The housekeeping ends it with worker_lost instead of queueing it again."""
    (claim,) = await claimed(store, queue)
    await store.request_cancel(claim.run_id)
    expire_leases(space)
    tended = await queue.tend("second", [], 60)
    assert (tended.requeued, tended.ended) == ([], [claim.run_id])
    assert await ends_of(store, claim.run_id) == [{**HOLDER, "stopped": "worker_lost"}]


@pytest.mark.parametrize("state", [RunState.COMPLETED, RunState.FAILED, END])
@pytest.mark.fault("F32")
async def test_a_request_after_the_end_changes_nothing(
    store: RedisRunStore, queue: Queue, state: RunState
) -> None:
    """The call returns the state of the end."""
    (claim,) = await claimed(store, queue)
    await store.finish(claim.run_id, state, claim=claim.token)
    before = await store.snapshot(claim.run_id)
    assert await store.request_cancel(claim.run_id) is state
    assert await store.snapshot(claim.run_id) == before


async def test_a_lost_claim_is_reported_lost_even_after_a_cancel(
    space: Space, store: RedisRunStore, queue: Queue
) -> None:
    """A worker that lost its run is notified of the loss, and not of the requested cancel."""
    (claim,) = await claimed(store, queue)
    await store.request_cancel(claim.run_id)
    expire_leases(space)
    await queue.tend("second", [], 60)
    (notice,) = await queue.heartbeat([Beat(claim)])
    assert notice.kind is NoticeKind.LOST
    with pytest.raises(LeaseLostError):
        await store.finish(claim.run_id, END, claim=claim.token)


@pytest.mark.fault("F32")
async def test_a_missing_run_cannot_be_cancelled(store: RedisRunStore) -> None:
    """The request raises RunNotFoundError."""
    with pytest.raises(RunNotFoundError):
        await store.request_cancel("nobody")
