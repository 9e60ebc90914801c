"""Failovers and moved slots of a cluster, for ``one_failover``."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from redis.crc import key_slot

from murmur_streams.embedded.cluster_group import SLOTS, ClusterGroup
from murmur_streams.embedded.node import Node, wait_for
from murmur_streams.stores.redis.keys import Keys
from murmur_streams.stores.redis.store import RedisRunStore
from tests.chaos.one_failover import Switch
from tests.chaos.primaries import cut_off_replicas, lose, repair
from tests.chaos.writing import one_run_in_each

MOVES: dict[str, Callable[[ClusterGroup, int, Node], None]] = {
    "slot moved": ClusterGroup.move_slot,
    "slot moved at once": ClusterGroup.move_slot_at_once,
}
HOW = ("killed", "frozen", "in order", "killed-after-a-cut", "frozen-after-a-cut", *MOVES)
PARTITION = 0
"""Its slot moves, or its node is lost."""


class ClusterFailovers:
    """A node is lost, or a slot moves; the partitions of the other nodes must not wait for it.

    Args:
        group: the cluster.
    """

    writers = 1

    def __init__(self, group: ClusterGroup) -> None:
        self._group = group
        self._slots: list[int] = []
        """Of each partition."""

    @property
    def url(self) -> str:
        """For a store."""
        return self._group.url

    def new_runs(self, store: RedisRunStore) -> list[str]:
        """A run in each partition."""
        self._slots = slots_of(store._keys)
        return one_run_in_each(store._keys)

    def of_lost_primary(self, runs: Sequence[str], how: str) -> list[str]:
        """The runs of the node that is lost, or of the slot that moves."""
        if how in MOVES:
            return [runs[PARTITION]]
        node = self._group.primary_of(self._slots[PARTITION])
        owners = [self._group.primary_of(slot) for slot in self._slots]
        return [run_id for run_id, owner in zip(runs, owners, strict=True) if owner is node]

    async def switch(self, how: str) -> Switch:
        """Lose the node or move the slot, and wait until most nodes name another owner."""
        group, slot = self._group, self._slots[PARTITION]
        old = await asyncio.to_thread(group.primary_of, slot)
        to = await asyncio.to_thread(another_primary, group, old)
        await cut_off_replicas(old, how)
        began = time.monotonic()
        if how in MOVES:
            await asyncio.to_thread(MOVES[how], group, slot, to)
        elif how == "in order":
            await asyncio.to_thread(group.fail_over, old)
        else:
            lose(old, how)
        await asyncio.to_thread(wait_for_another, group, slot, old)
        switched = time.monotonic()
        return Switch(old, began, switched, switched)

    def repair(self, switch: Switch) -> None:
        """Let the old primary work again, and wait until all replicas follow."""
        repair(switch.old)
        self._group.wait_until_whole()


def slots_of(keys: Keys) -> list[int]:
    """The slot of each partition."""
    return [key_slot(keys.base(partition).encode()) for partition in keys.all_partitions]


def another_primary(group: ClusterGroup, node: Node) -> Node:
    """A node that has slots, other than this one."""
    return next(
        found for slot in range(0, SLOTS, 1_000) if (found := group.primary_of(slot)) is not node
    )


def wait_for_another(group: ClusterGroup, slot: int, old: Node) -> None:
    """Wait until a slot has another owner."""
    wait_for(lambda: group.primary_of(slot) is not old, "another primary")
