"""The number of partitions is raised while programs go on, with and without noticing it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, aclosing
from typing import Any

import pytest
from pydantic import JsonValue

from murmur_streams.core.model.errors import (
    RunExistsError,
    RunNotFoundError,
    StoreConfigurationError,
)
from murmur_streams.core.model.events import RunEvent, RunEventType
from murmur_streams.core.model.states import RunState
from murmur_streams.core.model.work import Claimed, TargetRule
from murmur_streams.stores.bell import Bell
from murmur_streams.stores.redis.connection.failures import NeverSentError
from murmur_streams.stores.redis.connection.lane import Lane
from murmur_streams.stores.redis.counts import PartitionCounts
from murmur_streams.stores.redis.key_space import KeySpace
from murmur_streams.stores.redis.partitions import forget_numbers, older_runs, raise_partitions
from murmur_streams.stores.redis.store import RedisRunStore
from tests.fleet.queueing import hand_on, over, take
from tests.servers import Space

Open = Callable[[], RedisRunStore]


@pytest.fixture(autouse=True)
def unnoticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """No program looks at the numbers by itself: each learns of a raise by what it does."""
    monkeypatch.setattr("murmur_streams.stores.redis.key_space.LOOK_SECONDS", 3600.0)


@pytest.fixture
async def program(space: Space) -> AsyncIterator[Open]:
    """Opens programs of one key space, which begins with one partition."""
    async with AsyncExitStack() as stack:

        def make() -> RedisRunStore:
            store = space.store(partitions=1)
            stack.push_async_callback(store.close)
            return store

        yield make


def note(run_id: str, data: JsonValue) -> RunEvent:
    return RunEvent(type=RunEventType.LOG, run_id=run_id, data=data)


def elsewhere(number: int, count: int = 8) -> list[str]:
    """Run ids that are in another partition than 0 of so many."""
    counts = PartitionCounts((number,))
    ids = (f"run-{each}" for each in range(1_000))
    return [each for each in ids if counts.of_new_run(each)][:count]


async def data_of(store: RedisRunStore, run_id: str) -> list[object]:
    return [event.data async for event in store.stream(run_id)]


async def test_runs_of_before_and_after_are_found_by_all(program: Open) -> None:
    """A program that has not noticed the raise reads, writes, creates and lists as the others."""
    old, new = program(), program()
    before, after, own = elsewhere(16, 3)
    await old.create(before, "work")
    await raise_partitions(new, 16)
    await new.create(after, "work")
    assert new._keys.partition(after) != 0
    assert (await old.get_status(after)).state is RunState.PENDING
    await old.append(after, note(after, 1))
    await old.create(own, "work")
    assert old._keys.partition(own) == new._keys.counts.of_new_run(own)
    for store in (old, new):
        for run_id in (before, after, own):
            await store.append(run_id, note(run_id, "more"))
        assert {run.run_id for run in (await store.list_runs()).runs} == {before, after, own}
    for run_id in (before, after, own):
        await new.finish(run_id, RunState.COMPLETED)
    assert await data_of(old, after) == [1, "more", "more"]
    assert await data_of(new, before) == ["more", "more"]


@pytest.mark.parametrize("kind", ["append", "snapshot", "stream", "list", "finish", "feed"])
async def test_each_call_finds_runs_of_a_raise_not_noticed(program: Open, kind: str) -> None:
    """It is the first call of a program after the raise."""
    old, new = program(), program()
    (run_id,) = elsewhere(4, 1)
    await old.ping()
    await raise_partitions(new, 4)
    await new.submit(run_id, "work")
    if kind == "append":
        await old.append(run_id, note(run_id, 1))
    elif kind == "snapshot":
        assert (await old.snapshot(run_id)).target == "work"
    elif kind == "stream":
        await new.append(run_id, note(run_id, "x"))
        await new.finish(run_id, RunState.COMPLETED)
        assert await data_of(old, run_id) == ["x"]
    elif kind == "list":
        assert [run.run_id for run in (await old.list_runs()).runs] == [run_id]
    elif kind == "finish":
        await old.finish(run_id, RunState.CANCELLED)
    else:
        async with aclosing(old.feed()) as feed:
            assert (await anext(feed)).run_id == run_id


async def test_an_id_is_created_once_whoever_creates_it(program: Open) -> None:
    """Programs of before and after a raise race for the same ids, while it is under way."""
    stores = [program() for _ in range(3)]
    ids = elsewhere(16, 60)

    async def create(store: RedisRunStore, run_id: str) -> bool:
        try:
            await store.create(run_id, "work")
        except RunExistsError:
            return False
        return True

    async def all_of(store: RedisRunStore) -> list[bool]:
        return [await create(store, run_id) for run_id in ids]

    *results, _ = await asyncio.gather(
        *(all_of(store) for store in stores), raise_partitions(program(), 16)
    )
    assert [sum(each) for each in zip(*results, strict=True)] == [1] * len(ids)
    listed = [run.run_id for run in (await stores[0].list_runs(limit=500)).runs]
    assert sorted(listed) == sorted(ids)


async def test_writes_stay_in_order_over_raises(program: Open) -> None:
    """Writes that are not awaited one by one are applied in the order of their calls."""
    store, raising = program(), program()
    old_ids, new_ids = elsewhere(16, 4), elsewhere(16, 8)[4:]
    for run_id in old_ids:
        await store.create(run_id, "work")

    async def write(run_id: str) -> None:
        calls = [store.create(run_id, "work")] if run_id in new_ids else []
        for first in range(0, 300, 5):
            numbers = range(first, first + 5)
            await asyncio.gather(*calls, *(store.append(run_id, note(run_id, n)) for n in numbers))
            calls = []
            await asyncio.sleep(0)

    raised = asyncio.Event()

    async def raise_it() -> None:
        await raise_partitions(raising, 4)
        raised.set()

    async def begin_later(run_id: str) -> None:
        await raised.wait()
        await write(run_id)

    await asyncio.gather(
        *(write(run_id) for run_id in old_ids),
        *(begin_later(run_id) for run_id in new_ids[:2]),
        *(write(run_id) for run_id in new_ids[2:]),
        raise_it(),
    )
    await raise_partitions(raising, 16)
    for run_id in (*old_ids, *new_ids):
        await store.finish(run_id, RunState.COMPLETED)
        assert await data_of(raising, run_id) == [*range(300)]


async def test_a_write_waits_for_one_of_before_that_is_sent_again(
    program: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second write is made after the raise was noticed, the first one is sent again then."""
    store, raising, call = program(), program(), Lane.call
    (run_id,), is_lost = elsewhere(16, 1), asyncio.Event()
    await store.create(run_id, "work")
    await raise_partitions(raising, 16)

    def lose_one(self: Lane, *command: object, notify: Any = None) -> asyncio.Future[Any]:
        if is_lost.is_set() or command[0] not in {"FCALL", "EVALSHA"}:
            return call(self, *command, notify=notify)
        is_lost.set()
        reply: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        never_sent = NeverSentError()
        never_sent.__cause__ = ConnectionError("lost")
        reply.set_exception(never_sent)
        asyncio.get_running_loop().call_soon(notify)
        return reply

    monkeypatch.setattr(Lane, "call", lose_one)
    first = asyncio.ensure_future(store.append(run_id, note(run_id, 1)))
    await is_lost.wait()
    await store._server.key_space.look()
    await store.append(run_id, note(run_id, 2))
    await first
    await store.finish(run_id, RunState.COMPLETED)
    assert await data_of(store, run_id) == [1, 2]


async def test_claims_hold_over_a_raise(program: Open) -> None:
    """Heartbeats, requeues and claims of a worker that has not noticed it; nothing runs twice."""
    worker, new = program(), program()
    queue = worker.queue(lease_seconds=60)
    before, after = elsewhere(16, 4), elsewhere(16, 8)[4:]
    for run_id in before:
        await worker.submit(run_id, "work")
    held = await take(queue, "w", 2)
    await raise_partitions(new, 16)
    for run_id in after:
        await new.submit(run_id, "work")
    assert await over(queue, held) == []
    await worker.release(held[0].run_id, held[0].token, "stopped")
    rest = [claim for _ in range(9) for claim in await take(queue, "w", 1)]
    assert sorted(each.run_id for each in rest) == sorted({*before, *after} - {held[1].run_id})
    assert await over(queue, [held[1], *rest]) == []
    assert await hand_on(queue) == []
    for claim in (held[1], *rest):
        await new.finish(claim.run_id, RunState.COMPLETED, claim=claim.token)
    states = {run.state for run in (await worker.list_runs()).runs}
    assert states == {RunState.COMPLETED}


async def test_an_idle_worker_takes_a_run_of_a_new_partition(
    program: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wait for work ends when the program learns of the raise."""
    monkeypatch.setattr("murmur_streams.stores.redis.key_space.LOOK_SECONDS", 0.05)
    worker, new = program(), program()
    queue = worker.queue(lease_seconds=60)
    await queue.prepare(["work"])
    rules, (run_id,) = [TargetRule("work")], elsewhere(16, 1)
    wait = queue.wait_and_claim("w", rules, 1, seconds=600, bell=Bell())
    waiting = asyncio.create_task(wait)
    await asyncio.sleep(0)
    await raise_partitions(new, 16)
    await new.submit(run_id, "work")
    async with asyncio.timeout(60):
        assert await waiting == Claimed([], 0.0)
    assert [claim.run_id for claim in await take(queue, "w", 1)] == [run_id]


async def test_pages_of_a_listing_continue_over_a_raise(program: Open) -> None:
    """Each run is on exactly one page."""
    old, new = program(), program()
    ids = elsewhere(16, 30)
    for run_id in ids[:20]:
        await old.create(run_id, "work")
    page = await old.list_runs(limit=7)
    found = [run.run_id for run in page.runs]
    await raise_partitions(new, 4)
    for run_id in ids[20:]:
        await new.create(run_id, "work")
    while page.cursor is not None:
        page = await old.list_runs(limit=7, cursor=page.cursor)
        found += [run.run_id for run in page.runs]
    assert sorted(found) == sorted(ids[:20])
    assert len((await new.list_runs(limit=500)).runs) == 30


async def test_a_feed_continues_over_a_raise(
    program: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An open reader gets runs of new partitions, and a cursor of before stays valid."""
    monkeypatch.setattr("murmur_streams.stores.redis.key_space.LOOK_SECONDS", 0.05)
    old, new = program(), program()
    ids = elsewhere(16, 6)
    await old.create(ids[0], "work")
    async with aclosing(old.feed()) as feed:
        first = await anext(feed)
        waiting = asyncio.ensure_future(anext(feed))
        await raise_partitions(new, 16)
        for run_id in ids[1:]:
            await new.create(run_id, "work")
        async with asyncio.timeout(60):
            rest = [await waiting] + [await anext(feed) for _ in ids[2:]]
    assert sorted(each.run_id for each in rest) == sorted(ids[1:])
    async with aclosing(new.feed(after=first.cursor)) as feed:
        again = [await anext(feed) for _ in ids[1:]]
    assert sorted(each.run_id for each in again) == sorted(ids[1:])


async def test_what_is_paused_stays_paused_in_new_partitions(program: Open) -> None:
    """Until it is resumed, in all of them."""
    old, new = program(), program()
    await old.pause("work")
    await raise_partitions(new, 16)
    for run_id in elsewhere(16, 3):
        await new.submit(run_id, "work")
    queue = new.queue(lease_seconds=60)
    assert await take(queue, "w", 5) == []
    await old.resume("work")
    assert len(await take(queue, "w", 5)) == 3


@pytest.mark.parametrize("steps", range(1, 6))
async def test_a_raise_that_was_cut_off_is_completed(
    program: Open, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    """After any step: the next program that creates a run in a changed partition does it."""
    old, raising, record = program(), program(), KeySpace._record
    await old.create("before", "work")
    done = 0

    async def cut_off(self: KeySpace, *step: object) -> bool:
        nonlocal done
        if self is raising._server.key_space:
            if done == steps:
                raise RuntimeError("cut off")
            done += 1
        return await record(self, *step)  # type: ignore[arg-type]

    monkeypatch.setattr(KeySpace, "_record", cut_off)
    with pytest.raises(RuntimeError, match="cut off"):
        await raise_partitions(raising, 4)
    await raising.close()
    ids = elsewhere(4, 6)
    for run_id in ids:
        await old.create(run_id, "work")
    newer = program()
    for run_id in ("before", *ids):
        await newer.append(run_id, note(run_id, 1))
    assert len((await newer.list_runs()).runs) == 7
    # The first step writes to no partition: nothing tells other programs of the raise.
    assert str(newer._keys.counts) == ("1" if steps == 1 else "1,4")


async def test_a_run_that_is_created_again_belongs_to_the_new_number(program: Open) -> None:
    """Programs that know its old partition find it."""
    old, new = program(), program()
    (run_id,) = elsewhere(16, 1)
    await old.create(run_id, "work")
    await raise_partitions(new, 16)
    await new.append(run_id, note(run_id, "first life"))
    assert (await old.snapshot(run_id)).version == 2
    await new.delete(run_id, force=True)
    with pytest.raises(RunNotFoundError):
        await old.get_status(run_id)
    await old.create(run_id, "work")
    assert old._keys.partition(run_id) != 0
    await new.append(run_id, note(run_id, "second life"))
    await old.finish(run_id, RunState.COMPLETED)
    assert await data_of(new, run_id) == ["second life"]
    assert (await older_runs(new)).are_gone


async def test_an_archive_is_restored_by_the_new_number(program: Open) -> None:
    """A run of before, deleted and restored; it is restored once."""
    old, new = program(), program()
    (run_id,) = elsewhere(16, 1)
    await old.create(run_id, "work", input={"n": 1})
    archive = await old.archive(run_id)
    await raise_partitions(new, 16)
    assert await old.restore(archive) is False
    await new.delete(run_id, force=True)
    assert await old.restore(archive) is True
    assert await new.restore(archive) is False
    assert await new.get_input(run_id) == {"n": 1}
    assert (await older_runs(new)).are_gone


async def test_letters_of_before_are_submitted_again(program: Open) -> None:
    """In their partition, with their runs there or gone, by programs that look for a first time."""
    old, new = program(), program()
    ids = elsewhere(16, 2)
    for run_id in ids:
        await old.submit(run_id, "work", input={"n": run_id})
        await old.finish(run_id, RunState.FAILED, error="it broke", dead="not_retryable")
    await raise_partitions(new, 16)
    await new.delete(ids[1])
    for run_id in ids:
        again = await program().dead_letters().requeue(run_id)
        assert await old.get_input(again) == {"n": run_id}
    assert (await new.dead_letters().list()).letters == ()


async def test_numbers_are_forgotten_when_their_runs_are_gone(program: Open) -> None:
    """Not before; programs that use the older numbers go on."""
    old, new = program(), program()
    before, after = elsewhere(16, 2)
    await old.create(before, "work")
    await raise_partitions(new, 16)
    await old.create(after, "work")
    with pytest.raises(StoreConfigurationError, match="1 live runs, 0 ended"):
        await forget_numbers(new)
    await old.delete(before, force=True)
    assert str(await forget_numbers(new)) == "16"
    await old.append(after, note(after, 1))
    await old.create(before, "work")
    assert str(old._keys.counts) == "16"
    assert {run.run_id for run in (await new.list_runs()).runs} == {before, after}


async def test_a_program_may_name_any_number_that_runs_have(program: Open, space: Space) -> None:
    """A program that starts with an older number in its settings goes on by the newest one."""
    await raise_partitions(program(), 4)
    await raise_partitions(program(), 16)
    for number in (None, 1, 4, 16):
        async with space.store(partitions=number) as store:
            await store.ping()
            assert str(store._keys.counts) == "1,4,16"
    store = space.store(partitions=2)
    with pytest.raises(StoreConfigurationError, match="partitions=1,4,16"):
        await store.ping()
    await store.close()


async def test_a_raise_that_the_server_lost_is_written_again(program: Open, space: Space) -> None:
    """A failover can take the records back; programs that know the new numbers restore them."""
    old, new = program(), program()
    await old.create("before", "work")
    await raise_partitions(new, 4)
    for key in (space.keys.meta, space.keys.partition_meta(0)):
        space.admin.hset(key, "partitions", "1")
    await new.ping()
    recorded = [
        space.admin.hget(space.keys.partition_meta(each), "partitions") for each in range(4)
    ]
    assert recorded == [b"1,4"] * 4
    await old.create("after", "work")
    assert str(old._keys.counts) == "1,4"
