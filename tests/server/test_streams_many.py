"""Several runs over one connection: each event once, over cuts, pods and expired runs."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncGenerator, AsyncIterator

import pytest

from murmur_streams.core.model.errors import InvalidCursorError
from murmur_streams.core.model.events import RunEvent, RunEventType
from murmur_streams.core.model.states import RunState
from murmur_streams.server.stream_messages import ManyCursor, StreamMessage, merged
from murmur_streams.stores.redis.store import RedisRunStore
from tests.server.event_source import Event
from tests.server.wire import RunningPod, get, running_pod, stream
from tests.servers import Space

RUNS = ["run-a", "run-b", "run-c"]


def path_of(*run_ids: str, control: bool = False) -> str:
    query = "&".join(f"run={run_id}" for run_id in run_ids)
    return f"/stream?{query}" + ("&control=1" if control else "")


PATH = path_of(*RUNS)


@pytest.fixture
async def pod(space: Space) -> AsyncIterator[RunningPod]:
    async with running_pod(space, max_runs_per_stream=5) as pod:
        yield pod
        await pod.released()


@pytest.fixture
async def store(pod: RunningPod) -> RedisRunStore:
    return await pod.store()


def log(run_id: str, data: int) -> RunEvent:
    return RunEvent(type=RunEventType.LOG, run_id=run_id, data=data)


async def create(store: RedisRunStore, events: int = 0) -> None:
    for run_id in RUNS:
        await store.create(run_id, "t")
        if events:
            await store.append(run_id, *(log(run_id, number) for number in range(events)))


def by_run(events: list[Event]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {run_id: [] for run_id in RUNS}
    for event in events:
        data = json.loads(event.data)
        if event.type == "log":
            found[data["run_id"]].append(data["data"])
    return found


async def test_events_of_all_runs_come_until_all_have_ended(
    pod: RunningPod, store: RedisRunStore
) -> None:
    """One connection serves three runs."""
    await create(store, events=1)
    async with await stream(pod.port, PATH) as wire:
        assert by_run(await wire.some(3)) == {run_id: [0] for run_id in RUNS}
        for number, run_id in enumerate(RUNS, 1):
            await store.append(run_id, log(run_id, number))
            assert by_run(await wire.some(1))[run_id] == [number]
            await store.finish(run_id, RunState.COMPLETED)
        assert await wire.rest() == []
        assert wire.is_over


async def test_every_event_comes_once_over_cuts_and_pods(space: Space) -> None:
    """The reader reconnects to either pod, again and again."""
    rng, count = random.Random(7), 100
    async with running_pod(space) as first, running_pod(space) as second:
        store = await first.store()
        await create(store)

        async def write() -> None:
            for number in range(count):
                for run_id in RUNS:
                    await store.append(run_id, log(run_id, number))
            for run_id in RUNS:
                await store.finish(run_id, RunState.COMPLETED)

        writing, found, cuts = asyncio.create_task(write()), list[Event](), -1
        while True:
            last = found[-1].last_event_id if found else ""
            path = path_of(*rng.sample(RUNS, 3))
            async with await get(
                rng.choice([first, second]).port, path, {"Last-Event-ID": last}
            ) as wire:
                cuts += 1
                if wire.status == 204:
                    break
                wire.source.last_event_id = last
                for _ in range(rng.randrange(1, 30)):
                    event = await wire.event()
                    if event is None:
                        break
                    found.append(event)
        await writing
        assert by_run(found) == {run_id: list(range(count)) for run_id in RUNS}
        assert cuts > 5
        await first.released()
        await second.released()


async def test_a_cursor_leaves_ended_runs_out(pod: RunningPod, store: RedisRunStore) -> None:
    """A reader that resumes does not read the runs whose end it has seen."""
    await create(store, events=1)
    async with await stream(pod.port, path_of(*RUNS, control=True)) as wire:
        await wire.some(3)
        await store.finish(RUNS[0], RunState.COMPLETED)
        (end,) = await wire.some(1)
        assert json.loads(end.data) == {"run_id": RUNS[0], "state": "completed"}
    await store.delete(RUNS[0])
    async with await stream(pod.port, PATH, end.last_event_id) as wire:
        await store.append(RUNS[1], log(RUNS[1], 5))
        assert by_run(await wire.some(1))[RUNS[1]] == [5]


async def test_control_adds_the_end_of_each_run(pod: RunningPod, store: RedisRunStore) -> None:
    """With its run id."""
    await create(store, events=1)
    states = [RunState.COMPLETED, RunState.FAILED, RunState.COMPLETED]
    for run_id, state in zip(RUNS, states, strict=True):
        await store.finish(run_id, state)
    async with await stream(pod.port, path_of(*RUNS, control=True)) as wire:
        events = await wire.rest()
    ends = [json.loads(event.data) for event in events if event.type == "end"]
    assert sorted(ends, key=lambda end: end["run_id"]) == [
        {"run_id": run_id, "state": str(state)} for run_id, state in zip(RUNS, states, strict=True)
    ]
    last = events[-1].last_event_id
    assert last == "runs.end.end.end"
    for control in (False, True):
        async with await get(
            pod.port, path_of(*RUNS, control=control), {"Last-Event-ID": last}
        ) as wire:
            assert wire.status == 204


async def test_runs_that_ended_without_events_answer_204(
    pod: RunningPod, store: RedisRunStore
) -> None:
    """Nothing is to be sent."""
    await create(store)
    for run_id in RUNS:
        await store.finish(run_id, RunState.COMPLETED)
    async with await get(pod.port, PATH) as wire:
        assert wire.status == 204


async def test_a_gap_in_one_run_is_410_or_a_message(
    pod: RunningPod, store: RedisRunStore, space: Space
) -> None:
    """With ``?control=1`` the message has the cursor of all runs."""
    await create(store, events=6)
    async with await stream(pod.port, PATH) as wire:
        first = (await wire.some(18))[0]
    run_id = json.loads(first.data)["run_id"]
    space.admin.xtrim(space.keys.journal(run_id), maxlen=2, approximate=False)
    async with await get(pod.port, PATH, {"Last-Event-ID": first.last_event_id}) as wire:
        assert wire.status == 410
    async with await stream(pod.port, path_of(*RUNS, control=True), first.last_event_id) as wire:
        events = await wire.some(1 + 2 + 6 + 6)
    (gap,) = [event for event in events if event.type == "gap"]
    data = json.loads(gap.data)
    assert data == {"run_id": run_id, "resume_cursor": gap.last_event_id}
    assert by_run(events)[run_id] == [4, 5]
    assert sorted(map(len, by_run(events).values())) == [2, 6, 6]


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("run=run-a&run=run-a", 422),
        ("run=" + "&run=".join("abcdef"), 422),
        ("", 422),
        ("run=", 400),
        ("run=a%20b", 400),
        ("run=run-a&run=unknown", 404),
        ("run=run-a&run=run-b&control=2", 422),
    ],
)
async def test_what_is_no_set_of_runs_is_refused(
    pod: RunningPod, store: RedisRunStore, query: str, status: int
) -> None:
    """Repeated, too many, missing or malformed ids are 422 or 400."""
    await create(store)
    async with await get(pod.port, f"/stream?{query}") as wire:
        assert wire.status == status
        assert wire.headers["content-type"] == "application/problem+json"


MALFORMED = [
    *("runs", "runs.", "runs.-", "runs.-.-", "runs.-.-.-.-", "runs.-.-.x", "runs.-.-.END"),
    *("runs.-.-.0-0-0", "runs.-.-.00000000-1-1 ", "00000000-1-1", "feed.0-0", "$", "x" * 5_000),
]


@pytest.mark.parametrize("control", [False, True])
@pytest.mark.parametrize("cursor", MALFORMED)
async def test_a_malformed_cursor_is_refused(
    pod: RunningPod, store: RedisRunStore, cursor: str, control: bool
) -> None:
    """The answer is 400."""
    await create(store)
    path = path_of(*RUNS, control=control) + "&after=" + cursor.replace(" ", "%20")
    async with await get(pod.port, path) as wire:
        assert wire.status == 400


async def test_a_cursor_of_other_runs_is_410(pod: RunningPod, store: RedisRunStore) -> None:
    """A cursor fits the runs that it was made for."""
    await create(store, events=1)
    async with await stream(pod.port, path_of("run-a", "run-b")) as wire:
        last = (await wire.some(2))[-1].last_event_id
    async with await get(pod.port, path_of("run-b", "run-c"), {"Last-Event-ID": last}) as wire:
        assert wire.status == 410


def test_a_cursor_does_not_depend_on_the_order_of_runs() -> None:
    """It is parsed as it was written."""
    cursor = ManyCursor(["b", "a", "c"])
    cursor.move(StreamMessage("a", "log", "", "0123abcd-5-6"))
    cursor.move(StreamMessage("b", "end", "", "0123abcd-7-8"))
    again = ManyCursor.parse(str(cursor), ["c", "b", "a"])
    assert (again.after("a"), again.after("c")) == ("0123abcd-5-6", None)
    assert again.open_runs == ["a", "c"]
    assert str(again) == str(cursor) == "runs.0123abcd-5-6.end.-"


def test_a_cursor_of_more_or_fewer_runs_is_refused() -> None:
    """InvalidCursorError names the number of runs."""
    for text in ("runs.-", "runs.-.-.-"):
        with pytest.raises(InvalidCursorError, match="these 2 runs"):
            ManyCursor.parse(text, ["a", "b"])


class Source:
    """Counts what is taken from it."""

    def __init__(self, count: int, *, fails: bool = False) -> None:
        self.taken = 0
        self.is_closed = False
        self._count = count
        self._fails = fails

    async def items(self) -> AsyncGenerator[int]:
        try:
            while self.taken < self._count:
                self.taken += 1
                yield self.taken
            if self._fails:
                raise ValueError("broken")
        finally:
            self.is_closed = True


async def test_one_that_fails_ends_all() -> None:
    """The error is raised and all sources are closed."""
    sources = [Source(1, fails=True), Source(10**9)]
    with pytest.raises(ValueError, match="broken"):
        async for _ in merged([source.items() for source in sources]):
            pass
    assert all(source.is_closed for source in sources)


async def test_who_takes_nothing_more_holds_the_sources_up() -> None:
    """At most one item of each source waits in memory."""
    sources = [Source(10**9), Source(10**9)]
    everything = merged([source.items() for source in sources])
    for _ in range(10):
        await anext(everything)
    for _ in range(100):
        await asyncio.sleep(0)
    # One waits in the middle, and one at each source.
    assert sum(source.taken for source in sources) <= 10 + 3
    await everything.aclose()
    assert all(source.is_closed for source in sources)
