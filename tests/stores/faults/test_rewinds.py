"""A server that lost acknowledged writes: the next write that builds on them learns of it, once."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from redis.asyncio import Redis

from murmur_streams.core.model.errors import (
    CursorResetError,
    RunNotFoundError,
    StoreRewoundError,
    WrongExpectedVersionError,
)
from murmur_streams.core.model.states import RunProgress, RunState
from murmur_streams.core.model.work import TargetRule
from murmur_streams.embedded import EmbeddedServer
from murmur_streams.interop import murmur_runtime
from murmur_streams.stores.redis.numbered_calls import REMEMBERED_RUNS
from murmur_streams.stores.redis.rewinds import CONTINUING_COMMANDS
from murmur_streams.stores.redis.store import RedisRunStore
from murmur_streams.stores.timing import wall_clock_ms
from murmur_streams.testing.faults import Fault, FaultProxy, calls, once
from murmur_streams.testing.feeds import first_of_feed
from tests.stores.faults.conftest import StoreMaker
from tests.stores.faults.events import names_in_journal, names_in_stream, note
from tests.stores.faults.refusals import refusal
from tests.stores.faults.rewinding import Moment, moment_of
from tests.stores.faults.waiting import wait_for_subscribers

WRITERS = 50


Keep = Callable[[], Awaitable[Moment]]


@pytest.fixture
async def go_back(admin: Redis, server: EmbeddedServer) -> AsyncIterator[Keep]:
    """Notes what the server has, so that a test can go back to that moment."""
    async with Redis.from_url(server.url, protocol=2) as client:
        yield lambda: moment_of(client)


async def with_a_lost_event(store: RedisRunStore, go_back: Keep) -> None:
    """The run ``run`` has the event "there", and has lost the event "lost"."""
    await store.create("run", "work")
    await store.append("run", note("run", "there"))
    moment = await go_back()
    await store.append("run", note("run", "lost"))
    await moment.come_back()


@pytest.mark.fault("F16")
async def test_the_next_write_to_the_run_raises_once(
    straight: RedisRunStore, go_back: Keep
) -> None:
    """It is not written; the same call again is, after what the server still has."""
    await with_a_lost_event(straight, go_back)
    text = await refusal(straight.append("run", note("run", "next")), StoreRewoundError)
    assert "'run'" in text
    assert "nothing of this call was written" in text
    assert await names_in_journal(straight, "run") == ["there"]
    await straight.append("run", note("run", "next"))
    assert await names_in_journal(straight, "run") == ["there", "next"]


@pytest.mark.fault("F16")
async def test_runs_that_lost_nothing_go_on(straight: RedisRunStore, go_back: Keep) -> None:
    """The same call carries writes to several runs: only that of the loser fails."""
    await straight.create("other", "work")
    await straight.append("other", note("other", "a"))
    await with_a_lost_event(straight, go_back)
    lost, version, created = await asyncio.gather(
        straight.append("run", note("run", "next")),
        straight.append("other", note("other", "b")),
        straight.create("new", "work"),
        return_exceptions=True,
    )
    assert isinstance(lost, StoreRewoundError)
    assert lost.run_id == "run"
    assert (version, created) == (3, None)


async def test_all_writes_to_the_run_that_wait_raise(
    straight: RedisRunStore, go_back: Keep
) -> None:
    """Tasks that write to one run at the same moment all learn of it, and none later."""
    await with_a_lost_event(straight, go_back)

    async def write(number: int) -> object:
        return await straight.append("run", note("run", str(number)))

    first = await asyncio.gather(*map(write, range(WRITERS)), return_exceptions=True)
    assert {type(each) for each in first} == {StoreRewoundError}
    again = await asyncio.gather(*map(write, range(WRITERS)))
    assert sorted(map(str, again)) == sorted(map(str, range(3, WRITERS + 3)))


async def test_a_later_write_to_the_run_learns_of_it(
    straight: RedisRunStore, go_back: Keep
) -> None:
    """Another run's write finds the loss; the run's own next write raises, whenever it comes."""
    await with_a_lost_event(straight, go_back)
    await straight.create("new", "work")
    await straight.append("new", note("new", "a"))
    with pytest.raises(StoreRewoundError):
        await straight.append("run", note("run", "next"))
    assert await straight.append("run", note("run", "next")) == 3


async def test_a_caller_that_has_gone_does_not_count(
    straight: RedisRunStore, go_back: Keep
) -> None:
    """A cancelled call's error would not be heard: the next caller gets it."""
    await with_a_lost_event(straight, go_back)
    call = asyncio.create_task(straight.append("run", note("run", "cancelled")))
    await asyncio.sleep(0)
    call.cancel()
    await asyncio.wait([call])
    with pytest.raises(StoreRewoundError):
        await straight.append("run", note("run", "next"))
    assert await names_in_journal(straight, "run") == ["there"]


@pytest.mark.fault("F16")
async def test_an_expected_version_does_not_hide_a_loss(
    straight: RedisRunStore, go_back: Keep, server: EmbeddedServer, make_store: StoreMaker
) -> None:
    """Another program may have filled the version again, with other content."""
    await with_a_lost_event(straight, go_back)
    await make_store(server.url).append("run", note("run", "of another program"))
    with pytest.raises(StoreRewoundError):
        await straight.append("run", note("run", "next"), expected_version=3)
    assert await names_in_journal(straight, "run") == ["there", "of another program"]


async def test_an_expected_version_is_compared_after_the_loss(
    straight: RedisRunStore, go_back: Keep
) -> None:
    """A caller that ignores the loss meets the version next."""
    await with_a_lost_event(straight, go_back)
    for error in (StoreRewoundError, WrongExpectedVersionError):
        with pytest.raises(error):
            await straight.append("run", note("run", "next"), expected_version=3)


CONTINUING: dict[str, Callable[[RedisRunStore], Awaitable[object]]] = {
    "append": lambda store: store.append("run", note("run", "a")),
    "push_event": lambda store: store.push_event("run", note("run", "a")),
    "update_progress": lambda store: store.update_progress("run", RunProgress(total=1)),
    "set_state": lambda store: store.set_state("run", RunState.RUNNING),
    "finish": lambda store: store.finish("run", RunState.COMPLETED),
}


@pytest.mark.parametrize("name", CONTINUING)
async def test_every_write_that_goes_on_with_a_run_raises(
    name: str, straight: RedisRunStore, go_back: Keep
) -> None:
    """And the second one is applied."""
    assert name in CONTINUING_COMMANDS
    await with_a_lost_event(straight, go_back)
    version = (await straight.snapshot("run")).version
    with pytest.raises(StoreRewoundError):
        await CONTINUING[name](straight)
    assert (await straight.snapshot("run")).version == version
    await CONTINUING[name](straight)
    assert (await straight.snapshot("run")).version > version


async def test_a_cancel_and_a_deletion_go_on(straight: RedisRunStore, go_back: Keep) -> None:
    """They mean the same after a loss, and their answers say what they found."""
    await with_a_lost_event(straight, go_back)
    await straight.request_cancel("run")
    assert (await straight.get_status("run")).state is RunState.CANCELLED
    assert await straight.delete("run") is True


@pytest.mark.fault("F12")
async def test_a_run_that_is_gone_can_be_created_again(
    straight: RedisRunStore, admin: Redis
) -> None:
    """After FLUSHALL a create succeeds; a write that goes on with the old run raises first."""
    await straight.create("run", "work")
    await straight.append("run", note("run", "lost"))
    await admin.flushall()
    await straight.create("other", "work")
    with pytest.raises(StoreRewoundError):
        await straight.append("run", note("run", "next"))
    with pytest.raises(RunNotFoundError):
        await straight.append("run", note("run", "next"))
    await straight.create("run", "work")
    assert await straight.append("run", note("run", "first")) == 2


async def test_a_loss_is_counted_logged_and_reported(
    server: EmbeddedServer, make_store: StoreMaker, go_back: Keep, log: pytest.LogCaptureFixture
) -> None:
    """Once, with the runs that lost writes; an error of the callback ends nothing."""
    heard: list[frozenset[str]] = []

    def on_rewind(run_ids: frozenset[str]) -> None:
        heard.append(run_ids)
        raise ValueError("a bug of the user's")

    store = make_store(server.url, on_rewind=on_rewind)
    await store.create("other", "work")
    await with_a_lost_event(store, go_back)
    assert store.rewinds == 0
    await store.create("new", "work")
    await store.create("newer", "work")
    assert (store.rewinds, heard) == (1, [frozenset({"run"})])
    warnings = [each for each in log.records if each.levelno == logging.WARNING]
    assert [each.getMessage().endswith("lost writes: run") for each in warnings] == [True]
    assert "a bug of the user's" in log.text


async def test_a_worker_writes_the_end_of_a_run_that_lost_events(
    straight: RedisRunStore, go_back: Keep
) -> None:
    """Its claim is there: the end writer goes on by itself."""
    from murmur_streams.fleet.execution.end_writes import EndWriter

    await straight.submit("run", "work")
    queue = straight.queue(lease_seconds=60)
    (claim,) = (await queue.claim("w", [TargetRule("work", 1)], 1)).claims
    moment = await go_back()
    await straight.append("run", note("run", "lost"), claim=claim.token)
    await moment.come_back()
    writer = EndWriter("run run", straight.recover)
    writer.hurry()

    async def end() -> bool:
        return await straight.finish("run", RunState.COMPLETED, claim=claim.token)

    assert await writer.write(end) is True
    assert (await straight.get_status("run")).state is RunState.COMPLETED


async def test_losses_before_what_is_remembered_fail_what_waits(
    straight: RedisRunStore, go_back: Keep
) -> None:
    """The store remembers the last runs; when others may be lost, what was being written fails."""
    await straight.create("run", "work")
    moment = await go_back()
    await straight.append("run", note("run", "lost"))
    for first in range(0, 3 * REMEMBERED_RUNS, 100):
        names = [f"r-{number}" for number in range(first, first + 100)]
        await asyncio.gather(*(straight.create(name, "work") for name in names))
    await moment.come_back()
    with pytest.raises(StoreRewoundError):
        await straight.append("run", note("run", "next"))
    assert await straight.append("run", note("run", "next")) == 2


async def test_what_an_idle_store_wrote_is_not_remembered(
    straight: RedisRunStore, go_back: Keep
) -> None:
    """After four minutes without a write the store takes a new producer: the stated limit."""
    await with_a_lost_event(straight, go_back)
    straight._writer._routes.at(0)._calls.last_used -= 241
    assert await straight.append("run", note("run", "next")) == 3


async def test_each_loss_raises_once(straight: RedisRunStore, go_back: Keep) -> None:
    """A second loss of the same run is a loss of its own."""
    for version in (2, 3):
        if version == 2:
            await straight.create("run", "work")
        moment = await go_back()
        await straight.append("run", note("run", "lost"))
        await moment.come_back()
        with pytest.raises(StoreRewoundError):
            await straight.append("run", note("run", "next"))
        assert await straight.append("run", note("run", "next")) == version
    assert straight.rewinds == 2


@pytest.mark.fault("F16")
async def test_a_reader_resumes_after_what_it_surely_saw(
    straight: RedisRunStore, server: EmbeddedServer, make_store: StoreMaker, go_back: Keep
) -> None:
    """The error of a stream, and of the feed, names the last entry that is old enough."""

    def a_minute_later() -> RedisRunStore:
        return make_store(server.url, clock=lambda: wall_clock_ms() + 60_000)

    await straight.create("run", "work")
    await straight.append("run", note("run", "seen"))
    moment = await go_back()
    await a_minute_later().append("run", note("run", "lost"))
    journal = [entry async for entry in straight.journal("run")]
    feed = await first_of_feed(straight, 3)
    await moment.come_back()
    await a_minute_later().append("run", note("run", "another"))
    with pytest.raises(CursorResetError) as caught:
        await anext(straight.stream("run", after=journal[-1].cursor))
    assert caught.value.resume_cursor == journal[-2].cursor
    after = await anext(straight.stream("run", after=caught.value.resume_cursor))
    assert after.name == "another"
    with pytest.raises(CursorResetError) as caught:
        await first_of_feed(straight, 1, after=feed[-1].cursor)
    assert caught.value.resume_cursor == feed[-2].cursor
    (entry,) = await first_of_feed(straight, 1, after=caught.value.resume_cursor)
    assert entry.entry.fields["name"] == "another"


async def test_what_was_written_since_is_not_taken_for_seen(
    straight: RedisRunStore, server: EmbeddedServer, make_store: StoreMaker, go_back: Keep
) -> None:
    """An entry whose time is just before the cursor's may be another than the one before it."""
    await straight.create("run", "work")
    moment = await go_back()
    await straight.append("run", note("run", "lost"))
    await straight.append("run", note("run", "lost, too"))
    journal = [entry async for entry in straight.journal("run")]
    await moment.come_back()
    await make_store(server.url, clock=lambda: 0).append("run", note("run", "another"))
    with pytest.raises(CursorResetError) as caught:
        await anext(straight.stream("run", after=journal[-1].cursor))
    assert caught.value.resume_cursor is None


@pytest.mark.parametrize("others", [0, 20], ids=["by journals", "by the feed"])
async def test_a_reader_notices_an_entry_with_the_same_id(
    others: int,
    store: RedisRunStore,
    proxy: FaultProxy,
    server: EmbeddedServer,
    make_store: StoreMaker,
    go_back: Keep,
    admin: Redis,
) -> None:
    """Its time and number are those of the entry that is lost: its content is not."""
    clock_ms = wall_clock_ms() + 60_000

    async def write(name: str) -> None:
        await make_store(server.url, clock=lambda: clock_ms).append("run", note("run", name))

    runs = ["run", *(f"other-{number}" for number in range(others))]
    for run_id in runs:
        await store.create(run_id, "work")
    await write("there")
    readers = [asyncio.create_task(names_in_stream(store, run_id)) for run_id in runs]
    await wait_for_subscribers(store, admin, len(runs))
    moment = await go_back()
    seen = store.stream("run")
    await write("lost")
    assert [(await anext(seen)).name for _ in range(2)] == ["there", "lost"]
    await moment.come_back()
    await write("another")
    proxy.cut_all()
    for reader in (readers[0], anext(seen)):
        with pytest.raises(CursorResetError):
            await reader
    for run_id in runs[1:]:
        await make_store(server.url).finish(run_id, RunState.COMPLETED)
    assert await asyncio.gather(*readers[1:]) == [[]] * others


async def test_a_repeat_has_a_time_of_its_own(
    proxy: FaultProxy, make_store: StoreMaker, straight: RedisRunStore
) -> None:
    """With the time of its first try, its entry could have the id of one that is lost."""
    await straight.create("run", "work")
    started = wall_clock_ms() + 60_000
    clock = itertools.count(started, 1_000)
    store = make_store(proxy.url, clock=lambda: next(clock))
    proxy.plan = once(Fault.DROP_REQUEST, calls("append"))
    await store.append("run", note("run", "a"))
    (_, entry) = [entry async for entry in straight.journal("run")]
    assert (entry.ms, next(clock)) == (started + 1_000, started + 2_000)


async def test_the_dropin_goes_on_by_itself(straight: RedisRunStore, go_back: Keep) -> None:
    """An AgentServer does not know the error, and cannot decide."""
    await with_a_lost_event(straight, go_back)
    await murmur_runtime.write_again(lambda: straight.push_event("run", note("run", "next")))
    assert await names_in_journal(straight, "run") == ["there", "next"]
