"""Many writers at once: each gets its own answer, and each write is there once or not at all."""

from __future__ import annotations

import asyncio
import random
from collections import Counter, defaultdict
from collections.abc import Callable

import pytest
from redis.asyncio import Redis

from murmur_streams.core.model.errors import (
    InvalidInputError,
    LeaseLostError,
    OutcomeUnknownError,
    RunNotFoundError,
    RunTerminatedError,
    StoreClosedError,
    StoreRewoundError,
    WrongExpectedVersionError,
)
from murmur_streams.core.model.events import RunEvent, RunEventType
from murmur_streams.core.model.states import RunProgress, RunState
from murmur_streams.embedded import EmbeddedServer
from murmur_streams.stores.redis.partition_calls import WAITING_BYTES
from murmur_streams.stores.redis.partition_writer import PartitionWriter
from murmur_streams.stores.redis.store import RedisRunStore
from murmur_streams.stores.redis.writes import WriteBudget
from murmur_streams.testing.faults import CUTS, Fault, FaultProxy, Parts, Plan, calls, once
from tests.stores.faults.events import names_in_journal, note
from tests.stores.faults.servers import forget_all
from tests.stores.faults.waiting import wait_until
from tests.stores.redis.hand import expect_many

TASKS = 1_000
RUNS = [f"run-{number}" for number in range(20)]
MOST_WAITING = 8
PARTITIONS = 16
BIG = "x" * 60_000
PROGRESS = RunProgress(total=1)


def nth(fault: Fault, number: int, which: Callable[[Parts], bool]) -> Plan:
    """The fault for one request of this kind, counted from 0."""
    seen = iter(range(1_000_000))
    return lambda parts: fault if which(parts) and next(seen) == number else Fault.NONE


def some(dice: random.Random, share: float) -> Plan:
    """Cuts of this share of all calls."""
    is_call = calls()
    return lambda parts: (
        dice.choice(CUTS) if is_call(parts) and dice.random() < share else Fault.NONE
    )


async def in_journal(store: RedisRunStore, run_id: str) -> dict[str, list[int]]:
    """The seqs at which each named event stands."""
    found: dict[str, list[int]] = defaultdict(list)
    async for entry in store.journal(run_id):
        if "name" in entry.fields:
            found[entry.fields["name"]].append(entry.seq)
    return found


def only_partition(store: RedisRunStore) -> PartitionWriter:
    """The writer of a store with one partition."""
    return store._writer._routes.at(0)


def under_way(partition: PartitionWriter) -> int:
    """How many writes wait or are in flight."""
    waiting = sum(len(writes) for writes in partition._waiting._runs.values())
    return waiting + sum(len(call.writes) for call in partition._in_flight)


class Crowd:
    """Tasks that write events to many runs, of which some are cancelled on the way."""

    def __init__(self, store: RedisRunStore, dice: random.Random) -> None:
        self.store, self.dice = store, dice
        self.answered: dict[str, int | None] = {}
        """The seq that each write returned; None of push_event, which returns none."""
        self.unknown: set[str] = set()
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self.run_of: dict[str, str] = {}

    def start(self, number: int) -> asyncio.Task[None]:
        name = f"{number:05d}"
        self.run_of[name] = self.dice.choice(RUNS)
        self.tasks[name] = asyncio.create_task(self._write(name, push=self.dice.random() < 0.3))
        return self.tasks[name]

    async def run(self, count: int, share_cancelled: float) -> None:
        """Start the tasks a few at a time; a cancelled one is so after some turns of the loop."""
        due: dict[int, list[asyncio.Task[None]]] = defaultdict(list)
        number = turn = 0
        while number < count or due:
            for _ in range(min(self.dice.randint(0, 20), count - number)):
                task = self.start(number)
                number += 1
                if self.dice.random() < share_cancelled:
                    due[turn + self.dice.randint(0, 60)].append(task)
            for task in due.pop(turn, ()):
                task.cancel()
            turn += 1
            await asyncio.sleep(0)
        ends = await asyncio.gather(*self.tasks.values(), return_exceptions=True)
        strangers = [end for end in ends if isinstance(end, Exception)]
        assert strangers == []

    async def check(self, straight: RedisRunStore) -> None:
        """Every caller got a true answer, and writes of one kind to one run kept their order."""
        for run_id in RUNS:
            found = await in_journal(straight, run_id)
            assert Counter(len(seqs) for seqs in found.values()).keys() <= {1}
            assert list(found) == sorted(found)
            names = {name for name, where in self.run_of.items() if where == run_id}
            assert set(found) <= names
            for name in names & self.answered.keys():
                reported = self.answered[name]
                assert found[name] == [reported] or (reported is None and len(found[name]) == 1)
            for name in names - found.keys():
                assert name in self.unknown or self.tasks[name].cancelled()
            assert (await straight.audit(run_id)).problems == ()

    async def _write(self, name: str, *, push: bool) -> None:
        event = note(self.run_of[name], name)
        try:
            if push:
                await self.store.push_event(event.run_id, event)
                self.answered[name] = None
            else:
                self.answered[name] = await self.store.append(event.run_id, event)
        except OutcomeUnknownError:
            self.unknown.add(name)


@pytest.fixture
async def runs(store: RedisRunStore) -> list[str]:
    await asyncio.gather(*(store.create(run_id, "work") for run_id in RUNS))
    return RUNS


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.fault("F7")
async def test_1000_tasks_with_random_cancels_get_true_results(
    seed: int, runs: list[str], proxy: FaultProxy, store: RedisRunStore, straight: RedisRunStore
) -> None:
    """Many are cancelled at random awaits."""
    dice = random.Random(seed)
    proxy.plan = some(dice, 0.02)
    crowd = Crowd(store, dice)
    await crowd.run(TASKS, share_cancelled=0.5)
    # The last call of each run comes after all others, those of cancelled callers included.
    await asyncio.gather(*(store.update_progress(run_id, PROGRESS) for run_id in runs))
    assert sum(task.cancelled() for task in crowd.tasks.values()) > TASKS / 10
    await crowd.check(straight)


async def test_writes_are_unknown_when_retries_run_out(
    proxy: FaultProxy, make_store: Callable[..., RedisRunStore], straight: RedisRunStore
) -> None:
    """Under heavy faults each write is there once or not at all, as its error says."""
    store = make_store(proxy.url, retry_seconds=0.05)
    await asyncio.gather(*(store.create(run_id, "work") for run_id in RUNS))
    dice = random.Random(1)
    proxy.plan = some(dice, 0.6)
    crowd = Crowd(store, dice)
    await crowd.run(TASKS, share_cancelled=0.3)
    proxy.plan = lambda _: Fault.NONE
    await asyncio.gather(*(store.update_progress(run_id, PROGRESS) for run_id in RUNS))
    assert crowd.unknown
    await crowd.check(straight)


async def test_large_and_small_writes_to_a_run_keep_their_order(
    store: RedisRunStore, straight: RedisRunStore, proxy: FaultProxy
) -> None:
    """Large events go in calls of their own, and the journal has the order of the calls."""
    await store.create("run", "work")
    proxy.plan = some(random.Random(3), 0.1)
    names = [f"{number}{BIG if number % 7 == 0 else ''}" for number in range(200)]
    events = [RunEvent(type=RunEventType.LOG, run_id="run", data=name) for name in names]
    answers = await asyncio.gather(*(store.append("run", event) for event in events))
    assert answers == list(range(2, 202))
    entries = [entry async for entry in straight.journal("run")]
    found = [event.data for event in (entry.event() for entry in entries) if event is not None]
    assert found == names


async def test_each_caller_of_a_merged_call_gets_its_own_answer(
    store: RedisRunStore, proxy: FaultProxy
) -> None:
    """Appends that travel in one call have separate versions and refusals."""
    await store.create("run", "work")
    sent: list[Parts] = []
    is_append = calls("append")
    proxy.plan = lambda parts: (
        (sent.append(parts), Fault.NONE)[1] if is_append(parts) else Fault.NONE
    )
    event = note("run", "a")
    expect_many(store._writer)
    answers = await asyncio.gather(
        store.append("run", event, event),
        store.append("run", event, expected_version=2),
        store.append("run", event, expected_version=3),
        store.append("run", event, claim="nobody's"),
        store.append("run", event),
        return_exceptions=True,
    )
    assert len(sent) == 1
    first, wrong, right, fenced, last = answers
    assert (first, right, last) == (3, 4, 5)
    assert isinstance(wrong, WrongExpectedVersionError)
    assert (wrong.expected, wrong.actual) == (2, 3)
    assert isinstance(fenced, LeaseLostError)
    assert (await store.snapshot("run")).version == 5


async def test_a_text_that_cannot_be_sent_is_refused_alone(
    store: RedisRunStore, straight: RedisRunStore
) -> None:
    """A lone surrogate raises InvalidInputError; its neighbours are written."""
    await store.create("run", "work")
    answers = await asyncio.gather(
        store.append("run", note("run", "a")),
        store.append("run", note("run", "\ud800")),
        store.append("run", note("run", "b")),
        return_exceptions=True,
    )
    assert (answers[0], answers[2]) == (2, 3)
    assert isinstance(answers[1], InvalidInputError)
    assert await names_in_journal(straight, "run") == ["a", "b"]


async def test_a_run_that_ends_between_two_appends_refuses_the_second(
    store: RedisRunStore, straight: RedisRunStore
) -> None:
    """Writes that were called at once are applied in the order of the calls."""
    await store.create("run", "work")
    answers = await asyncio.gather(
        store.append("run", note("run", "before")),
        store.finish("run", RunState.COMPLETED),
        store.append("run", note("run", "after")),
        store.push_event("run", note("run", "late")),
        return_exceptions=True,
    )
    assert answers[:2] == [2, True]
    assert isinstance(answers[2], RunTerminatedError)
    assert await names_in_journal(straight, "run") == ["before", "late"]


@pytest.mark.fault("F8")
async def test_callers_over_the_budget_wait_their_turn(
    runs: list[str], store: RedisRunStore, proxy: FaultProxy, straight: RedisRunStore
) -> None:
    """None of them starves."""
    partition = only_partition(store)
    partition.budget = WriteBudget(MOST_WAITING, WAITING_BYTES)
    proxy.plan = some(random.Random(5), 0.05)
    crowd, most = Crowd(store, random.Random(5)), 0
    tasks = [crowd.start(number) for number in range(300)]
    for task in tasks[::3]:
        task.cancel()
    while not all(task.done() for task in tasks):
        most = max(most, under_way(partition))
        await asyncio.sleep(0)
    await asyncio.gather(*(store.update_progress(run_id, PROGRESS) for run_id in runs))
    assert 0 < most <= MOST_WAITING
    assert len(crowd.answered) == 200
    await crowd.check(straight)


async def test_callers_with_large_writes_wait_for_the_budget_in_bytes(
    store: RedisRunStore, proxy: FaultProxy, straight: RedisRunStore
) -> None:
    """The bytes that wait in the writer stay below the limit."""
    await store.create("run", "work")
    partition = only_partition(store)
    partition.budget = WriteBudget(1_000, 2 * len(BIG))
    proxy.plan = some(random.Random(9), 0.05)
    events = [
        RunEvent(type=RunEventType.LOG, run_id="run", data=f"{number}{BIG}") for number in range(30)
    ]
    tasks = [asyncio.create_task(store.append("run", event)) for event in events]
    most = 0
    while not all(task.done() for task in tasks):
        most = max(most, under_way(partition))
        await asyncio.sleep(0)
    assert [task.result() for task in tasks] == list(range(2, 32))
    assert most <= 2


@pytest.mark.fault("F7")
async def test_writes_of_cancelled_callers_still_count(
    store: RedisRunStore, proxy: FaultProxy
) -> None:
    """Cancelled writes that may still be applied count against the limit."""
    await store.create("run", "work")
    partition = only_partition(store)
    partition.budget = WriteBudget(MOST_WAITING, WAITING_BYTES)
    proxy.plan = lambda parts: Fault.DROP_REQUEST if calls("append")(parts) else Fault.NONE
    for number in range(5 * MOST_WAITING):
        task = asyncio.create_task(store.append("run", note("run", str(number))))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert 0 < under_way(partition) <= MOST_WAITING
    proxy.plan = lambda _: Fault.NONE
    await store.append("run", note("run", "last"))


async def test_two_connections_carry_calls_of_all_partitions(
    make_store: Callable[..., RedisRunStore], proxy: FaultProxy
) -> None:
    """A stalled call delays only the partitions on its connection."""
    store = make_store(proxy.url, partitions=PARTITIONS)
    runs = one_run_in_each(store)
    await asyncio.gather(*(store.create(run_id, "work") for run_id in runs))
    lanes = store._writer._lanes._lanes.values()
    is_append = calls("append")
    proxy.plan = lambda parts: (
        Fault.STALL if len(proxy.seen) < 2 and is_append(parts) else Fault.NONE
    )
    writes = [asyncio.create_task(store.append(run_id, note(run_id, "a"))) for run_id in runs]
    await wait_until(
        lambda: sum(len(lane._sent) for lane in lanes) == PARTITIONS, "all calls were sent"
    )
    # No reply has come; then both lanes give up, and every call is sent again with its number.
    assert await asyncio.gather(*writes) == [2] * PARTITIONS
    for run_id in runs:
        assert await names_in_journal(store, run_id) == ["a"]


@pytest.mark.parametrize("broken", [0, 7, PARTITIONS - 1])
@pytest.mark.parametrize("fault", [*CUTS, Fault.GARBAGE, Fault.STALL])
async def test_a_broken_lane_loses_and_repeats_no_write(
    fault: Fault, broken: int, proxy: FaultProxy, make_store: Callable[..., RedisRunStore]
) -> None:
    """The connection breaks in the middle of a pipeline of the calls of many partitions."""
    store = make_store(proxy.url, partitions=PARTITIONS)
    runs = one_run_in_each(store)
    await asyncio.gather(*(store.create(run_id, "work") for run_id in runs))
    proxy.plan = nth(fault, broken, calls("append"))
    writes = [store.append(run_id, note(run_id, "a")) for run_id in runs]
    assert await asyncio.gather(*writes) == [2] * PARTITIONS
    assert proxy.seen == [fault.name]
    for run_id in runs:
        assert await names_in_journal(store, run_id) == ["a"]


def one_run_in_each(store: RedisRunStore) -> list[str]:
    """Ids of runs, one in each partition of the store."""
    found: dict[int, str] = {}
    for number in range(100 * PARTITIONS):
        found.setdefault(store._keys.partition(f"run-{number}"), f"run-{number}")
    assert len(found) == PARTITIONS
    return [*found.values()]


@pytest.mark.fault("F13")
async def test_a_script_flush_under_many_writers_keeps_their_order(
    runs: list[str], store: RedisRunStore, straight: RedisRunStore, server: EmbeddedServer
) -> None:
    """Scripts or functions are loaded again, and the writes of each run stay in order."""
    crowd = Crowd(store, random.Random(7))
    writing = asyncio.create_task(crowd.run(TASKS, share_cancelled=0.0))
    for _ in range(20):
        await asyncio.to_thread(forget_all, server)
        answered = len(crowd.answered)
        await wait_until(
            lambda reported=answered: len(crowd.answered) > reported or writing.done(),
            "a write has returned",
        )
    await writing
    assert len(crowd.answered) == TASKS
    await crowd.check(straight)


async def test_missing_scripts_are_loaded_before_a_retry(
    store: RedisRunStore, proxy: FaultProxy, server: EmbeddedServer
) -> None:
    """A retry after a cut finds no script, and the write is still applied once."""
    await store.create("run", "work")
    is_append, tries = calls("append"), iter(range(100))

    def cut_then_forget(parts: Parts) -> Fault:
        if not is_append(parts):
            return Fault.NONE
        number = next(tries)
        if number in {1, 2}:
            forget_all(server)
        return Fault.DROP_REQUEST if number == 0 else Fault.NONE

    proxy.plan = cut_then_forget
    assert await store.append("run", note("run", "a")) == 2
    assert next(tries) == 4


async def test_a_server_that_was_emptied_is_prepared_again(
    store: RedisRunStore, admin: Redis, server: EmbeddedServer
) -> None:
    """After FLUSHALL, meta and scripts are written again before the next write."""
    await store.create("run", "work")
    await admin.flushall()
    await asyncio.to_thread(forget_all, server)
    for error in (StoreRewoundError, RunNotFoundError):
        with pytest.raises(error):
            await store.append("run", note("run", "a"))
    assert await admin.exists(store._keys.meta)
    await store.create("run", "work")
    assert await store.append("run", note("run", "a")) == 2


@pytest.mark.parametrize("seconds", [0.0, 0.01, 5.0])
async def test_a_close_under_many_writers_gives_true_results(
    seconds: float,
    runs: list[str],
    store: RedisRunStore,
    proxy: FaultProxy,
    straight: RedisRunStore,
) -> None:
    """Each of 400 writes is in the journal exactly if its caller got a version."""
    proxy.plan = once(Fault.STALL if seconds < 5 else Fault.DROP_REPLY, calls("append"))
    writes = {
        f"{number}": asyncio.create_task(
            store.append(RUNS[number % 20], note(RUNS[number % 20], f"{number}"))
        )
        for number in range(400)
    }
    await wait_until(lambda: bool(proxy.seen), "the writers are at it")
    await store._writer.close(seconds)
    await store.close()
    await asyncio.gather(*writes.values(), return_exceptions=True)
    found: dict[str, list[int]] = {}
    for run_id in runs:
        found |= await in_journal(straight, run_id)
    for name, write in writes.items():
        error = write.exception()
        match error:
            case None:
                assert found[name] == [write.result()]
            case OutcomeUnknownError():
                assert len(found.get(name, [])) <= 1
            case _:
                assert isinstance(error, StoreClosedError)
                assert name not in found
    assert seconds < 5 or not any(write.exception() for write in writes.values())
