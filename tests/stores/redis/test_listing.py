"""Listing many runs page by page while others begin, change, end and expire."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from murmur_streams.core.model.run import RunPage
from murmur_streams.core.model.states import RunState
from murmur_streams.stores.redis.store import RedisRunStore
from tests.servers import Space

RUNS = 5_000
TOGETHER = 250
STILL_TARGET, BUSY_TARGET = "still", "busy"
STILL_TENANT = "of-still"
FILTERS: dict[str, dict[str, Any]] = {
    "no filter": {},
    "by state": {"state": RunState.RUNNING},
    "by target": {"target": STILL_TARGET},
    "by both": {"state": RunState.RUNNING, "target": STILL_TARGET},
    "by tenant": {"tenant": STILL_TENANT},
    "by all": {"state": RunState.RUNNING, "target": STILL_TARGET, "tenant": STILL_TENANT},
}


async def in_groups(store: RedisRunStore, names: list[str], target: str) -> None:
    """Create running runs, many at a time."""
    for first in range(0, len(names), TOGETHER):
        group = names[first : first + TOGETHER]
        await asyncio.gather(*(store.create(name, target, tenant=f"of-{target}") for name in group))
        await asyncio.gather(*(store.set_state(name, RunState.RUNNING) for name in group))


async def disturb(store: RedisRunStore, names: list[str], prefix: str, done: asyncio.Event) -> int:
    """End, delete and create runs until the event is set; how many times."""
    turns = 0
    while not done.is_set():
        for name in (names.pop() for _ in range(min(3, len(names)))):
            await store.finish(name, RunState.COMPLETED)
        await in_groups(store, [f"{prefix}-{turns}-{number}" for number in range(2)], BUSY_TARGET)
        await store.delete(f"{prefix}-{turns}-0", force=True)
        turns += 1
        await asyncio.sleep(0)
    return turns


async def pages(store: RedisRunStore, **filters: Any) -> list[RunPage]:
    """Read all pages."""
    found = [await store.list_runs(limit=100, **filters)]
    while found[-1].cursor is not None:
        found.append(await store.list_runs(limit=100, cursor=found[-1].cursor, **filters))
    return found


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("partitions", [1, 4])
async def test_each_of_5000_unchanged_runs_is_listed_once(space: Space, partitions: int) -> None:
    """Other runs are created, changed and deleted while the pages are read."""
    async with space.store(partitions=partitions, ttl_seconds=0.2) as store:
        still = [f"still-{number}" for number in range(RUNS // 2)]
        busy = [f"busy-{number}" for number in range(RUNS // 2)]
        for first in range(0, RUNS // 2, TOGETHER):  # Mixed, so that each page has both.
            await in_groups(store, still[first : first + TOGETHER], STILL_TARGET)
            await in_groups(store, busy[first : first + TOGETHER], BUSY_TARGET)
        for name, filters in FILTERS.items():
            done = asyncio.Event()
            disturbing = asyncio.create_task(disturb(store, busy, name.replace(" ", "-"), done))
            found = await pages(store, **filters)
            done.set()
            assert await disturbing > 1
            seen = Counter(run.run_id for page in found for run in page.runs)
            assert {seen[run_id] for run_id in still} == {1}, name
            assert set(seen.values()) == {1}, name
        await store.sweep()


Counted = Callable[[RedisRunStore], list[tuple[Any, ...]]]


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counted:
    """Counts what a store reads: the commands of each round trip."""

    def count(store: RedisRunStore) -> list[tuple[Any, ...]]:
        trips: list[tuple[Any, ...]] = []
        read_all = store._server.read_all

        async def reading(*commands: tuple[Any, ...]) -> list[Any]:
            trips.append(commands)
            return await read_all(*commands)

        monkeypatch.setattr(store._server, "read_all", reading)
        return trips

    return count


async def test_a_page_among_many_other_rows_costs_few_round_trips(
    space: Space, counted: Counted
) -> None:
    """Most rows of the index do not match the filter."""
    async with space.store() as store:
        await store.create("wanted", STILL_TARGET)
        await store.set_state("wanted", RunState.RUNNING)
        names = [f"other-{number}" for number in range(300)]
        await asyncio.gather(*(store.create(name, STILL_TARGET) for name in names))
        await in_groups(store, [f"busy-{number}" for number in range(350)], BUSY_TARGET)
        trips = counted(store)
        page = await store.list_runs(state=RunState.RUNNING, target=STILL_TARGET, limit=4)
        assert ([run.run_id for run in page.runs], page.cursor) == (["wanted"], None)
        assert len(trips) <= 11


@pytest.mark.parametrize("few", ["state", "target", "tenant"])
async def test_of_several_filters_that_of_the_fewest_runs_is_gone_by(
    space: Space, counted: Counted, few: str
) -> None:
    """The listing reads the index that has the fewest members."""
    many: dict[str, Any] = {"state": RunState.PENDING, "target": "many", "tenant": "many"}
    wanted: dict[str, Any] = {**many, few: RunState.RUNNING if few == "state" else "few"}
    async with space.store(partitions=3) as store:
        names = [f"many-{number}" for number in range(300)]
        await asyncio.gather(*(store.create(name, "many", tenant="many") for name in names))
        await store.create("wanted", wanted["target"], tenant=wanted["tenant"])
        await store.set_state("wanted", wanted["state"])
        trips = counted(store)
        page = await store.list_runs(limit=4, **wanted)
        assert ([run.run_id for run in page.runs], page.cursor) == (["wanted"], None)
        assert [trip[0][0] for trip in trips] == ["ZCARD", "ZREVRANGEBYLEX", "HGETALL"]


async def test_the_last_page_has_no_cursor_also_when_it_is_full(space: Space) -> None:
    """No further, empty page has to be read."""
    async with space.store() as store:
        for number in range(4):
            await store.create(f"run-{number}", STILL_TARGET)
        first = await store.list_runs(limit=2)
        assert first.cursor is not None
        last = await store.list_runs(limit=2, cursor=first.cursor)
        assert (len(last.runs), last.cursor) == (2, None)
