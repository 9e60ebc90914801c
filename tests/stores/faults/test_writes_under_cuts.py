"""A write that returned is in the journal exactly once, whatever happened to its connections."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

import pytest

from murmur_streams.core.model.errors import (
    RunExistsError,
    RunNotTerminalError,
    RunTerminatedError,
    WrongExpectedVersionError,
)
from murmur_streams.core.model.results import AgentResult
from murmur_streams.core.model.states import RunProgress, RunState
from murmur_streams.embedded import EmbeddedServer
from murmur_streams.stores.redis.store import RedisRunStore
from murmur_streams.testing.faults import Fault, FaultProxy, Plan, calls, once
from tests.stores.faults.events import names_in_journal, names_in_stream, note
from tests.stores.faults.servers import forget_all
from tests.stores.faults.waiting import wait_until

FAULTS = 200
SEED = 20_250_211
STEPS_PER_RUN = 10
WRITERS = 8


def random_faults(seed: int, count: int, share: float = 0.6) -> Plan:
    """``count`` faults at random calls of scripts, half of which are retries of broken ones."""
    dice = random.Random(seed)
    kinds = [fault for fault in Fault if fault not in {Fault.NONE, Fault.STALL_LATE}]
    # A stall costs a call's whole deadline, so there are fewer of them.
    weights = [1 if fault is Fault.STALL else 4 for fault in kinds]
    left = iter(dice.choices(kinds, weights, k=count))
    is_call = calls()
    return lambda parts: (
        next(left, Fault.NONE) if is_call(parts) and dice.random() < share else Fault.NONE
    )


class Life:
    """Writes one run from its creation to its end, and checks every answer on the way."""

    def __init__(self, store: RedisRunStore, run_id: str, dice: random.Random) -> None:
        self.store, self.run_id, self.dice = store, run_id, dice
        self.acknowledged: list[str] = []
        self.version = 0

    async def live(self) -> None:
        store, run_id = self.store, self.run_id
        await store.create(run_id, "work")
        self.version = 1
        with pytest.raises(RunExistsError):
            await store.create(run_id, "work")
        await store.set_state(run_id, RunState.RUNNING)
        self.version += 1
        for step in range(STEPS_PER_RUN):
            await self.step(step)
        last = note(run_id, "the end")
        assert await store.finish(run_id, RunState.COMPLETED, event=last) is True
        self.acknowledged.append("the end")
        assert await store.finish(run_id, RunState.FAILED) is False
        with pytest.raises(RunTerminatedError):
            await store.append(run_id, note(run_id, "too late"))

    async def step(self, step: int) -> None:
        store, run_id = self.store, self.run_id
        names = [f"{step}.{part}" for part in range(self.dice.randint(1, 3))]
        events = [note(run_id, name) for name in names]
        kind = self.dice.choice(["append", "expected", "wrong", "push"])
        if kind == "wrong":
            with pytest.raises(WrongExpectedVersionError) as caught:
                await store.append(run_id, *events, expected_version=self.version + 7)
            assert caught.value.actual == self.version
            return
        if kind == "push":
            await store.push_event(run_id, events[0])
            names = names[:1]
        else:
            expected = self.version if kind == "expected" else None
            version = await store.append(run_id, *events, expected_version=expected)
            assert version == self.version + len(names)
        self.version += len(names)
        self.acknowledged += names


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(SEED, SEED + 5))
@pytest.mark.fault("F2")
async def test_200_random_cuts_lose_and_repeat_nothing(
    seed: int, proxy: FaultProxy, store: RedisRunStore, straight: RedisRunStore
) -> None:
    """And no caller gets a wrong result."""
    await store._server.ready()
    proxy.plan = random_faults(seed, FAULTS)
    lives: list[Life] = []
    dice = random.Random(seed)

    async def write() -> None:
        while len(proxy.seen) < FAULTS:
            lives.append(Life(store, f"life-{len(lives)}", random.Random(dice.random())))
            await lives[-1].live()

    await asyncio.gather(*(write() for _ in range(WRITERS)))
    assert len(proxy.seen) == FAULTS
    for life in lives:
        assert await names_in_journal(straight, life.run_id) == life.acknowledged
        assert (await straight.audit(life.run_id)).problems == ()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.fault("F7")
async def test_calls_cancelled_at_random_are_applied_at_most_once(
    seed: int, proxy: FaultProxy, store: RedisRunStore, straight: RedisRunStore
) -> None:
    """Acknowledged appends are there once, cancelled ones at most once."""
    dice = random.Random(seed)
    await store.create("run", "work")
    proxy.plan = random_faults(seed, 40, share=0.3)
    acknowledged: list[str] = []
    cancelled: list[str] = []

    async def call(name: str) -> None:
        await store.append("run", note("run", name))
        acknowledged.append(name)

    for number in range(100):
        name = f"event {number}"
        task = asyncio.create_task(call(name))
        if dice.random() < 0.5:
            for _ in range(dice.randint(0, 40)):
                await asyncio.sleep(0)
            task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        if task.cancelled():
            cancelled.append(name)
        else:
            task.result()
    assert len(cancelled) > 10
    # The last call comes after all others of the run, those of cancelled callers included.
    await call("last")
    found = await names_in_journal(straight, "run")
    assert len(found) == len(set(found))
    assert [name for name in found if name in set(acknowledged)] == acknowledged
    assert set(found) <= set(acknowledged) | set(cancelled)
    assert found == sorted(found, key=[*(f"event {n}" for n in range(100)), "last"].index)
    assert (await straight.audit("run")).problems == ()


Call = Callable[[RedisRunStore, str], Awaitable[object]]


async def push(store: RedisRunStore, run_id: str) -> None:
    await store.push_event(run_id, note(run_id, "pushed"))


async def append(store: RedisRunStore, run_id: str) -> int:
    return await store.append(run_id, note(run_id, "one"), note(run_id, "two"))


async def finish(store: RedisRunStore, run_id: str) -> bool:
    result = AgentResult(output={"answer": 42}, agent_name="work", task_id="t")
    return await store.finish(run_id, RunState.COMPLETED, result=result)


async def store_result(store: RedisRunStore, run_id: str) -> None:
    await store.set_result(run_id, AgentResult(output=1, agent_name="work", task_id="t"))


async def report_progress(store: RedisRunStore, run_id: str) -> None:
    await store.update_progress(run_id, RunProgress(total=3, completed=1))


async def start(store: RedisRunStore, run_id: str) -> None:
    await store.set_state(run_id, RunState.RUNNING)


async def cancel(store: RedisRunStore, run_id: str) -> None:
    await store.set_state(run_id, RunState.CANCELLED)


ON_A_RUN: dict[str, tuple[str, Call, object, int]] = {
    "append": ("append", append, 3, 3),
    "push_event": ("push_event", push, None, 2),
    "finish": ("finish", finish, True, 3),
    "set_result": ("set_result", store_result, None, 2),
    "update_progress": ("update_progress", report_progress, None, 2),
    "set_state to running": ("set_state", start, None, 2),
    "set_state to cancelled": ("set_state", cancel, None, 3),
}
"""Script, call, its answer on a new run, and the run's version after it."""

LOSSES = [
    Fault.DROP_REPLY,
    Fault.DROP_REQUEST,
    Fault.CUT_REQUEST,
    Fault.CUT_REPLY,
    Fault.GARBAGE,
    Fault.STALL,
]


@pytest.mark.parametrize("fault", LOSSES)
@pytest.mark.parametrize("what", ON_A_RUN)
@pytest.mark.fault("F2", "F3", "F5")
async def test_every_write_survives_a_lost_request_or_reply(
    what: str, fault: Fault, proxy: FaultProxy, store: RedisRunStore, straight: RedisRunStore
) -> None:
    """It is applied exactly once."""
    script, call, answer, version = ON_A_RUN[what]
    run_id = f"{fault.name}-{what.replace(' ', '-')}"
    await store.create(run_id, "work")
    proxy.plan = once(fault, calls(script))
    assert await call(store, run_id) == answer
    assert proxy.seen == [fault.name]
    assert (await straight.snapshot(run_id)).version == version
    assert (await straight.audit(run_id)).problems == ()


@pytest.mark.parametrize("fault", LOSSES)
@pytest.mark.fault("F1")
async def test_a_repeated_create_does_not_report_that_the_run_exists(
    fault: Fault, proxy: FaultProxy, store: RedisRunStore, straight: RedisRunStore
) -> None:
    """The reply was lost; the run is created once."""
    await store._server.ready()
    for script, create in (("create", store.create), ("submit", store.submit)):
        run_id = f"{script}-{fault.name}"
        proxy.plan = once(fault, calls(script))
        await create(run_id, "work", input={"a": 1}, metadata={"b": 2})
        with pytest.raises(RunExistsError):
            await create(run_id, "work")
        assert (await straight.snapshot(run_id)).version == 1
        assert (await straight.audit(run_id)).problems == ()


@pytest.mark.parametrize("fault", LOSSES)
async def test_a_repeated_delete_reports_the_deletion(
    fault: Fault, proxy: FaultProxy, store: RedisRunStore
) -> None:
    """A delete whose reply was lost still returns True, and a second one False."""
    run_id = f"delete-{fault.name}"
    await store.create(run_id, "work")
    with pytest.raises(RunNotTerminalError):
        await store.delete(run_id)
    proxy.plan = once(fault, calls("delete"))
    assert await store.delete(run_id, force=True) is True
    assert await store.delete(run_id, force=True) is False


@pytest.mark.parametrize("fault", LOSSES)
async def test_a_claimed_run_is_handed_back_once(
    fault: Fault, proxy: FaultProxy, store: RedisRunStore, straight: RedisRunStore
) -> None:
    """A release whose reply was lost counts once."""
    run_id, target = f"release-{fault.name}", f"work-{fault.name}"
    await store.submit(run_id, target)
    base, feed = store._keys.base(0), store._keys.feed(0)
    claimed = await store._server.single_script(
        "claim", [base, feed], ["worker", "", 60_000, 1000, 0, 1, 1, "1", target, 0, "token"]
    )
    assert run_id in claimed
    proxy.plan = once(fault, calls("release"))
    assert await store.release(run_id, "token", "drained") is RunState.PENDING
    assert (await straight.snapshot(run_id)).state is RunState.PENDING
    assert (await straight.audit(run_id)).problems == ()


@pytest.mark.parametrize("fault", LOSSES)
async def test_a_run_is_sealed_once_by_its_subscribers(
    fault: Fault, proxy: FaultProxy, make_store: Callable[..., RedisRunStore]
) -> None:
    """Three subscribers seal it at the same time, and the journal has one seal."""
    store = make_store(proxy.url, late_event_seconds=0.05)
    run_id = f"seal-{fault.name}"
    await store.create(run_id, "work")
    await store.set_state(run_id, RunState.FAILED)
    proxy.plan = once(fault, calls("seal"))
    async with asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(names_in_stream(store, run_id))
    entries = [entry async for entry in store.journal(run_id)]
    assert [entry.is_seal for entry in entries] == [False, False, True]
    assert (await store.audit(run_id)).problems == ()


@pytest.mark.fault("F13")
async def test_scripts_that_the_server_forgot_are_loaded_again_unseen(
    server: EmbeddedServer, store: RedisRunStore, straight: RedisRunStore
) -> None:
    """SCRIPT FLUSH and FUNCTION FLUSH between writes are invisible to their callers."""
    await store.create("run", "work")
    for number in range(10):
        await asyncio.to_thread(forget_all, server)
        assert await store.append("run", note("run", str(number))) == number + 2
    await asyncio.to_thread(forget_all, server)
    appends = [store.append("run", note("run", f"same time {n}")) for n in range(20)]
    assert sorted(await asyncio.gather(*appends)) == list(range(12, 32))
    assert (await straight.audit("run")).problems == ()


@pytest.mark.fault("F6")
async def test_idle_connections_that_the_server_closed_are_not_noticed(
    store: RedisRunStore, admin: object, proxy: FaultProxy
) -> None:
    """The next calls use new connections, and nothing is sent twice."""
    await store.create("run", "work")
    for number in range(20):
        reads = [store.get_status("run") for _ in range(5)]
        assert await store.append("run", note("run", str(number))) == number + 2
        await asyncio.gather(*reads)
        proxy.cut_all()
        await wait_until(lambda: proxy.connections == 0, "all connections are gone")
    assert proxy.seen == []
