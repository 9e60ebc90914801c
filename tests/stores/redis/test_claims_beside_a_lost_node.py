"""Claims on a cluster while a node is gone: the others are claimed from, without a busy loop."""

from __future__ import annotations

import asyncio
from typing import Any

from murmur_streams.core.model.errors import StoreUnavailableError
from murmur_streams.stores.redis.claims import Claims
from murmur_streams.stores.redis.durations import Durations
from murmur_streams.stores.redis.keys import Keys

LOST = {0, 1}
"""The partitions of the node that is gone."""


class Cluster:
    """Four partitions on two nodes, one of which is gone. No run waits on the other one."""

    keys, is_cluster = Keys("test", 4), True

    def __init__(self) -> None:
        self.nodes = self
        self.asked: list[int] = []

    def name_of(self, partition: int) -> str:
        """The node that has a partition."""
        return "lost" if partition in LOST else "there"

    async def single_script(self, name: str, keys: list[str], args: object) -> tuple[str, ...]:
        """The reply of a claim."""
        del name, args
        partition = self.keys.partition_of_key(keys[0])
        self.asked.append(partition)
        if partition in LOST:
            raise StoreUnavailableError("the node is gone")
        return "OK", "0", "-1"


async def release(*_: object) -> None:
    """No claim is handed back here."""


async def test_a_run_that_is_due_on_a_lost_node_makes_no_busy_loop() -> None:
    """The worker waits: a due time of the past would let it claim again and again."""
    cluster: Any = Cluster()
    claims = Claims(cluster, Durations(0, 0, 0, 1), 1_000, release)
    past = asyncio.get_running_loop().time() - 1
    claims._due.update(dict.fromkeys(LOST, past))
    found = await claims.claim([0, 1, 2, 3], "worker", [], 1, "")
    assert found.next_due_seconds is None
    assert claims.due_partitions() == []
    assert set(cluster.asked) >= {2, 3}
