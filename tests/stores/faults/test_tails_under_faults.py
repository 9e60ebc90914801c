"""Each subscriber sees every event exactly once, or an error that says why it cannot."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from murmur_streams.core.model.errors import CursorGapError, CursorResetError
from murmur_streams.core.model.events import RunEvent, RunEventType
from murmur_streams.core.model.states import RunState
from murmur_streams.stores.redis.live import hub
from murmur_streams.stores.redis.store import RedisRunStore
from murmur_streams.testing.faults import Fault, FaultProxy, always, calls, commands, nothing
from tests.stores.faults.conftest import StoreMaker
from tests.stores.faults.events import names_in_stream, note
from tests.stores.faults.waiting import wait_for_subscribers, wait_until

SUBSCRIBERS = 10
EVENTS = 60


@pytest.fixture
async def run(store: RedisRunStore) -> str:
    await store.create("run", "work")
    return "run"


def names(count: int) -> list[str]:
    return [f"event {number}" for number in range(count)]


@pytest.mark.parametrize("seed", range(3))
async def test_ten_subscribers_on_cut_connections_see_each_event(
    seed: int, run: str, store: RedisRunStore, proxy: FaultProxy, straight: RedisRunStore
) -> None:
    """Each subscriber gets each event once and in order."""
    dice = random.Random(seed)
    faults = [Fault.DROP_REPLY, Fault.CUT_REPLY, Fault.BYTE_BY_BYTE, Fault.DROP_REQUEST]
    reads = commands("XREAD", "XRANGE", "HMGET")
    proxy.plan = lambda parts: (
        dice.choice(faults)
        if reads(parts) and (not proxy.seen or dice.random() < 0.2)
        else Fault.NONE
    )
    readers = [asyncio.create_task(names_in_stream(store, run)) for _ in range(SUBSCRIBERS)]
    for name in names(EVENTS):
        await straight.append(run, note(run, name))
        if dice.random() < 0.3:
            proxy.cut_some(dice)
        await asyncio.sleep(0)
    await straight.finish(run, RunState.COMPLETED)
    seen = await asyncio.gather(*readers)
    assert seen == [names(EVENTS)] * SUBSCRIBERS
    # All of them share one reader and its reads; the first has met a fault for certain.
    assert proxy.seen


async def test_the_last_event_is_seen_after_the_state_and_cuts(
    proxy: FaultProxy, store: RedisRunStore, straight: RedisRunStore
) -> None:
    """The end of the run comes before its closing event, and connections are cut."""
    dice = random.Random(7)
    for number in range(20):
        run_id = f"run-{number}"
        await straight.create(run_id, "work")
        readers = [asyncio.create_task(names_in_stream(store, run_id)) for _ in range(3)]
        await straight.set_state(run_id, RunState.COMPLETED)
        proxy.cut_some(dice)
        last = RunEvent(type=RunEventType.AGENT_COMPLETED, run_id=run_id, name="last")
        await straight.push_event(run_id, last)
        assert await asyncio.gather(*readers) == [["last"]] * 3


async def test_a_deleted_runs_blocked_subscribers_end(
    run: str, store: RedisRunStore, straight: RedisRunStore, admin: Redis
) -> None:
    """Each stream ends after the events that came before the deletion."""
    await store.append(run, note(run, "a"))
    readers = [asyncio.create_task(names_in_stream(store, run)) for _ in range(3)]
    await wait_for_subscribers(store, admin, 3)
    assert await straight.delete(run, force=True) is True
    assert await asyncio.gather(*readers) == [["a"]] * 3


async def test_a_delete_during_a_cut_ends_the_subscriber(
    run: str, store: RedisRunStore, straight: RedisRunStore, admin: Redis, proxy: FaultProxy
) -> None:
    """Its stream ends as those of other subscribers do."""
    await store.append(run, note(run, "a"))
    reader = asyncio.create_task(names_in_stream(store, run))
    await wait_for_subscribers(store, admin, 1)
    proxy.plan = always(Fault.DROP_REQUEST, commands("XREAD", "HMGET"))
    proxy.cut_all()
    await wait_until(lambda: len(proxy.seen) > 1, "the subscriber tries to come back")
    await straight.append(run, note(run, "b"))
    await straight.delete(run, force=True)
    proxy.plan = nothing
    assert await reader == ["a", "b"]


async def test_a_delete_before_the_seal_ends_subscribers(
    proxy: FaultProxy, make_store: StoreMaker, straight: RedisRunStore
) -> None:
    """The subscriber was about to seal the run."""
    store = make_store(proxy.url, late_event_seconds=0.05)
    await store.create("run", "work")
    await store.set_state("run", RunState.FAILED)
    # The subscriber's call that would seal the run finds no run any more.
    proxy.plan = always(Fault.DROP_REQUEST, calls("seal"))
    reader = asyncio.create_task(names_in_stream(store, "run"))
    await wait_until(lambda: bool(proxy.seen), "the subscriber asks for the seal")
    await straight.delete("run")
    proxy.plan = nothing
    assert await reader == []


@pytest.mark.leaves("*:journal:*")
async def test_a_lost_hash_ends_the_subscriber(
    run: str, store: RedisRunStore, admin: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hash that was deleted by hand is a CursorResetError at the next look."""
    monkeypatch.setattr(hub, "EXISTS_SECONDS", 0.1)
    reader = asyncio.create_task(names_in_stream(store, run))
    await wait_for_subscribers(store, admin, 1)
    await admin.delete(store._keys.run(run))
    with pytest.raises(CursorResetError, match="is gone") as caught:
        await reader
    assert caught.value.resume_cursor is None


async def test_a_new_run_with_the_same_id_resets_subscribers(
    run: str, store: RedisRunStore, straight: RedisRunStore, admin: Redis
) -> None:
    """They see no event of the new run."""
    readers = [asyncio.create_task(names_in_stream(store, run)) for _ in range(3)]
    await wait_for_subscribers(store, admin, 3)
    await admin.delete(*store._keys.of_run(run))
    await straight.create(run, "work")
    ends = await asyncio.gather(*readers, return_exceptions=True)
    assert {type(end) for end in ends} == {CursorResetError}


async def read_some(store: RedisRunStore, run_id: str, count: int) -> AsyncIterator[RunEvent]:
    """A subscriber that has seen ``count`` events and is not reading just now."""
    stream = store.stream(run_id)
    for _ in range(count):
        await anext(stream)
    return stream


@pytest.mark.fault("F38")
async def test_a_trim_under_a_stalled_subscriber_is_a_gap(
    run: str, store: RedisRunStore, straight: RedisRunStore, admin: Redis
) -> None:
    """The error's cursor is one from which the subscriber can resume."""
    await straight.append(run, *(note(run, name) for name in names(3)))
    stalled = await read_some(store, run, 3)
    await wait_for_subscribers(store, admin, 1)
    # More than the process keeps in memory for a subscriber that does not read.
    await straight.append(run, *(note(run, name) for name in names(400)[3:]))
    await wait_until(
        lambda: reported(store, run) == 401, "the live source has delivered all of them"
    )
    await admin.xtrim(store._keys.journal(run), maxlen=5, approximate=False)
    with pytest.raises(CursorGapError, match="entries 5 to 396") as caught:
        await anext(stalled)
    await straight.finish(run, RunState.COMPLETED)
    after = caught.value.resume_cursor
    assert await names_in_stream(store, run, after) == names(400)[395:]


def reported(store: RedisRunStore, run: str) -> int:
    """The seq up to which the store's live source has delivered a run."""
    return int(store._tails._live[0]._followed[run].last_id.partition("-")[2])


async def test_a_cursor_of_a_trimmed_entry_is_a_gap(
    run: str, store: RedisRunStore, straight: RedisRunStore, admin: Redis
) -> None:
    """The error's cursor is one from which the subscriber can resume."""
    for name in names(20):
        await straight.append(run, note(run, name))
    await straight.finish(run, RunState.COMPLETED)
    ids = [event.id async for event in straight.stream(run)]
    await admin.xtrim(store._keys.journal(run), maxlen=6, approximate=False)
    with pytest.raises(CursorGapError) as caught:
        await names_in_stream(store, run, ids[3])
    assert await names_in_stream(store, run, caught.value.resume_cursor) == names(20)[15:]
    # The entry itself is gone, but nothing after it is.
    assert await names_in_stream(store, run, ids[14]) == names(20)[15:]


async def test_a_cursor_beyond_the_end_is_a_reset(
    run: str, store: RedisRunStore, straight: RedisRunStore
) -> None:
    """A cursor after more entries than the run has shows that writes were lost."""
    await straight.append(run, note(run, "a"))
    event = await anext(straight.stream(run))
    assert event.id is not None
    beyond = event.id.rpartition("-")[0] + "-99"
    with pytest.raises(CursorResetError):
        await names_in_stream(store, run, beyond)


async def rewind(
    admin: Redis, store: RedisRunStore, run: str, dumps: dict[str, bytes | None]
) -> None:
    """Set a run back, as a failover to a replica that lags behind does."""
    for key, dump in dumps.items():
        expires_at = max(await admin.pexpiretime(key), 0)
        await admin.execute_command("RESTORE", key, expires_at, dump, "REPLACE", "ABSTTL")


@pytest.mark.parametrize("cut", [False, True])
@pytest.mark.fault("F16")
async def test_a_journal_rewound_by_a_failover_is_a_reset(
    cut: bool,
    run: str,
    store: RedisRunStore,
    straight: RedisRunStore,
    admin: Redis,
    proxy: FaultProxy,
) -> None:
    """A subscriber never sees another history as if it continued its own."""
    await straight.append(run, note(run, "kept"))
    assert isinstance(straight.client, Redis)
    raw = Redis(connection_pool=straight.client.connection_pool)
    keys = [key for key in store._keys.of_run(run) if await admin.exists(key)]
    dumps = {key: await raw.dump(key) for key in keys}
    for name in names(5):
        await straight.append(run, note(run, name))
    reader = asyncio.create_task(names_in_stream(store, run))
    await wait_for_subscribers(store, admin, 1)
    await rewind(admin, store, run, dumps)
    if cut:
        proxy.cut_all()
    else:
        await straight.append(run, note(run, "another history"))
    with pytest.raises(CursorResetError):
        await reader
