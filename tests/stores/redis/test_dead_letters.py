"""Runs that failed for good are recorded, listed, tried again once, or purged."""

from __future__ import annotations

import math
import time
from typing import Any

import pytest

from murmur_streams.core.model.errors import InvalidCursorError, InvalidInputError, RunNotFoundError
from murmur_streams.core.model.states import RunState
from murmur_streams.core.rules.requests import submit_command
from murmur_streams.stores.redis.dead import RedisDeadLetters
from murmur_streams.stores.redis.queue import Queue
from murmur_streams.stores.redis.store import RedisRunStore
from murmur_streams.testing import wait_until
from tests.servers import Space
from tests.stores.redis.hand import HandWriter, calls_by_hand
from tests.stores.redis.working import claimed, entries, ids, server_ms, take


@pytest.fixture
def dead(store: RedisRunStore) -> RedisDeadLetters:
    """The store's dead letters."""
    return store.dead_letters()


async def fail(store: RedisRunStore, queue: Queue, *run_ids: str, target: str = "work") -> None:
    """Let new runs end up among the dead letters."""
    for run_id in run_ids:
        await store.submit(run_id, target, input={"n": 1}, metadata={"who": "me"})
        await store.finish(run_id, RunState.FAILED, error="it broke", dead="not_retryable")


async def test_a_letter_holds_what_is_needed_to_judge_and_to_try_again(
    store: RedisRunStore, queue: Queue, dead: RedisDeadLetters
) -> None:
    """Reason, errors, attempts, input and metadata of the failed run."""
    await store.submit("run", "work", input={"n": 1}, metadata={"who": "me"})
    (claim,) = await take(queue)
    await store.release("run", claim.token, "failed", error="first")
    (claim,) = await take(queue)
    await store.finish(
        "run", RunState.FAILED, error="second", claim=claim.token, dead="retries_exhausted"
    )
    letter = await dead.get("run")
    assert (letter.run_id, letter.target, letter.reason) == ("run", "work", "retries_exhausted")
    assert (letter.attempts, letter.failures, letter.error) == (2, 2, "second")
    assert letter.errors == ("1 first", "2 second")
    assert (letter.input, letter.metadata) == ({"n": 1}, {"who": "me"})
    run = await store.snapshot("run")
    assert (letter.at_ms, run.failures) == (run.ended_ms, 2)
    last = (await entries(store, "run", "run.state"))[-1]
    assert (last["reason"], last["attempt"]) == ("retries_exhausted", "2")


async def test_only_the_first_errors_are_stored(store: RedisRunStore, queue: Queue) -> None:
    """The texts of the failures are bounded, the count is not."""
    await claimed(store, queue, 0)
    await store.submit("run", "work")
    for _ in range(6):
        (claim,) = await take(queue)
        await store.release("run", claim.token, "failed", error="é" * 600)
    run = await store.snapshot("run")
    assert run.failures == 6
    assert [line[:3] for line in (run.errors or "").split("\n")] == ["1 é", "2 é", "3 é", "4 é"]


async def test_only_failed_runs_have_a_letter(store: RedisRunStore) -> None:
    """A finish as completed with a letter is refused; without dead= a failure leaves none."""
    await store.submit("run", "work")
    with pytest.raises(InvalidInputError, match="dead letters"):
        await store.finish("run", RunState.COMPLETED, dead="why")
    await store.finish("run", RunState.FAILED, error="of its own")
    with pytest.raises(RunNotFoundError):
        await store.dead_letters().get("run")


async def test_letters_are_listed_page_by_page(space: Space) -> None:
    """Over three partitions, each letter is on exactly one page."""
    async with space.store(partitions=3) as store:
        dead, queue = store.dead_letters(), store.queue(60)
        names = [f"run-{number}" for number in range(12)]
        await fail(store, queue, *names[:6])
        await fail(store, queue, *names[6:], target="other")
        found: list[str] = []
        cursor, pages = None, 0
        while pages == 0 or cursor:
            page = await dead.list(limit=5, cursor=cursor)
            found += [letter.run_id for letter in page.letters]
            cursor, pages = page.cursor, pages + 1
        assert (sorted(found), len(found), pages) == (sorted(names), 12, 3)
        of_one = await dead.list("work")
        assert {letter.run_id for letter in of_one.letters} == set(names[:6])
        assert (await dead.get("run-11")).target == "other"


async def test_of_one_partition_the_newest_letter_comes_first(
    store: RedisRunStore, queue: Queue, dead: RedisDeadLetters
) -> None:
    """The list begins with the last failure."""
    await fail(store, queue, "a", "b", "c")
    assert [letter.run_id for letter in (await dead.list()).letters] == ["c", "b", "a"]


@pytest.mark.parametrize("cursor", ["", "x", "work:0", "work:x:1-1", "work:0:x"])
async def test_what_is_no_cursor_is_refused(dead: RedisDeadLetters, cursor: str) -> None:
    """Each malformed cursor raises InvalidCursorError."""
    with pytest.raises(InvalidCursorError):
        await dead.list(cursor=cursor)


async def test_a_requeued_run_is_a_new_one_with_the_same_input(
    store: RedisRunStore, queue: Queue, dead: RedisDeadLetters
) -> None:
    """It names the old run in its metadata, and the letter is gone."""
    await fail(store, queue, "run")
    new_id = await dead.requeue("run")
    (claim,) = await take(queue)
    assert (claim.run_id, claim.input_json) == (new_id, '{"n":1}')
    assert (await store.snapshot(new_id)).metadata == {"who": "me", "requeued_from": "run"}
    assert (await dead.list()).letters == ()
    with pytest.raises(RunNotFoundError):
        await dead.requeue("run")


async def test_a_requeued_run_has_the_old_priority_trace_and_deadline(
    store: RedisRunStore, queue: Queue, dead: RedisDeadLetters
) -> None:
    """The deadline has the same span as before, counted from the requeue."""
    trace = {"traceparent": "00-0af7-b7ad-01", "tracestate": "a=1"}
    await store.submit("run", "work", priority=7, deadline_seconds=7200, trace=trace)
    (claim,) = await take(queue)
    # A retry's due time moves what is due, and not the span.
    await store.release("run", claim.token, "failed", delay_seconds=600)
    await store.finish("run", RunState.FAILED, dead="not_retryable")
    letter = await dead.get("run")
    assert (letter.priority, letter.deadline_seconds, letter.trace) == (7, 7200, trace)
    new = await store.snapshot(await dead.requeue("run"))
    assert (new.priority, new.trace, new.due_ms) == (7, trace, None)
    assert (new.deadline_ms or 0) - new.created_ms == 7_200_000


@pytest.mark.parametrize("tenant", ["acme", None])
async def test_a_requeued_run_has_the_old_tenant(
    store: RedisRunStore, queue: Queue, dead: RedisDeadLetters, tenant: str | None
) -> None:
    """Also when the old run has expired."""
    await store.submit("run", "work", tenant=tenant)
    await store.finish("run", RunState.FAILED, dead="why")
    await store.delete("run")
    assert (await dead.get("run")).tenant == tenant
    new_id = await dead.requeue("run")
    assert (await store.snapshot(new_id)).tenant == tenant
    assert [run.run_id for run in (await store.list_runs(tenant=tenant)).runs] == [new_id]
    assert (await store.audit(new_id)).problems == ()


async def test_the_letter_of_an_existing_run_is_found_in_two_reads(
    store: RedisRunStore, queue: Queue, dead: RedisDeadLetters, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many other letters do not matter, because the run's hash has the id of its letter."""
    await fail(store, queue, "run", *(f"later-{number}" for number in range(60)))
    read, sent = store._server.read, list[object]()

    async def counted(*command: object) -> Any:
        sent.append(command[0])
        return await read(*command)

    monkeypatch.setattr(store._server, "read", counted)
    assert (await dead.get("run")).run_id == "run"
    assert sent == ["HMGET", "XRANGE"]


async def test_a_letter_is_found_by_whoever_has_the_id_now(
    store: RedisRunStore, queue: Queue, dead: RedisDeadLetters
) -> None:
    """The letter is found after a rebuild, a deletion and a reuse of the id."""
    await fail(store, queue, "run", *(f"later-{number}" for number in range(60)))
    await store.rebuild("run")
    assert (await dead.get("run")).target == "work"
    await store.delete("run")
    await store.submit("run", "other")
    assert (await dead.get("run")).target == "work"
    await store.finish("run", RunState.FAILED, dead="why")
    assert (await dead.get("run")).target == "other"
    assert await dead.purge(run_id="run") == 1
    assert (await dead.get("run")).target == "work"


async def test_a_letter_outlives_its_run(
    store: RedisRunStore, queue: Queue, dead: RedisDeadLetters
) -> None:
    """After the run is deleted, the letter can still be requeued."""
    await fail(store, queue, "run")
    await store.delete("run")
    assert (await dead.get("run")).input == {"n": 1}
    assert (await store.snapshot(await dead.requeue("run"))).state is RunState.PENDING


async def test_a_requeued_run_lies_in_the_partition_of_its_letter(space: Space) -> None:
    """So that letter and new run can be changed in one step."""
    async with space.store(partitions=7) as store:
        dead, queue = store.dead_letters(), store.queue(60)
        for number in range(5):
            await fail(store, queue, f"run-{number}")
            new_id = await dead.requeue(f"run-{number}")
            assert store._keys.partition(new_id) == store._keys.partition(f"run-{number}")
        assert len(await take(queue, 10)) == 5


async def test_a_requeue_whose_answer_was_lost_is_done_once(
    space: Space, store: RedisRunStore, queue: Queue, dead: RedisDeadLetters
) -> None:
    """The repeated call gets the first answer and creates no second run."""
    await fail(store, queue, "run")
    letter = await dead.get("run")
    hand = HandWriter(store, store._durations, lambda: 1)
    hand.producer, hand.n = "p", 1
    calls = calls_by_hand(hand, store._durations)
    command = submit_command("new", "work", store.limits, input=1)
    first = await calls.requeue("new", command, letter.letter_id)
    assert await calls.requeue("new", command, letter.letter_id) == first == ("OK", "1")
    hand.n = 2
    assert await calls.requeue("newer", command, letter.letter_id) == ("NOT_FOUND",)
    assert ids(await take(queue, 5)) == ["new"]


async def test_letters_are_purged_by_run_target_or_age(
    space: Space, store: RedisRunStore, queue: Queue, dead: RedisDeadLetters
) -> None:
    """Each selection removes its letters and returns their number."""
    await fail(store, queue, "a", "b", "c")
    await fail(store, queue, "d", target="other")
    assert await dead.purge(run_id="a") == 1
    assert await dead.purge(run_id="a") == 0
    assert await dead.purge(older_than_seconds=3600) == 0
    assert await dead.purge(target="other") == 1
    assert {letter.run_id for letter in (await dead.list()).letters} == {"b", "c"}
    left = server_ms(space) + 1

    async def is_later() -> bool:
        return server_ms(space) > left

    await wait_until(is_later, "the letters are older than nothing")
    assert await dead.purge(older_than_seconds=0) == 2
    await fail(store, queue, "e", "f")
    assert await dead.purge(all=True) == 2
    assert (await dead.list()).letters == ()


@pytest.mark.parametrize(
    "which", [{}, {"target": None}, {"all": False}, {"all": True, "target": "work"}, {"all": 1}]
)
async def test_only_all_purges_every_letter(
    store: RedisRunStore, queue: Queue, dead: RedisDeadLetters, which: dict[str, Any]
) -> None:
    """A purge without a selection, or with two, raises InvalidInputError."""
    await fail(store, queue, "a")
    with pytest.raises(InvalidInputError, match=r"which letters to purge: .*all=True alone"):
        await dead.purge(**which)
    assert [letter.run_id for letter in (await dead.list()).letters] == ["a"]


@pytest.mark.parametrize("age", [-1, -0.001, math.nan, math.inf])
async def test_an_age_that_is_none_purges_nothing(
    store: RedisRunStore, queue: Queue, dead: RedisDeadLetters, age: float
) -> None:
    """Negative, infinite and NaN ages raise InvalidInputError."""
    await fail(store, queue, "a")
    with pytest.raises(InvalidInputError, match="older_than_seconds"):
        await dead.purge(older_than_seconds=age)
    assert (await dead.get("a")).run_id == "a"


async def test_the_age_of_a_letter_goes_by_the_servers_clock(
    store: RedisRunStore, queue: Queue, dead: RedisDeadLetters, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong clock of the caller does not make letters old."""
    await fail(store, queue, "a")
    an_hour_ahead = time.time() + 3600
    monkeypatch.setattr(time, "time", lambda: an_hour_ahead)
    assert await dead.purge(older_than_seconds=600) == 0


async def test_a_run_ends_even_if_its_letter_cannot_be_written(
    space: Space, store: RedisRunStore, queue: Queue, dead: RedisDeadLetters
) -> None:
    """A key of another type under the letters does not stop the end."""
    for key in (space.keys.dead("work", 0), space.keys.dead_targets(0)):
        await store.submit("run", "work")
        space.admin.set(key, "x")
        (claim,) = await take(queue)
        assert await store.finish("run", RunState.FAILED, claim=claim.token, dead="why")
        assert (await store.snapshot("run")).state is RunState.FAILED
        assert (await store.audit("run")).problems == ()
        space.admin.delete(key)
        assert (await dead.list()).letters == ()
        await store.delete("run")


async def test_a_run_that_passed_its_deadline_has_a_letter(space: Space) -> None:
    """A run that a sweep fails as overdue leaves one, too."""
    async with space.store(live_ttl_seconds=0.001) as store:
        await store.submit("run", "work")
        while not await store.sweep():
            pass
        letter = await store.dead_letters().get("run")
        assert letter.reason == "overdue"


async def test_the_last_letter_takes_its_stream_with_it(
    space: Space, store: RedisRunStore, queue: Queue, dead: RedisDeadLetters
) -> None:
    """A removed agent leaves neither an empty stream nor its name in the list of agents."""
    await fail(store, queue, "a", "b", "c", target="gone")
    await fail(store, queue, "d", target="kept")
    assert await dead.purge(run_id="a") == 1
    assert space.admin.exists(space.keys.dead("gone", 0))
    await dead.requeue("b")
    assert await dead.purge(target="gone") == 1
    assert not space.admin.exists(space.keys.dead("gone", 0))
    await dead.requeue("d")
    assert not space.admin.exists(space.keys.dead("kept", 0), space.keys.dead_targets(0))
