"""Histories on a cluster: replicated writes keep every promise, whatever happens to a node."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import cast

import pytest

from murmur_streams import Fleet
from murmur_streams.core.model.errors import RunCancelledError
from murmur_streams.core.model.events import RunEvent, RunEventType
from murmur_streams.core.model.states import RunState
from murmur_streams.embedded.cluster_group import ClusterGroup
from murmur_streams.embedded.node import Node
from murmur_streams.stores.redis.keys import Keys
from murmur_streams.stores.redis.replication import Durability
from murmur_streams.stores.redis.store import RedisRunStore
from murmur_streams.testing.checker import check
from murmur_streams.testing.history import History, stored_runs
from murmur_streams.testing.recorder import Recorder
from tests.chaos.cluster_failovers import another_primary, slots_of, wait_for_another
from tests.chaos.primaries import repair
from tests.chaos.writing import one_run_in_each, read, write
from tests.cluster_service import cluster_service
from tests.fleet.working import working
from tests.running_server import short_folder
from tests.stores.faults.waiting import wait_until

PARTITIONS = 16
CALLS = ("fcall", "evalsha", "hmget")
Fault = Callable[[ClusterGroup, Node, int], None]


def replaced(begin: Callable[[ClusterGroup, Node], None]) -> Fault:
    """A fault after which the replica takes the slots over; then the node comes back.

    Replicated writes wait for it: the new primary has no other replica.
    """

    def act(group: ClusterGroup, node: Node, slot: int) -> None:
        begin(group, node)
        wait_for_another(group, slot, node)
        repair(node)

    return act


FAULTS: dict[str, Fault] = {
    "killed": replaced(lambda _, node: node.kill()),
    "frozen": replaced(lambda _, node: node.freeze()),
    "in order": replaced(ClusterGroup.fail_over),
    "slot moved": lambda group, node, slot: group.move_slot(slot, another_primary(group, node)),
    "slot moved at once": lambda group, node, slot: group.move_slot_at_once(
        slot, another_primary(group, node)
    ),
    "slot moved to a new node": lambda group, _, slot: group.move_slot(slot, group.add_node()),
}


@pytest.mark.parametrize("what", FAULTS)
@pytest.mark.fault("F14", "F15", "F18", "F19", on="cluster")
async def test_a_cluster_keeps_every_promise(what: str) -> None:
    """Writers and readers in every partition while the node of one of them is lost, or its slot."""
    history, is_over, counts = History(may_rewind=True), asyncio.Event(), Counter[str]()
    with short_folder() as folder, cluster_service(folder) as group:
        # The new node has no replica that could confirm a write.
        durability: Durability = "primary" if "new node" in what else "replicated"
        async with RedisRunStore(group.url, durability=durability) as store:
            recorder, runs = Recorder(store, history), one_run_in_each(store._keys)
            await asyncio.gather(*(recorder.create(run_id, "work") for run_id in runs))
            readers = [asyncio.create_task(read(recorder, run_id)) for run_id in runs]
            writers = [
                asyncio.create_task(write(recorder, run_id, "a", counts, is_over))
                for run_id in runs
            ]
            await wait_until(lambda: counts.total() > 500, "writes are under way")
            slot = slots_of(store._keys)[0]
            node = group.primary_of(slot)
            await asyncio.to_thread(FAULTS[what], group, node, slot)
            more = counts[runs[0]] + 50
            await wait_until(lambda: counts[runs[0]] > more, "writes to the lost node go on")
            is_over.set()
            await asyncio.gather(*writers)
            for run_id in runs:
                await recorder.finish(run_id, RunState.COMPLETED)
            await asyncio.gather(*readers)
            assert check(history, await stored_runs(store, runs)) == []


@pytest.mark.parametrize("what", ["killed", "slot moved"])
@pytest.mark.fault("F18", "F19", on="cluster")
async def test_a_fleet_goes_on_while_a_node_is_lost(what: str) -> None:
    """Every run that was submitted ends once, and a cancel reaches the worker of a running one."""
    with short_folder() as folder, cluster_service(folder) as group:
        fleet, counts = Fleet(group.url, durability="replicated"), dict[int, int]()

        @fleet.agent
        async def counting(number: int) -> int:
            counts[number] = counts.get(number, 0) + 1
            return number

        @fleet.agent
        async def endless(number: int) -> int:
            await asyncio.sleep(3_600)
            return number

        async with fleet, working(fleet):
            slot = slots_of(Keys("murmur:runs", PARTITIONS))[0]
            node = group.primary_of(slot)
            waiting = await fleet.submit("endless", 0)
            fault = asyncio.create_task(asyncio.to_thread(FAULTS[what], group, node, slot))
            handles = [await fleet.submit("counting", number) for number in range(100)]
            await fault
            assert [await handle.output(timeout=30) for handle in handles] == [*range(100)]
            assert set(counts) == {*range(100)}
            await waiting.cancel()
            with pytest.raises(RunCancelledError):
                await waiting.output(timeout=30)


async def test_the_work_of_many_runs_is_spread_over_the_nodes() -> None:
    """With 64 partitions, each of three primaries executes about a third of the calls."""
    with short_folder() as folder, cluster_service(folder) as group:
        async with RedisRunStore(group.url, partitions=64) as store:
            before = [_calls(node) for node in group.nodes[:3]]
            for run_id in (f"run-{number}" for number in range(1_500)):
                await store.submit(run_id, "work")
                await store.append(
                    run_id, RunEvent(type=RunEventType.LOG, run_id=run_id, data="an event")
                )
                await store.get_status(run_id)
            after = [_calls(node) for node in group.nodes[:3]]
    counts = [late - early for late, early in zip(after, before, strict=True)]
    assert sum(counts) >= 3 * 1_500
    mean = sum(counts) / len(counts)
    assert all(0.8 * mean < count < 1.2 * mean for count in counts), counts


def _calls(node: Node) -> int:
    """How many calls of programs a node has executed."""
    with node.client as client:
        stats = cast("dict[str, dict[str, int]]", client.info("commandstats"))
    return sum(stats.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in CALLS)
