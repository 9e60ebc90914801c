"""Two calls of a partition are on their way, and both replies are lost: each write counts once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from redis.asyncio import Redis

from murmur_streams.core.model.errors import OutcomeUnknownError
from murmur_streams.core.model.results import AgentResult
from murmur_streams.core.model.states import RunProgress, RunState
from murmur_streams.stores.bell import Bell
from murmur_streams.stores.redis.store import RedisRunStore
from murmur_streams.testing.faults import (
    Fault,
    FaultProxy,
    Parts,
    Plan,
    executed_by,
    in_turn,
    nothing,
)
from tests.stores.faults.conftest import StoreMaker
from tests.stores.faults.events import names_in_journal, note
from tests.stores.faults.waiting import wait_until

Write = Callable[[RedisRunStore, str], Awaitable[Any]]
RESULT = AgentResult(output=1, agent_name="work", task_id="t")
WRITES: dict[str, tuple[Write, object, int]] = {
    "append": (lambda s, run: s.append(run, note(run, "a"), note(run, "b")), 3, 3),
    "push_event": (lambda s, run: s.push_event(run, note(run, "a")), None, 2),
    "finish": (lambda s, run: s.finish(run, RunState.COMPLETED, result=RESULT), True, 3),
    "set_result": (lambda s, run: s.set_result(run, RESULT), None, 2),
    "update_progress": (lambda s, run: s.update_progress(run, RunProgress(total=3)), None, 2),
    "set_state": (lambda s, run: s.set_state(run, RunState.RUNNING), None, 2),
    "request_cancel": (lambda s, run: s.request_cancel(run), RunState.CANCELLED, 4),
    "delete": (lambda s, run: s.delete(run, force=True), True, 0),
    "create": (lambda s, run: s.create(f"{run}-new", "work"), None, 1),
}
"""Call, its answer on a new run, and the run's version after it; 0: it has no more."""
SECOND = [Fault.DROP_REPLY, Fault.DROP_REQUEST, Fault.CUT_REQUEST, Fault.CUT_REPLY, Fault.GARBAGE]
FIRST = [Fault.LOSE_REPLY, Fault.LOSE_REQUEST]

both_faults = pytest.mark.parametrize(
    "faults", [pytest.param((a, b), id=f"{a.name}-{b.name}") for a in FIRST for b in SECOND]
)


def is_write(parts: Parts) -> bool:
    """Whether a request is one of these calls."""
    return bool(set(WRITES) & set(executed_by(parts)))


async def two_in_flight(
    proxy: FaultProxy, plan: Plan, first: Awaitable[Any], second: Awaitable[Any]
) -> tuple[Any, Any]:
    """Let the second write leave while the first one's reply has not come; their answers."""
    proxy.plan = plan
    tasks = [asyncio.ensure_future(first)]
    await wait_until(lambda: len(proxy.seen) == 1, "the first call has left")
    tasks.append(asyncio.ensure_future(second))
    await wait_until(lambda: len(proxy.seen) == 2, "the second call has left")
    answers = await asyncio.gather(*tasks)
    proxy.plan = nothing
    proxy.seen.clear()
    return answers[0], answers[1]


@both_faults
@pytest.mark.parametrize("what", WRITES)
@pytest.mark.fault("F2")
async def test_both_replies_are_lost_and_each_write_counts_once(
    what: str,
    faults: tuple[Fault, Fault],
    proxy: FaultProxy,
    store: RedisRunStore,
    straight: RedisRunStore,
) -> None:
    """The server executed both calls, only the first, none, or would execute only the second."""
    write, answer, version = WRITES[what]
    for run in ("one", "other"):
        await store.create(run, "work")
    plan = in_turn([*faults], is_write)
    found = await two_in_flight(proxy, plan, write(store, "one"), write(store, "other"))
    assert found == (answer, answer)
    for run in ("one", "other"):
        run_id = f"{run}-new" if what == "create" else run
        if version:
            assert (await straight.snapshot(run_id)).version == version
            assert (await straight.audit(run_id)).problems == ()
        else:
            assert run not in {each.run_id for each in (await straight.list_runs()).runs}


@both_faults
async def test_two_calls_of_one_run_keep_their_order(
    faults: tuple[Fault, Fault], proxy: FaultProxy, store: RedisRunStore, straight: RedisRunStore
) -> None:
    """The second one is applied after the first one, or both are sent again in their order."""
    await store.create("run", "work")
    plan = in_turn([*faults], is_write)
    first = store.append("run", note("run", "first"))
    second = store.append("run", note("run", "second"), note("run", "third"))
    assert await two_in_flight(proxy, plan, first, second) == (2, 4)
    assert await names_in_journal(straight, "run") == ["first", "second", "third"]


async def test_a_second_loss_of_both_replies_changes_nothing(
    proxy: FaultProxy, store: RedisRunStore, straight: RedisRunStore
) -> None:
    """The repeats lose their replies, too: the record still has the answers of both."""
    await store.create("run", "work")
    plan = in_turn([Fault.LOSE_REPLY, *[Fault.DROP_REPLY] * 4], is_write)
    first = store.append("run", note("run", "first"))
    second = store.append("run", note("run", "second"), note("run", "third"))
    assert await two_in_flight(proxy, plan, first, second) == (2, 4)
    assert await names_in_journal(straight, "run") == ["first", "second", "third"]


async def test_a_first_call_given_up_lets_the_second_pass(
    proxy: FaultProxy, make_store: StoreMaker, straight: RedisRunStore
) -> None:
    """Its late copy is dropped: it must not be applied after the second one."""
    store = make_store(proxy.url, retry_seconds=0.5)
    await store.create("run", "work")
    proxy.plan = lambda parts: Fault.STALL_LATE if is_first(parts) else Fault.NONE

    def is_first(parts: Parts) -> bool:
        return is_write(parts) and b"first" in parts

    first = asyncio.create_task(store.append("run", note("run", "first")))
    await wait_until(lambda: len(proxy.seen) == 1, "the first call has left")
    second = asyncio.create_task(store.append("run", note("run", "second"), note("run", "third")))
    with pytest.raises(OutcomeUnknownError):
        await first
    proxy.plan = nothing
    (outcome,) = await asyncio.gather(second, return_exceptions=True)
    # Its time may be over as well, because it waited for the first one.
    assert outcome == 3 or isinstance(outcome, OutcomeUnknownError)
    written = await names_in_journal(straight, "run")
    assert written in ([], ["second", "third"])
    assert await store.append("run", note("run", "last")) == 2 + len(written)
    replies = await proxy.execute_stalled()
    assert {b"DROPPED" in reply for reply in replies} == {True}
    assert await names_in_journal(straight, "run") == [*written, "last"]


async def test_a_wait_may_end_after_its_connection(admin: Redis, straight: RedisRunStore) -> None:
    """A failover drops all connections; a worker that stops in the same moment is not disturbed."""
    await straight.create("run", "work")
    connections, bell = straight._server.nodes.all[0].blocking, Bell()
    read = ("XREAD", "BLOCK", 20_000, "STREAMS", straight._keys.journal("run"), "$")
    waiting = asyncio.create_task(connections.blocking_all([read], 20.0, bell))

    async def is_blocked() -> bool:
        return int((await admin.info("clients"))["blocked_clients"]) == 1

    await wait_until(is_blocked, "the read blocks")
    await connections.drop_all()
    bell.ring()
    assert await waiting is None
