"""A run that is cancelled, at any moment, ends cancelled, and its journal records how."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from murmur_streams import Backoff, Cancellation, Fleet, RunContext, RunHandle
from murmur_streams.core.model.errors import InvalidInputError, RunCancelledError, RunNotFoundError
from murmur_streams.core.model.states import RunState
from murmur_streams.core.model.work import Claimed
from murmur_streams.fleet.execution.endings import Endings
from murmur_streams.fleet.worker import Worker
from murmur_streams.stores.redis.queue import Queue
from tests.fleet.queueing import take
from tests.fleet.stage import PATIENCE_SECONDS, wait_until
from tests.fleet.working import working
from tests.servers import Space

WAKE_UP = threading.Event()


async def fields_of(handle: RunHandle[Any], entry_type: str) -> list[dict[str, str]]:
    """The fields of the run's entries of one type."""
    store = await handle._stores.get()
    journal = [entry async for entry in store.journal(handle.run_id)]
    return [dict(entry.fields) for entry in journal if entry.type == entry_type]


async def check_cancelled(
    handle: RunHandle[Any], cancellation: Cancellation, *, how: str, delivered: bool
) -> None:
    """The run ended cancelled, once, and each step of the cancel is in its journal."""
    run = await handle.snapshot()
    assert (run.state, cancellation.state) == (RunState.CANCELLED, RunState.CANCELLED)
    assert cancellation.how == how
    assert cancellation.requested is not None
    assert cancellation.stopped is not None
    assert (cancellation.delivered is not None) is delivered
    times = [cancellation.requested, cancellation.delivered, cancellation.stopped]
    found = [moment for moment in times if moment is not None]
    assert found == sorted(found)
    (asked,) = await fields_of(handle, "run.cancel_requested")
    assert asked.get("reason") == run.cancel_reason
    assert len(await fields_of(handle, "run.cancel_delivered")) == int(delivered)
    ends = [each for each in await fields_of(handle, "run.state") if each["state"] == "cancelled"]
    assert [each.get("stopped") for each in ends] == [how]
    assert len(await fields_of(handle, "run_cancelled")) == 1
    with pytest.raises(RunCancelledError):
        await handle.output(timeout=30)
    report = await (await handle._stores.get()).audit(handle.run_id)
    assert report.ok, report


async def in_state(handle: RunHandle[Any], state: RunState, attempt: int) -> None:
    """Wait until the run is in this state, at this attempt."""

    async def is_in() -> bool:
        run = await handle.snapshot()
        return (run.state, run.attempt) == (state, attempt)

    await wait_until(is_in, f"run {handle.run_id} is {state}")


async def test_a_run_that_waits_never_starts(fleet: Fleet) -> None:
    """A worker that comes later does not execute it."""
    handle = await fleet.submit("fine", 1)
    cancellation = await handle.cancel(reason="not needed")
    await check_cancelled(handle, cancellation, how="pending", delivered=False)
    async with working(fleet):
        assert await (await fleet.submit("fine", 1)).output(timeout=30) == 2
    assert (await handle.snapshot()).attempt == 0
    with pytest.raises(RunCancelledError, match="not needed"):
        await handle.output()


async def test_a_delayed_run_never_starts(fleet: Fleet) -> None:
    """A run that is not due is cancelled in the step of the request."""
    handle = await fleet.submit("fine", 1, delay=3600)
    await check_cancelled(handle, await handle.cancel(wait=True), how="pending", delivered=False)


async def test_a_run_that_waits_for_its_next_try_is_not_tried_again(fleet: Fleet) -> None:
    """Between two executions a cancel ends the run at once."""

    @fleet.agent(retries=3, backoff=Backoff(first_seconds=3600, most_seconds=3600))
    async def fails() -> None:
        raise ValueError("no")

    async with working(fleet):
        handle = await fleet.submit(fails)
        await in_state(handle, RunState.PENDING, 1)
        cancellation = await handle.cancel()
    await check_cancelled(handle, cancellation, how="pending", delivered=False)


async def test_a_handler_is_cancelled_and_may_clean_up(fleet: Fleet) -> None:
    """It gets CancelledError, and may still write to its run."""
    began = asyncio.Event()

    @fleet.agent
    async def waits(run: RunContext) -> None:
        try:
            began.set()
            await asyncio.sleep(3600)
        finally:
            assert run.cancelled
            await run.emit("cleaned up")

    async with working(fleet) as worker:
        handle = await fleet.submit(waits)
        await began.wait()
        cancellation = await handle.cancel(wait=True, reason="enough")
        await check_cancelled(handle, cancellation, how="handler", delivered=True)
        events = [event async for event in handle.stream()]
        assert [event.name for event in events if event.name] == ["cleaned up"]
        await counted(worker, cancelled=1)
        assert await (await fleet.submit("fine", 1)).output(timeout=30) == 2


async def counted(worker: Worker, **counts: int) -> None:
    """Wait until the worker, which hears of a run's end after all others, has counted so many."""

    async def are_counted() -> bool:
        return worker.held == [] and counts.items() <= worker.counts.items()

    await wait_until(are_counted, f"the worker counts {counts}")


async def test_a_blocking_handler_looks_whether_it_is_cancelled(fleet: Fleet) -> None:
    """run.cancelled becomes true in a def agent, and its return value is dropped."""
    began = asyncio.Event()
    loop = asyncio.get_running_loop()

    @fleet.agent
    def waits(run: RunContext) -> str:
        loop.call_soon_threadsafe(began.set)
        while not run.cancelled:
            time.sleep(0.01)
        run.emit("cleaned up")
        return "whatever it says"

    async with working(fleet):
        handle = await fleet.submit(waits)
        await began.wait()
        cancellation = await handle.cancel(wait=True)
        await check_cancelled(handle, cancellation, how="handler", delivered=True)
    events = [event async for event in handle.stream()]
    assert [event.name for event in events if event.name] == ["cleaned up"]


async def swallows() -> None:
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            continue


async def returns() -> str:
    try:
        await asyncio.sleep(3600)
    except asyncio.CancelledError:
        return "partial"
    return "whole"


async def raises() -> None:
    try:
        await asyncio.sleep(3600)
    finally:
        raise ValueError("while it was cancelled")


def sleeps_on() -> None:
    WAKE_UP.wait(PATIENCE_SECONDS)


@pytest.mark.parametrize(
    ("handler", "how"),
    [(returns, "handler"), (raises, "handler"), (swallows, "grace"), (sleeps_on, "grace")],
)
async def test_the_run_ends_cancelled_whatever_its_handler_does(
    fleet: Fleet, handler: Callable[..., Any], how: str
) -> None:
    """Returning, raising, swallowing the cancellation or going on makes no difference."""
    WAKE_UP.clear()
    # An agent that reacts to its cancellation has all the time that it needs.
    fleet.agent(cancel_grace_seconds=0.1 if how == "grace" else 3600)(handler)
    async with working(fleet, concurrency=1) as worker:
        handle = await fleet.submit(handler)
        await in_state(handle, RunState.RUNNING, 1)
        await begun(worker)
        cancellation = await handle.cancel(wait=True)
        await check_cancelled(handle, cancellation, how=how, delivered=True)
        # Its slot is free, also of what will not end.
        assert await (await fleet.submit("fine", 1)).output(timeout=30) == 2
        await counted(worker, cancelled=1, completed=1)
        WAKE_UP.set()


async def begun(worker: Worker) -> None:
    """Wait until the worker's only execution has called its handler."""

    async def has_begun() -> bool:
        return any(
            execution._handler is not None
            and (execution._in_thread or execution._handler.get_stack() != [])
            for execution, _ in worker._executions._under_way.values()
        )

    await wait_until(has_begun, "the handler is called")
    await asyncio.sleep(0)


async def test_what_was_left_behind_writes_nothing_more(fleet: Fleet) -> None:
    """The next write of a handler that outlives its grace time is refused."""
    began, opened, refused = asyncio.Event(), asyncio.Event(), asyncio.Event()

    @fleet.agent(cancel_grace_seconds=0.05)
    async def stays(run: RunContext) -> None:
        began.set()
        while not opened.is_set():
            try:
                await opened.wait()
            except asyncio.CancelledError:
                continue
        try:
            await run.emit("late")
        finally:
            refused.set()

    async with working(fleet) as worker:
        handle = await fleet.submit(stays)
        await began.wait()
        cancellation = await handle.cancel(wait=True)
        await check_cancelled(handle, cancellation, how="grace", delivered=True)
        await left_behind(worker, 1)
        before = await handle.snapshot()
        opened.set()
        await refused.wait()
        await left_behind(worker, 0)
        assert await handle.snapshot() == before


async def left_behind(worker: Worker, count: int) -> None:
    """Wait until so many handlers go on though they were given up."""

    async def are_left() -> bool:
        return worker.left_behind == count

    await wait_until(are_left, f"{count} handlers are left behind")


async def test_asking_twice_is_asking_once(fleet: Fleet) -> None:
    """The second request leaves the time and the reason of the first."""
    began, opened = asyncio.Event(), asyncio.Event()

    @fleet.agent(cancel_grace_seconds=3600)
    async def cleans_up_for_long() -> None:
        try:
            began.set()
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            await opened.wait()

    async with working(fleet):
        handle = await fleet.submit(cleans_up_for_long)
        await began.wait()
        first = await handle.cancel(reason="one")
        assert (first.state, first.stopped, first.how) == (RunState.RUNNING, None, None)
        assert first.requested is not None
        second = await handle.cancel(reason="two", wait=0.05)
        assert (second.state, second.requested) == (RunState.RUNNING, first.requested)
        opened.set()
        third = await handle.cancel(wait=True)
        await check_cancelled(handle, third, how="handler", delivered=True)
    assert (await handle.snapshot()).cancel_reason == "one"
    again = await handle.cancel()
    assert again == third


async def test_a_run_that_has_ended_stays_as_it_is(fleet: Fleet) -> None:
    """The call returns how the run ended; an unknown run raises."""
    async with working(fleet):
        handle = await fleet.submit("fine", 1)
        assert await handle.output(timeout=30) == 2
        before = await handle.snapshot()
        assert await handle.cancel(wait=True) == Cancellation(RunState.COMPLETED)
    assert await handle.snapshot() == before
    with pytest.raises(RunNotFoundError):
        await fleet.handle("unknown").cancel()


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"reason": 5}, "reason is 5, but must be text"),
        ({"wait": -1}, "wait is -1, but must be a number of seconds from 0"),
        ({"wait": "1m"}, "wait is '1m'"),
    ],
)
async def test_an_option_of_a_cancel_out_of_bounds_is_refused(
    fleet: Fleet, options: dict[str, Any], name: str
) -> None:
    """The error names the option, and nothing is requested."""
    handle = await fleet.submit("fine", 1)
    with pytest.raises(InvalidInputError, match=name):
        await handle.cancel(**options)
    assert (await handle.status()).state is RunState.PENDING


@pytest.mark.parametrize("fails", [False, True], ids=["completing", "failing"])
@pytest.mark.fault("F31")
async def test_a_cancel_while_the_run_ends_is_not_lost(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, *, fails: bool
) -> None:
    """The handler has ended, and its last write is under way: "running" is still right."""
    found: list[Cancellation] = []
    heard: list[Endings] = []
    end: Callable[..., Awaitable[Any]] = Endings._end

    async def ends(self: Endings, *given: Any, **named: Any) -> Any:
        if not found:
            found.append(await fleet.handle(self._claim.run_id).cancel())
            heard.append(self)
            await wait_until(has_heard, "the worker hears of the cancel")
        return await end(self, *given, **named)

    async def has_heard() -> bool:
        return heard[0].cancel_requested

    monkeypatch.setattr(Endings, "_end", ends)

    @fleet.agent
    async def ends_soon() -> int:
        if fails:
            raise ValueError("no")
        return 1

    async with working(fleet) as worker:
        handle = await fleet.submit(ends_soon)
        with pytest.raises(RunCancelledError):
            await handle.output(timeout=30)
    assert (worker.counts["cancelled"], worker.counts["claimed"]) == (1, 1)
    assert [each.state for each in found] == [RunState.RUNNING]
    await check_cancelled(handle, await handle.cancel(), how="handler", delivered=False)
    assert (await fleet.dead.list()).letters == ()


async def test_a_cancel_that_overtakes_its_own_claim_is_not_lost(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server has handed the run out, and its worker does not know yet."""
    ran: list[int] = []

    @fleet.agent
    async def never() -> None:
        ran.append(1)

    def slowly(claim: Callable[..., Awaitable[Claimed]]) -> Callable[..., Awaitable[Claimed]]:
        async def claims(*given: Any, **named: Any) -> Claimed:
            claimed = await claim(*given, **named)
            for each in claimed.claims:
                await fleet.handle(each.run_id).cancel()

                async def has_come(token: str = each.token) -> bool:
                    return token in worker._executions._early

                await wait_until(has_come, "the cancel has come before the claim")
            return claimed

        return claims

    monkeypatch.setattr(Queue, "claim", slowly(Queue.claim))
    monkeypatch.setattr(Queue, "wait_and_claim", slowly(Queue.wait_and_claim))
    async with working(fleet, lease_seconds=3600) as worker:
        handle = await fleet.submit(never)
        with pytest.raises(RunCancelledError):
            await handle.output(timeout=30)
    await check_cancelled(handle, await handle.cancel(), how="handler", delivered=True)
    assert ran == []


async def test_a_lost_wake_up_is_made_good_by_the_heartbeat(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the message, the next heartbeat brings the cancel."""

    async def deaf(*_: Any) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(Queue, "control", deaf)
    began = asyncio.Event()

    @fleet.agent
    async def waits() -> None:
        began.set()
        await asyncio.sleep(3600)

    async with working(fleet, lease_seconds=1):
        handle = await fleet.submit(waits)
        await began.wait()
        cancellation = await handle.cancel(wait=True)
        await check_cancelled(handle, cancellation, how="handler", delivered=True)


async def test_a_listener_resumes_after_a_cut_connection(fleet: Fleet, space: Space) -> None:
    """With this lease, no heartbeat comes before the end of the test."""
    began = asyncio.Event()

    def listeners() -> list[str]:
        return [row["id"] for row in space.admin.client_list() if row["cmd"] == "xread"]

    async def is_listening() -> bool:
        return len(listeners()) == 1

    @fleet.agent
    async def waits() -> None:
        began.set()
        await asyncio.sleep(3600)

    async with working(fleet, lease_seconds=3600):
        for _ in range(3):
            handle = await fleet.submit(waits)
            await began.wait()
            began.clear()
            await wait_until(is_listening, "the worker listens")
            (listener,) = listeners()
            space.admin.client_kill_filter(_id=listener)
            cancellation = await handle.cancel(wait=True)
            await check_cancelled(handle, cancellation, how="handler", delivered=True)


async def test_a_cancelled_run_is_not_tried_again_when_it_fails(fleet: Fleet) -> None:
    """A handler that raises after the cancel is not retried."""
    began = asyncio.Event()

    @fleet.agent(retries=99, backoff=Backoff(first_seconds=0))
    async def fails_when_cancelled(run: RunContext) -> None:
        began.set()
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            raise ValueError("instead") from None

    async with working(fleet):
        handle = await fleet.submit(fails_when_cancelled)
        await began.wait()
        cancellation = await handle.cancel(wait=True)
        await check_cancelled(handle, cancellation, how="handler", delivered=True)
    assert (await handle.snapshot()).attempt == 1


async def test_a_cancelled_run_whose_worker_stops_is_not_handed_on(fleet: Fleet) -> None:
    """The run ends cancelled when its worker releases it."""
    began = asyncio.Event()

    @fleet.agent(cancel_grace_seconds=3600)
    async def stays() -> None:
        began.set()
        await swallows()

    async with working(fleet):
        handle = await fleet.submit(stays)
        await began.wait()
        assert (await handle.cancel()).state is RunState.RUNNING

        async def is_cancelled() -> bool:
            return (await handle.cancel()).delivered is not None

        await wait_until(is_cancelled, "the handler is cancelled before its worker stops")
    await check_cancelled(handle, await handle.cancel(), how="grace", delivered=True)


async def test_a_cancelled_run_whose_worker_is_lost_ends_cancelled(fleet: Fleet) -> None:
    """Another worker's housekeeping ends it when the lease is over."""
    handle = await fleet.submit("fine", 1)
    store = await fleet.store()
    ghost = store.queue(lease_seconds=0.001)
    assert len(await take(ghost, "ghost", 1, "fine")) == 1
    assert (await handle.cancel()).state is RunState.RUNNING
    async with working(fleet, lease_seconds=1):
        with pytest.raises(RunCancelledError):
            await handle.output(timeout=30)
    await check_cancelled(handle, await handle.cancel(), how="worker_lost", delivered=False)
