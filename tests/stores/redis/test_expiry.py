"""All keys of a run expire at one moment, whatever was written when; then nothing is left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from murmur_streams.core.model.events import RunEvent, RunEventType
from murmur_streams.core.model.results import AgentResult
from murmur_streams.core.model.states import RunProgress, RunState
from murmur_streams.stores.redis.store import RedisRunStore
from murmur_streams.stores.timing import wall_clock_ms
from murmur_streams.testing import wait_until
from tests.key_audit import expiry_times
from tests.servers import Space

RUN_ID = "run:1"
RECORD_MS = 600_000
RESULT = AgentResult[int](output=1, agent_name="t", task_id="1")
Ending = Callable[[RedisRunStore], Awaitable[object]]


def event(kind: RunEventType = RunEventType.CUSTOM) -> RunEvent:
    return RunEvent(type=kind, run_id=RUN_ID)


async def finish_with_everything(store: RedisRunStore) -> None:
    await store.append(RUN_ID, event())
    await store.finish(RUN_ID, RunState.COMPLETED, result=RESULT, event=event())


async def result_after_the_end(store: RedisRunStore) -> None:
    await store.set_state(RUN_ID, RunState.FAILED)
    await store.set_result(RUN_ID, RESULT)


async def late_event(store: RedisRunStore) -> None:
    await store.finish(RUN_ID, RunState.COMPLETED)
    await store.push_event(RUN_ID, event())


async def closing_event_after_the_state(store: RedisRunStore) -> None:
    await store.set_state(RUN_ID, RunState.COMPLETED)
    await store.push_event(RUN_ID, event(RunEventType.GROUP_COMPLETED))


async def sealed_by_a_reader(store: RedisRunStore) -> None:
    await store.set_state(RUN_ID, RunState.COMPLETED)
    assert [event async for event in store.stream(RUN_ID)] == []


ENDINGS: dict[str, Ending] = {
    "finished with result and event": finish_with_everything,
    "cancelled before its first event": lambda store: store.set_state(RUN_ID, RunState.CANCELLED),
    "a result after the end": result_after_the_end,
    "a late event": late_event,
    "a closing event after the state": closing_event_after_the_state,
    "sealed by a reader": sealed_by_a_reader,
}


def expiries(space: Space) -> set[int]:
    """When the keys of the run expire; -1 never."""
    found = set(expiry_times(space.admin, space.keys.of_run(RUN_ID)))
    return {int(str(moment)) for moment in found} - {-2}


def all_keys(space: Space) -> set[str]:
    """Every key but the record of the test's one store, which expires ten minutes after a call."""
    keys = {key.decode() for key in space.admin.scan_iter()}
    (record,) = [key for key in keys if key.startswith(space.keys.producer("", 0))]
    assert 0 < space.admin.pttl(record) <= RECORD_MS
    return keys - {record}


@pytest.fixture
async def stores(space: Space) -> AsyncIterator[Callable[..., RedisRunStore]]:
    """Opens stores that are closed at the test's end."""
    opened: list[RedisRunStore] = []

    def open_store(**options: Any) -> RedisRunStore:
        opened.append(space.store(late_event_seconds=0.01, **options))
        return opened[-1]

    yield open_store
    for store in opened:
        await store.close()


Stores = Callable[..., RedisRunStore]


@pytest.mark.parametrize("ending", ENDINGS)
async def test_after_the_end_every_key_of_a_run_has_the_same_expiry(
    space: Space, stores: Stores, ending: str
) -> None:
    """For each way to end a run, all its keys expire at the time in its hash."""
    store = stores(ttl_seconds=100)
    await store.create(RUN_ID, "t", input=1)
    await ENDINGS[ending](store)
    expire_at = space.admin.hget(space.keys.run(RUN_ID), "expire_at")
    assert expiries(space) == {int(str(expire_at, "ascii"))}  # pyright: ignore[reportArgumentType, reportCallIssue]


@pytest.mark.parametrize("ending", ENDINGS)
async def test_without_a_ttl_no_key_of_an_ended_run_expires(
    space: Space, stores: Stores, ending: str
) -> None:
    """With ttl_seconds=0 all keys stay."""
    store = stores(ttl_seconds=0)
    await store.create(RUN_ID, "t", input=1)
    await ENDINGS[ending](store)
    assert expiries(space) == {-1}


@pytest.mark.parametrize("ending", ENDINGS)
async def test_after_expiry_and_one_sweep_nothing_of_the_run_is_left(
    space: Space, stores: Stores, ending: str
) -> None:
    """Only the feed, the two meta keys and the store's record remain."""
    store = stores(ttl_seconds=0.3)
    await store.create(RUN_ID, "t", input=1)
    await ENDINGS[ending](store)
    await wait_until(lambda: expiries(space) == set(), "the keys expire")
    await store.sweep()
    metas = {space.keys.meta, space.keys.partition_meta(0)}
    assert all_keys(space) == {*metas, space.keys.feed(0)}


async def test_an_ended_run_leaves_no_row_in_queue_and_leases(space: Space, stores: Stores) -> None:
    """A submitted run that is cancelled leaves no row behind."""
    store = stores(ttl_seconds=0.2)
    await store.submit(RUN_ID, "t")
    await store.set_state(RUN_ID, RunState.CANCELLED)
    await wait_until(lambda: expiries(space) == set(), "the keys expire")
    await store.sweep()
    metas = {space.keys.meta, space.keys.partition_meta(0)}
    assert all_keys(space) == {*metas, space.keys.feed(0), space.keys.wake("t", 0)}


@pytest.mark.parametrize(
    "write",
    [
        lambda store: store.push_event(RUN_ID, event()),
        lambda store: store.set_result(RUN_ID, RESULT),
        lambda store: store.finish(RUN_ID, RunState.COMPLETED),
        lambda store: store.set_state(RUN_ID, RunState.RUNNING),
        lambda store: store.update_progress(RUN_ID, RunProgress()),
    ],
    ids=["push_event", "set_result", "finish", "set_state", "update_progress"],
)
@pytest.mark.parametrize("ttl_seconds", [0, 100])
async def test_writes_after_the_end_do_not_change_the_expiry(
    space: Space, stores: Stores, ttl_seconds: float, write: Ending
) -> None:
    """A late event of another process leaves the expiry of all keys as it is."""
    await stores(ttl_seconds=ttl_seconds).create(RUN_ID, "t", input=1)
    await stores(ttl_seconds=ttl_seconds).finish(RUN_ID, RunState.COMPLETED)
    before = expiries(space)
    await write(stores(ttl_seconds=7777))
    assert (len(before), expiries(space)) == (1, before)


async def test_a_live_run_expires_at_one_moment_too(space: Space, stores: Stores) -> None:
    """Its keys have one expiry, also when two stores write."""
    store = stores(live_ttl_seconds=1000)
    await store.create(RUN_ID, "t", input=1)
    await store.set_result(RUN_ID, RESULT)
    await stores(live_ttl_seconds=1000).append(RUN_ID, event())
    assert len(expiries(space)) == 1


async def test_a_live_run_without_a_live_ttl_does_not_expire(space: Space, stores: Stores) -> None:
    """With live_ttl_seconds=0 no key of it expires."""
    store = stores(live_ttl_seconds=0)
    await store.create(RUN_ID, "t", input=1)
    await store.set_result(RUN_ID, RESULT)
    await store.append(RUN_ID, event())
    assert expiries(space) == {-1}


async def test_a_run_without_a_live_ttl_expires_once_it_has_ended(
    space: Space, stores: Stores
) -> None:
    """The end gives all its keys one expiry."""
    store = stores(live_ttl_seconds=0, ttl_seconds=100)
    await store.create(RUN_ID, "t", input=1)
    await finish_with_everything(store)
    assert len(expiries(space)) == 1
    assert expiries(space) != {-1}


async def test_writes_extend_a_live_run_after_a_tenth_of_its_time(
    space: Space, stores: Stores
) -> None:
    """A write extends the expiry of a live run only when a tenth of the span has passed."""
    store = stores(live_ttl_seconds=1)
    await store.create(RUN_ID, "t", input=1)
    first = expiries(space)

    async def moved() -> bool:
        await store.append(RUN_ID, event())
        return expiries(space) != first

    await wait_until(moved, "the expiry moves on")
    assert len(expiries(space)) == 1


LIVE_TTL_MS = 100_000


def live_until(space: Space) -> int:
    return int(str(space.admin.hget(space.keys.run(RUN_ID), "live_until"), "ascii"))  # pyright: ignore[reportArgumentType, reportCallIssue]


def let_pass(space: Space, milliseconds: int) -> int:
    """Let the expiry of the run be as if it had been moved so long ago; what it is then."""
    seconds, _ = space.admin.time()
    moment = seconds * 1000 + LIVE_TTL_MS - milliseconds
    space.admin.hset(space.keys.run(RUN_ID), "live_until", str(moment))
    return moment


@pytest.mark.parametrize("behind_ms", [0, 30_000, 45_000, 51_000, 3_600_000, -3_600_000])
@pytest.mark.fault("F33")
async def test_a_busy_run_lives_whatever_its_writers_clock_says(
    space: Space, stores: Stores, behind_ms: int
) -> None:
    """Writers whose clocks are wrong still move its deadline on."""
    store = stores(live_ttl_seconds=LIVE_TTL_MS / 1000, clock=lambda: wall_clock_ms() - behind_ms)
    await store.create(RUN_ID, "t")
    for passed_ms in (50_000, 99_000):
        before = let_pass(space, passed_ms)
        await store.append(RUN_ID, event())
        assert live_until(space) > before + passed_ms - 5_000
        await store.append(RUN_ID, event())
    before = let_pass(space, 100)
    await store.append(RUN_ID, event())
    assert live_until(space) == before
    # The key audit must not see the expiry that the test changed by hand.
    await store.delete(RUN_ID, force=True)


async def test_a_deleted_run_leaves_only_a_tombstone_for_a_minute(
    space: Space, stores: Stores
) -> None:
    """Its journal stays, until it expires."""
    store = stores()
    await store.create(RUN_ID, "t", input=1)
    await finish_with_everything(store)
    await store.delete(RUN_ID)
    metas = {space.keys.meta, space.keys.partition_meta(0)}
    assert all_keys(space) == {*metas, space.keys.feed(0), space.keys.journal(RUN_ID)}
    assert len(expiries(space) - {-1}) == 1


@pytest.mark.parametrize(("ttl_seconds", "deletes"), [(100, False), (0, False), (100, True)])
async def test_a_record_of_an_earlier_version_expires_with_its_run(
    space: Space, stores: Stores, ttl_seconds: float, deletes: bool
) -> None:
    """A run has the hash ``producers`` if a program of an earlier version wrote to it."""
    store = stores(ttl_seconds=ttl_seconds)
    await store.create(RUN_ID, "t")
    (live,) = expiry_times(space.admin, [space.keys.run(RUN_ID)])
    space.admin.hset(space.keys.producers(RUN_ID), "p", "1 OK 2")
    space.admin.pexpireat(space.keys.producers(RUN_ID), live)
    await store.finish(RUN_ID, RunState.COMPLETED)
    if deletes:
        await store.delete(RUN_ID)
    (moment,) = expiries(space)
    assert (moment == -1) == (ttl_seconds == 0)
    assert space.admin.exists(space.keys.producers(RUN_ID))


async def test_an_earlier_versions_record_among_many_ends_expires(
    space: Space, stores: Stores
) -> None:
    """The ends of a call look for such records together."""
    store = stores()
    await asyncio.gather(*(store.create(run_id, "t") for run_id in (RUN_ID, "b", "c")))
    space.admin.hset(space.keys.producers("b"), "p", "1 OK 2")
    ends = (store.finish(run_id, RunState.COMPLETED) for run_id in (RUN_ID, "b", "c"))
    await asyncio.gather(*ends)
    assert expiry_times(space.admin, [space.keys.producers("b")]) == expiry_times(
        space.admin, [space.keys.run("b")]
    )


async def test_creating_runs_removes_what_expiry_left_behind(space: Space, stores: Stores) -> None:
    """A create also removes index rows of an expired run."""
    store = stores(ttl_seconds=0.1)
    await store.create(RUN_ID, "t")
    await store.finish(RUN_ID, RunState.COMPLETED)
    await wait_until(lambda: expiries(space) == set(), "the keys expire")
    await store.create("another", "t")
    assert await store.sweep() == 0
