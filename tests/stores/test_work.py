"""Every store with a queue keeps its promises to workers: claims, leases, and their ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from murmur_streams import open_store
from murmur_streams.core.model.errors import (
    DeadLetterNotFoundError,
    InvalidCursorError,
    InvalidInputError,
    LeaseLostError,
)
from murmur_streams.core.model.states import RunState
from murmur_streams.core.model.work import Beat, Claimed, NoticeKind, TargetRule, WorkerInfo
from murmur_streams.stores.protocol import WorkQueue
from murmur_streams.stores.work_store import WorkStore
from tests.fleet.queueing import hand_on, over, take
from tests.servers import Space

MOMENT_SECONDS = 0.01
"""Longer than a lease of a millisecond."""
HOUR_SECONDS = 3_600.0


@pytest.fixture(params=["redis", "sqlite", "rocksdb", "memory"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[WorkStore]:
    if request.param == "redis":
        space: Space = request.getfixturevalue("space")
        opened = open_store(space.url, key_prefix=space.prefix)
    elif request.param == "memory":
        opened = open_store("memory:")
    else:
        opened = open_store(f"{request.param}://{tmp_path}/runs")
    async with opened as store:
        yield store
        for run in (await store.list_runs(limit=500)).runs:
            assert (await store.audit(run.run_id)).problems == ()


@pytest.fixture
def queue(store: WorkStore) -> WorkQueue:
    """With a lease that outlasts every test."""
    return store.queue(60)


async def lose(store: WorkStore, count: int = 1) -> list[str]:
    """Claim runs for a worker that is gone at once; their ids."""
    claims = await take(store.queue(0.001), "ghost", count)
    await asyncio.sleep(MOMENT_SECONDS)
    return [claim.run_id for claim in claims]


async def bury(store: WorkStore, target: str, run_id: str) -> None:
    """Leave a dead letter."""
    await store.submit(run_id, target, input=run_id)
    (claim,) = await take(store.queue(60), "w", 1, target)
    await store.finish(run_id, RunState.FAILED, error="no", claim=claim.token, dead="not_retryable")


async def test_a_claim_has_what_an_execution_needs(store: WorkStore, queue: WorkQueue) -> None:
    """Input, trace, deadline, attempt and token of the run."""
    trace = {"traceparent": "00-1-2-01"}
    await store.submit("run", "work", input={"a": 1}, deadline_seconds=60, trace=trace)
    (claim,) = (await queue.claim("w", [TargetRule("work")], 5, "host")).claims
    assert (claim.run_id, claim.target, claim.attempt) == ("run", "work", 1)
    assert (claim.failures, claim.excused, claim.checkpoint_json) == (0, 0, None)
    assert (claim.input_json, claim.trace) == ('{"a":1}', trace)
    assert 59 < (claim.deadline_left_seconds or 0) <= 60
    run = await store.snapshot("run")
    assert (run.state, run.claim, run.version) == (RunState.RUNNING, claim.token, claim.version)
    assert (run.worker, run.host, run.deadline_ms) == ("w", "host", claim.deadline_ms)
    left_ms = await store.lease_left_ms("run")
    assert 59_000 < (left_ms or 0) <= 60_000


async def test_the_more_urgent_runs_come_first(store: WorkStore, queue: WorkQueue) -> None:
    """Claims come in the order of priority."""
    for priority in (0, -100, 5, 100, 1):
        await store.submit(f"p{priority}", "work", priority=priority)
    claims = await take(queue, "worker", 2)
    claims += await take(queue, "worker", 9)
    assert [claim.run_id for claim in claims] == ["p100", "p5", "p1", "p0", "p-100"]


async def test_targets_are_served_in_the_order_in_which_they_are_asked(
    store: WorkStore, queue: WorkQueue
) -> None:
    """A paused target is passed over."""
    for target in ("a", "b", "c"):
        await store.submit(f"of-{target}", target)
    await store.pause("b")
    assert await store.paused() == {"b"}
    assert [claim.run_id for claim in await take(queue, "w", 9, "c", "b", "a")] == ["of-c", "of-a"]
    await store.resume("b")
    assert [claim.run_id for claim in await take(queue, "w", 9, "b")] == ["of-b"]


@pytest.mark.fault("F28")
async def test_of_many_claims_at_once_each_run_is_in_one(
    store: WorkStore, queue: WorkQueue
) -> None:
    """Eight workers share forty runs."""
    wanted = {f"r{number}" for number in range(40)}
    for run_id in wanted:
        await store.submit(run_id, "work")
    found = await asyncio.gather(*(take(queue, f"w{number}", 7) for number in range(8)))
    ids = [claim.run_id for claims in found for claim in claims]
    assert (len(ids), set(ids)) == (40, wanted)


async def test_a_run_that_became_due_stands_by_its_priority(
    store: WorkStore, queue: WorkQueue
) -> None:
    """A delayed run with priority comes before a waiting one."""
    await store.submit("now", "work")
    await store.submit("later", "work", delay_seconds=0.05, priority=1)
    await asyncio.sleep(0.1)
    assert [claim.run_id for claim in await take(queue, "worker", 9)] == ["later", "now"]


async def test_a_claim_returns_when_the_next_run_is_due(store: WorkStore, queue: WorkQueue) -> None:
    """The earliest due time of all its targets, in seconds; None when none is delayed."""

    async def asked() -> Claimed:
        return await queue.claim("w", [TargetRule("other"), TargetRule("work")], 1)

    assert (await asked()) == Claimed([], None)
    await store.submit("later", "work", delay_seconds=100)
    await store.submit("last", "other", delay_seconds=200)
    claimed = await asked()
    assert claimed.claims == []
    assert 90 < (claimed.next_due_seconds or 0) <= 100


async def test_a_released_run_keeps_its_position_in_the_queue(
    store: WorkStore, queue: WorkQueue
) -> None:
    """A run that failed and waits is queued by its new due time instead."""
    for run_id in ("first", "second", "third"):
        await store.submit(run_id, "work")
        await asyncio.sleep(0.002)
    first, second = await take(queue, "w", 2)
    await queue.release(first, "worker_stopped")
    state = await store.release("second", second.token, "failed", delay_seconds=100, error="no")
    assert state is RunState.PENDING
    claims = await take(queue, "w", 9)
    assert [claim.run_id for claim in claims] == ["first", "third"]
    assert (claims[0].attempt, claims[0].excused, claims[0].failures) == (2, 1, 0)
    assert (await store.snapshot("second")).failures == 1
    await queue.release(first, "worker_stopped")
    assert (await store.snapshot("first")).claim == claims[0].token, "its claim was over"


async def test_runs_that_end_on_the_way_hide_none_behind_them(
    store: WorkStore, queue: WorkQueue
) -> None:
    """Runs past their deadline do not use up a claim."""
    for number in range(3):
        await store.submit(f"late{number}", "work", deadline_seconds=0.001, priority=1)
    await store.submit("sound", "work")
    await asyncio.sleep(MOMENT_SECONDS)
    assert [claim.run_id for claim in await take(queue, "w", 1)] == ["sound"]
    for number in range(3):
        letter = await store.dead_letters().get(f"late{number}")
        assert (letter.reason, letter.attempts) == ("deadline_exceeded", 0)


async def test_a_run_that_was_started_too_often_is_not_started_again(
    store: WorkStore, queue: WorkQueue
) -> None:
    """It becomes a dead letter with the reason."""
    await store.submit("run", "work")
    assert await lose(store) == ["run"]
    assert await hand_on(queue) == ["run"]
    assert (await queue.claim("w", [TargetRule("work", 1)], 1)).claims == []
    letter = await store.dead_letters().get("run")
    assert (letter.reason, letter.error) == (
        "attempts_exhausted",
        "given up after 1 attempt: its lease ran out",
    )


async def test_an_expired_lease_is_handed_on_and_its_claim_fenced(
    store: WorkStore, queue: WorkQueue
) -> None:
    """Another worker gets the run; the first one's end is refused with LeaseLostError."""
    await store.submit("run", "work")
    (lost,) = await take(store.queue(0.001), "ghost", 1)
    await asyncio.sleep(MOMENT_SECONDS)
    left_ms = await store.lease_left_ms("run")
    assert left_ms is not None
    assert left_ms < 0
    assert await hand_on(queue) == ["run"]
    assert await over(queue, [lost]) == [lost]
    (mine,) = await take(queue, "mine", 1)
    assert (mine.attempt, mine.failures, mine.excused) == (2, 0, 0)
    with pytest.raises(LeaseLostError):
        await store.finish("run", RunState.COMPLETED, claim=lost.token)
    assert await store.finish("run", RunState.COMPLETED, claim=mine.token)
    assert await store.lease_left_ms("run") is None


async def test_a_heartbeat_keeps_a_lease(store: WorkStore, queue: WorkQueue) -> None:
    """A lease that had run out holds again."""
    await store.submit("run", "work")
    (claim,) = await take(store.queue(0.001), "w", 1)
    assert await queue.heartbeat([Beat(claim)]) == []
    assert await hand_on(queue) == []
    assert 59_000 < (await store.lease_left_ms("run") or 0) <= 60_000


async def test_heartbeats_report_silence_and_a_cancel(store: WorkStore, queue: WorkQueue) -> None:
    """A silence is reported once, a cancel with every heartbeat until the run ends."""
    await store.submit("run", "work")
    (claim,) = await take(queue, "w", 1)
    assert await queue.heartbeat([Beat(claim, HOUR_SECONDS)]) == []
    await asyncio.sleep(0.02)
    (reported,) = await queue.heartbeat([Beat(claim, MOMENT_SECONDS)])
    assert reported.kind is NoticeKind.SILENT
    assert await queue.heartbeat([Beat(claim, MOMENT_SECONDS)]) == [], "once a silence"
    await store.request_cancel("run")
    for _ in range(2):
        (reported,) = await queue.heartbeat([Beat(claim)])
        assert reported.kind is NoticeKind.CANCEL


async def test_a_cancel_wakes_the_worker_that_has_the_run(
    store: WorkStore, queue: WorkQueue
) -> None:
    """It gets one message for its claim."""
    await store.submit("run", "work")
    (claim,) = await take(queue, "w", 1)
    waiting = asyncio.create_task(queue.control("w", "", 30))
    await store.request_cancel("run")
    messages, after = await waiting
    reported = [(each.kind, each.run_id, each.claim) for each in messages]
    assert reported == [("cancel", "run", claim.token)]
    assert (await queue.control("w", after, MOMENT_SECONDS))[0] == []


async def test_a_submission_wakes_a_worker(store: WorkStore, queue: WorkQueue) -> None:
    """So does one that is not due yet."""
    await queue.prepare(["work"])
    async with asyncio.timeout(10):
        for delay in (0.0, 100.0):
            waiting = asyncio.create_task(queue.wait(["work"], 30))
            await asyncio.sleep(0)
            await store.submit(f"run-{delay}", "work", delay_seconds=delay)
            await waiting


async def test_a_cancelled_run_whose_worker_is_lost_ends(
    store: WorkStore, queue: WorkQueue
) -> None:
    """The housekeeping ends it as cancelled."""
    await store.submit("run", "work")
    assert await lose(store) == ["run"]
    assert await store.request_cancel("run") is RunState.RUNNING
    tended = await queue.tend("w", ["work"], 0.001)
    assert (tended.requeued, tended.ended) == ([], ["run"])
    assert (await store.snapshot("run")).state is RunState.CANCELLED


async def test_a_waiting_run_past_its_deadline_ends(store: WorkStore, queue: WorkQueue) -> None:
    """The housekeeping fails it."""
    await store.submit("run", "work", deadline_seconds=0.001)
    await asyncio.sleep(MOMENT_SECONDS)
    assert (await queue.tend("w", ["work"], 0.001)).ended == ["run"]
    assert (await store.dead_letters().get("run")).reason == "deadline_exceeded"


async def test_many_lost_runs_are_handed_on_by_one_call(store: WorkStore, queue: WorkQueue) -> None:
    """One call requeues forty-five runs."""
    for number in range(45):
        await store.submit(f"r{number}", "work")
    lost = await lose(store, 45)
    assert sorted(await hand_on(queue)) == sorted(lost)


async def test_of_two_that_tend_one_does_it(store: WorkStore, queue: WorkQueue) -> None:
    """The worker that did it last keeps the role for a while."""
    for run_id in ("one", "two"):
        await store.submit(run_id, "work")
    assert (await queue.tend("holder", ["work"], HOUR_SECONDS)).requeued == []
    await lose(store, 2)
    assert (await queue.tend("other", ["work"], HOUR_SECONDS)).requeued == []
    tended = await queue.tend("holder", ["work"], HOUR_SECONDS)
    assert sorted(tended.requeued) == ["one", "two"]


async def test_dead_letters_are_listed_by_target_newest_first(store: WorkStore) -> None:
    """Pages of two give the same list, and a text that is not a cursor is refused."""
    for number in range(3):
        for target in ("a", "a-b", "b"):
            await bury(store, target, f"{target}.{number}")
            await asyncio.sleep(0.002)
    letters = store.dead_letters()
    whole = [letter.run_id for letter in (await letters.list()).letters]
    assert len(whole) == 9
    for target in ("a", "a-b", "b"):
        expected = [f"{target}.{number}" for number in (2, 1, 0)]
        assert [letter.run_id for letter in (await letters.list(target)).letters] == expected
        position = whole.index(expected[0])
        assert whole[position : position + 3] == expected
    paged: list[str] = []
    cursor = None
    while cursor is not None or not paged:
        page = await letters.list(limit=2, cursor=cursor)
        paged += [letter.run_id for letter in page.letters]
        cursor = page.cursor
    assert paged == whole
    with pytest.raises(InvalidCursorError):
        await letters.list(cursor="nonsense")


async def test_dead_letters_are_purged_by_run_target_age_or_all(store: WorkStore) -> None:
    """A purge without a selection is refused."""
    for run_id in ("a1", "a2", "b1", "c1"):
        await bury(store, run_id[0], run_id)
    purge = store.dead_letters().purge
    assert await purge(run_id="a1") == 1
    assert await purge(run_id="a1") == 0
    assert await purge(target="a") == 1
    assert await purge(older_than_seconds=60) == 0
    await asyncio.sleep(MOMENT_SECONDS)
    assert await purge(target="b", older_than_seconds=0) == 1
    with pytest.raises(InvalidInputError):
        await purge()
    assert await purge(all=True) == 1
    with pytest.raises(DeadLetterNotFoundError):
        await store.dead_letters().get("c1")


async def test_a_letter_of_an_earlier_life_is_found(store: WorkStore) -> None:
    """After the newer letter of the id is purged."""
    letters = store.dead_letters()
    await bury(store, "a", "again")
    await store.delete("again")
    await asyncio.sleep(0.002)
    await bury(store, "b", "again")
    assert (await letters.get("again")).target == "b"
    assert await letters.purge(target="b") == 1
    assert (await letters.get("again")).target == "a"


async def test_of_two_who_requeue_a_letter_one_does_it(store: WorkStore) -> None:
    """The other gets DeadLetterNotFoundError."""
    await bury(store, "work", "run")
    letters = store.dead_letters()
    tries = [letters.requeue("run") for _ in range(2)]
    done = await asyncio.gather(*tries, return_exceptions=True)
    (new_id,) = [each for each in done if isinstance(each, str)]
    (refused,) = [each for each in done if not isinstance(each, str)]
    assert isinstance(refused, DeadLetterNotFoundError)
    run = await store.snapshot(new_id)
    assert (run.state, run.metadata) == (RunState.PENDING, {"requeued_from": "run"})
    assert await store.get_input(new_id) == "run"


async def test_workers_are_listed_until_they_are_silent_or_leave(store: WorkStore) -> None:
    """The list has targets, runs and the time of the last heartbeat."""

    def info(worker_id: str) -> WorkerInfo:
        return WorkerInfo(worker_id, "h", 1, "0", "3", ["work"], 2, 5, "working", 1, ["run"])

    brief, steady = store.workers(0.005), store.workers()
    await brief.beat(info("brief"))
    await steady.beat(info("steady"))
    await steady.beat(info("leaves"))
    await steady.remove("leaves")
    await asyncio.sleep(0.05)
    (found,) = await steady.list()
    assert (found.id, found.targets, found.runs, found.held) == ("steady", ["work"], ["run"], 1)
    assert found.last_beat_ms > 0
