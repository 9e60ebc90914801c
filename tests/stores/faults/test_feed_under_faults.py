"""A reader of the feed gets each entry exactly once, in each run's order, whatever breaks."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from murmur_streams.core.model.events import RunEvent, RunEventType
from murmur_streams.core.model.feed import FeedEntry
from murmur_streams.core.model.states import RunState
from murmur_streams.stores.redis.live import sources
from murmur_streams.stores.redis.store import RedisRunStore
from murmur_streams.testing.faults import CUTS, Fault, FaultProxy, Parts, Plan, commands, in_turn
from tests.stores.faults.conftest import StoreMaker
from tests.stores.faults.events import note
from tests.stores.faults.waiting import wait_until

RUNS = 6
EVENTS = 20
ENTRIES_A_RUN = EVENTS + 2
"""run.created and the end, too."""
BIG = "x" * 2_000
PATIENCE_SECONDS = 240.0
MOST_FAULTS = 16
"""A page's many reads leave together: with no end of faults it would never come whole."""
FAULTS = (*CUTS, Fault.GARBAGE, Fault.STALL, Fault.BYTE_BY_BYTE)
READS = commands("XREAD", "XRANGE", "XREVRANGE", "HGET")


@pytest.fixture(autouse=True)
def short_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time that a stalled read costs a test; a slow machine only makes more of them."""
    monkeypatch.setattr(sources, "BLOCK_SECONDS", 0.2)


class Reader:
    """Reads the feed up to the end of so many runs; its seqs of each run, as they came."""

    def __init__(self, store: RedisRunStore, runs: int) -> None:
        self.seqs: dict[str, list[int]] = defaultdict(list)
        self.cursor: str | None = None
        self._store = store
        self._runs = runs
        self._ended = 0

    async def read(self, most: int | None = None) -> None:
        """Go on after what was read, up to the end or for ``most`` entries."""
        async with asyncio.timeout(PATIENCE_SECONDS), aclosing(self._entries()) as feed:
            while self._ended < self._runs and most != 0:
                self._take(await anext(feed))
                most = None if most is None else most - 1

    def _entries(self) -> AsyncGenerator[FeedEntry]:
        return self._store.feed(after=self.cursor)

    def _take(self, each: FeedEntry) -> None:
        assert "big" not in each.entry.fields
        self.cursor = each.cursor
        self.seqs[each.run_id].append(each.entry.seq)
        self._ended += each.entry.is_seal

    def check(self) -> None:
        assert dict(self.seqs) == {
            f"run-{number}": list(range(1, ENTRIES_A_RUN + 1)) for number in range(self._runs)
        }


def at_random(dice: random.Random, faults: tuple[Fault, ...]) -> Plan:
    """Breaks the first read and every third or so after it, until there were enough."""
    left = MOST_FAULTS

    def plan(parts: Parts) -> Fault:
        nonlocal left
        if not READS(parts) or not left or (left < MOST_FAULTS and dice.random() > 0.3):
            return Fault.NONE
        left -= 1
        return dice.choice(faults)

    return plan


async def write(store: RedisRunStore, number: int) -> None:
    run_id = f"run-{number}"
    await store.create(run_id, "work")
    for count in range(EVENTS):
        # Every tenth is too large for the feed, and read from its journal.
        event = RunEvent(type=RunEventType.CUSTOM, run_id=run_id, data=BIG)
        await store.append(run_id, note(run_id, "small") if count % 10 else event)
        await asyncio.sleep(0)
    await store.finish(run_id, RunState.COMPLETED)


@pytest.mark.parametrize("name", ["XREAD", "XRANGE", "HGET"])
@pytest.mark.parametrize("fault", FAULTS)
async def test_a_reply_that_breaks_costs_no_entry(
    fault: Fault, name: str, store: RedisRunStore, proxy: FaultProxy, straight: RedisRunStore
) -> None:
    """A broken reply of each command that the reader sends loses and repeats nothing."""
    await store.client.ping()
    await straight.create("before", "work")
    proxy.plan = in_turn([fault] * 3, commands(name))
    reader = Reader(store, 2)
    reading = asyncio.create_task(reader.read())
    await wait_until(lambda: bool(reader.seqs) or bool(proxy.seen), "it reads")
    await asyncio.gather(write(straight, 0), write(straight, 1))
    await reading
    assert reader.seqs.pop("before") == [1]
    reader.check()
    # A fault that breaks nothing is not met again when all came in one page.
    assert set(proxy.seen) == {fault.name}
    assert fault is Fault.BYTE_BY_BYTE or len(proxy.seen) == 3


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("partitions", [1, 3])
async def test_feed_readers_on_breaking_connections_get_all_entries(
    seed: int, partitions: int, proxy: FaultProxy, make_store: StoreMaker
) -> None:
    """Each entry comes exactly once."""
    dice = random.Random(seed)
    store = make_store(proxy.url, partitions=partitions)
    straight = make_store(f"unix://{proxy.upstream}", partitions=partitions)
    await straight._server.ready()
    proxy.plan = at_random(dice, FAULTS)
    readers = [Reader(store, RUNS) for _ in range(3)]
    reading = [asyncio.create_task(reader.read()) for reader in readers]
    for number in range(RUNS):
        await write(straight, number)
        proxy.cut_some(dice)
    await asyncio.gather(*reading)
    for reader in readers:
        reader.check()
    assert proxy.seen


@pytest.mark.parametrize("seed", range(2))
async def test_a_feed_reader_that_resumes_gets_every_entry_once(
    seed: int, store: RedisRunStore, proxy: FaultProxy, straight: RedisRunStore
) -> None:
    """It ends and resumes by its cursor, while connections are cut."""
    dice = random.Random(seed)
    proxy.plan = at_random(dice, CUTS)
    reader = Reader(store, RUNS)
    writing = asyncio.create_task(write_all(straight))
    while not writing.done() or reader.seqs.get(f"run-{RUNS - 1}", [0])[-1] < ENTRIES_A_RUN:
        await reader.read(most=dice.randrange(1, 9))
        proxy.cut_some(dice)
        # A reader that has all entries returns at once; the writer still needs the event loop.
        await asyncio.sleep(0)
    await writing
    reader.check()


async def write_all(store: RedisRunStore) -> None:
    for number in range(RUNS):
        await write(store, number)


async def test_a_waiting_feed_reader_gets_entries_written_in_a_cut(
    store: RedisRunStore, proxy: FaultProxy, straight: RedisRunStore
) -> None:
    """Entries that are written while its connection is cut arrive afterwards."""
    reader = Reader(store, 1)
    reading = asyncio.create_task(reader.read())
    await straight.create("run-0", "work")
    await wait_until(lambda: bool(reader.seqs), "the reader waits for more")
    proxy.plan = in_turn([Fault.DROP_REQUEST] * 10, commands("XREAD", "XRANGE"))
    proxy.cut_all()
    await straight.append("run-0", *[note("run-0", "small")] * EVENTS)
    await straight.finish("run-0", RunState.COMPLETED)
    await reading
    reader.check()
    assert len(proxy.seen) == 10
