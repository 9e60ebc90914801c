"""A server without free memory takes no new work, and lets go of what it has."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest
from redis import Redis as BlockingRedis
from redis.asyncio import Redis

from murmur_streams.core.model.errors import MurmurError, StoreFullError
from murmur_streams.core.model.results import AgentResult
from murmur_streams.core.model.states import RunState
from murmur_streams.core.model.work import Beat, Claim, NoticeKind, TargetRule
from murmur_streams.stores.redis.queue import Queue
from murmur_streams.stores.redis.store import RedisRunStore
from murmur_streams.testing.faults import Fault, FaultProxy, Parts, ServerHandle, executed_by
from tests.stores.faults.conftest import StoreMaker
from tests.stores.faults.events import names_in_journal, note
from tests.stores.faults.refusals import SECRET, TRIED_AGAIN, limited
from tests.stores.faults.servers import has_functions
from tests.stores.faults.waiting import wait_until
from tests.stores.redis.hand import expect_many

WORK = [TargetRule("work")]
RESULT = AgentResult(output="x" * 1000, agent_name="work", task_id="t")


@dataclass
class Full:
    """A server with a held, a waiting and an ended run, whose memory is used up then."""

    url: str
    server: ServerHandle
    admin: Redis
    proxy: FaultProxy
    store: RedisRunStore
    queue: Queue
    held: Claim

    async def fill(self) -> None:
        await self.admin.config_set("maxmemory", 1)

    async def is_as_it_must_be(self) -> None:
        """With memory again, the audit finds nothing, and the server takes work."""
        await self.admin.config_set("maxmemory", 0)
        for run in (await self.store.list_runs()).runs:
            assert (await self.store.audit(run.run_id)).problems == ()
        await self.store.submit("new", "work")


@pytest.fixture(params=["functions", "scripts"])
async def full(
    request: pytest.FixtureRequest, spare: ServerHandle, make_store: StoreMaker
) -> AsyncIterator[Full]:
    """Of a store that calls functions where the server has them, and of one that never does."""
    async with spare.client() as admin, FaultProxy(spare.address) as proxy:
        credentials = ""
        if request.param == "scripts" and await has_functions(admin):
            await limited(admin, "+@all", "-fcall")
            credentials = f"limited:{SECRET}"
        store = make_store(proxy.url.replace("//", f"//{credentials}@" if credentials else "//"))
        await store.submit("held", "work", input=1)
        queue = store.queue(lease_seconds=60)
        (held,) = (await queue.claim("worker", WORK, 1)).claims
        await store.submit("waits", "work", input=1)
        await store.submit("ended", "other", input=1)
        await store.finish("ended", RunState.COMPLETED, result=RESULT)
        is_scripted = request.param == "scripts" or not await has_functions(admin)
        assert store._server.nodes.all[0].loader.uses_functions is not is_scripted
        yield Full(spare.url(credentials), spare, admin, proxy, store, queue, held)


@pytest.mark.fault("F20")
async def test_a_full_server_takes_no_new_work(full: Full) -> None:
    """Creates, submits and appends are refused, and no worker is given a run."""
    await full.fill()
    store = full.store
    for call in (
        store.create("new", "work", input=1),
        store.submit("new", "work", input=1),
        store.append("held", note("held", "a")),
        full.queue.claim("worker", WORK, 5),
    ):
        with pytest.raises(StoreFullError, match="free some"):
            await call
    run = await store.snapshot("waits")
    assert (run.state, run.attempt) == (RunState.PENDING, 0)
    await full.is_as_it_must_be()
    (claim,) = (await full.queue.claim("worker", [TargetRule("work")], 1)).claims
    assert claim.run_id == "waits"


async def mixed(full: Full) -> list[object]:
    """Writes that one call carries: two that take memory, and three that free some."""
    store, claim = full.store, full.held.token
    expect_many(store._writer)
    found = await asyncio.gather(
        store.append("waits", note("waits", "a")),
        store.release("held", claim, "worker_stopped"),
        store.create("another", "other"),
        store.request_cancel("waits"),
        store.delete("ended"),
        return_exceptions=True,
    )
    return [*found]


def sent_together(full: Full) -> list[list[str]]:
    """What each call of writes carries, from now on."""
    sent: list[list[str]] = []

    def plan(parts: Parts) -> Fault:
        if names := [name for name in executed_by(parts) if name in MIXED]:
            sent.append(names)
        return Fault.NONE

    full.proxy.plan = plan
    return sent


MIXED = ["append", "create", "delete", "release", "request_cancel"]


async def check_refused(full: Full, found: list[object]) -> None:
    """Of the mixed writes, those that free memory were applied, and the others were not."""
    assert [type(each) for each in (found[0], found[2])] == [StoreFullError] * 2
    assert (found[1], found[3], found[4]) == (RunState.PENDING, RunState.CANCELLED, True)
    assert await names_in_journal(full.store, "waits") == []
    runs = {run.run_id: run.state for run in (await full.store.list_runs()).runs}
    assert runs == {"held": RunState.PENDING, "waits": RunState.CANCELLED}
    await full.is_as_it_must_be()


@pytest.mark.fault("F20")
async def test_a_mixed_call_is_applied_as_far_as_it_frees_memory(full: Full) -> None:
    """Its appends and creates are refused; cancel, release and delete are executed once."""
    await full.fill()
    sent = sent_together(full)
    found = await mixed(full)
    # The whole call first; after its refusal what frees memory. A call whose reply is late, on a
    # busy machine, is sent again as it was.
    carried = [names for names, _ in itertools.groupby(map(sorted, sent))]
    assert carried == [MIXED, ["delete", "release", "request_cancel"]]
    await check_refused(full, found)


@pytest.mark.parametrize("fault", [Fault.DROP_REQUEST, Fault.CUT_REQUEST])
async def test_a_mixed_call_that_was_lost_before_memory_was_full(full: Full, fault: Fault) -> None:
    """It may have been applied, so its record is asked first: it was not, and is judged anew."""
    fill_after(full, fault)
    await check_refused(full, await mixed(full))
    assert full.proxy.seen == [fault.name]


@pytest.mark.parametrize("fault", [Fault.DROP_REPLY, Fault.CUT_REPLY, Fault.GARBAGE])
async def test_a_mixed_call_that_was_applied_before_memory_was_full(
    full: Full, fault: Fault
) -> None:
    """Its record has all answers: no write is refused, and none is applied a second time."""
    fill_after(full, fault)
    found = await mixed(full)
    assert found == [2, RunState.PENDING, None, RunState.CANCELLED, True]
    assert await names_in_journal(full.store, "waits") == ["a"]
    await full.is_as_it_must_be()


def fill_after(full: Full, fault: Fault) -> None:
    """Let the fault meet the first call of writes, and the server be full for its repeat."""
    tries = iter(range(100))

    def plan(parts: Parts) -> Fault:
        if not set(MIXED) & set(executed_by(parts)):
            return Fault.NONE
        number = next(tries)
        if number == 1:
            with BlockingRedis(host="127.0.0.1", port=full.server.port) as admin:
                admin.config_set("maxmemory", 1)
        return fault if number == 0 else Fault.NONE

    full.proxy.plan = plan


async def finish(full: Full) -> None:
    claim = full.held.token
    store = full.store
    assert await store.finish("held", RunState.COMPLETED, result=RESULT, claim=claim)


async def set_state(full: Full) -> None:
    await full.store.set_state("held", RunState.FAILED)
    assert (await full.store.snapshot("held")).state is RunState.FAILED


async def cancel_waiting(full: Full) -> None:
    assert await full.store.request_cancel("waits") is RunState.CANCELLED


async def cancel_held(full: Full) -> None:
    assert await full.store.request_cancel("held") is RunState.RUNNING
    (reported,) = await full.queue.heartbeat([Beat(full.held)])
    assert reported.kind is NoticeKind.CANCEL


async def release(full: Full) -> None:
    await full.store.release("held", full.held.token, "worker_stopped")
    assert (await full.store.snapshot("held")).state is RunState.PENDING


async def delete(full: Full) -> None:
    assert await full.store.delete("waits", force=True)
    # A program that an operator starts to free memory can open its store.
    async with RedisRunStore(full.url, key_prefix=full.store._keys.prefix) as store:
        assert await store.delete("ended")


async def sweep(full: Full) -> None:
    await overdue(full)
    assert await full.store.sweep() == 1


async def tend(full: Full) -> None:
    await overdue(full)
    found = await full.queue.tend("worker", ["work"], 60.0)
    assert (found.requeued, found.ended) == (["held"], ["waits"])


async def overdue(full: Full) -> None:
    """Let the waiting run be overdue, and the lease of the held one be over."""
    keys = full.store._keys
    await full.admin.config_set("maxmemory", 0)
    await full.admin.hset(keys.run("waits"), "live_until", "1")
    rows: Any = await full.admin.zrange(keys.overdue(0), 0, -1)
    (row,) = [row for row in rows if row.endswith(b":waits")]
    await full.admin.zadd(keys.overdue(0), {row: 1})
    await full.admin.zadd(keys.leases(0), {"held": 1})
    await full.admin.config_set("maxmemory", 1)


FREEING: dict[str, Callable[[Full], Awaitable[None]]] = {
    call.__name__: call
    for call in (finish, set_state, cancel_waiting, cancel_held, release, delete, sweep, tend)
}


@pytest.mark.parametrize("name", FREEING)
@pytest.mark.fault("F20")
async def test_a_full_server_lets_runs_go(full: Full, name: str) -> None:
    """Ends, removals and releases of runs work without free memory, and completely."""
    await full.fill()
    await FREEING[name](full)
    await full.is_as_it_must_be()


async def test_a_full_server_lets_dead_letters_go(full: Full) -> None:
    """An operator frees memory by a purge, too."""
    store = full.store
    await store.finish("held", RunState.FAILED, error="no", claim=full.held.token, dead="failed")
    await full.fill()
    assert await store.dead_letters().purge(all=True) == 1
    await full.is_as_it_must_be()


async def test_a_heartbeat_is_refused_as_other_calls_are(
    spare: ServerHandle, make_store: StoreMaker
) -> None:
    """If a server refuses every script, claim and heartbeat raise the error of all calls."""
    async with spare.client() as admin:
        store = make_store(spare.url(), retry_seconds=0)
        await store.submit("held", "work")
        queue = store.queue(lease_seconds=60)
        (held,) = (await queue.claim("worker", WORK, 1)).claims
        await store.submit("waits", "work")
        for name, value in (("REPLICAOF", "127.0.0.1 1"), ("min-replicas-to-write", "1")):
            if name == "REPLICAOF":
                await admin.execute_command(name, *value.split())
            else:
                await admin.config_set(name, value)
            expected = await error_of(store.append("held", note("held", "a")))
            if expected is None:
                continue  # Before 7.0 scripts write though too few replicas are there.
            assert await error_of(queue.claim("worker", WORK, 1)) is expected
            assert await error_of(queue.heartbeat([Beat(held)])) is expected
            if name == "REPLICAOF":
                await admin.execute_command("REPLICAOF", "NO", "ONE")
        await admin.config_set("min-replicas-to-write", "0")
        assert await queue.heartbeat([Beat(held)]) == []
        assert (await store.snapshot("waits")).state is RunState.PENDING


@pytest.mark.slow
@pytest.mark.fault("F17")
async def test_a_heartbeat_without_enough_replicas_is_retried(
    spare: ServerHandle, make_store: StoreMaker, log: pytest.LogCaptureFixture
) -> None:
    """NOREPLICAS passes, so a heartbeat waits for its end: its leases must not run out."""
    async with spare.client() as admin:
        store = make_store(spare.url())
        await store.submit("held", "work")
        queue = store.queue(lease_seconds=60)
        (held,) = (await queue.claim("worker", WORK, 1)).claims
        before = await admin.zscore(store._keys.leases(0), "held") or 0
        await admin.config_set("min-replicas-to-write", "1")
        beat = asyncio.create_task(queue.heartbeat([Beat(held)]))
        await wait_until(lambda: beat.done() or TRIED_AGAIN in log.text, "it is tried again")
        await admin.config_set("min-replicas-to-write", "0")
        assert await beat == []
        assert (await admin.zscore(store._keys.leases(0), "held") or 0) > before


async def error_of(call: Awaitable[object]) -> type[MurmurError] | None:
    try:
        await call
    except MurmurError as error:
        return type(error)
    return None
