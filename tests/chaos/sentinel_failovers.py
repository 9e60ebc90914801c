"""Failovers of a Sentinel service, for ``one_failover``."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

from murmur_streams.core.model.limits import new_run_id
from murmur_streams.embedded.node import PATIENCE_SECONDS, Node
from murmur_streams.embedded.sentinel_group import SERVICE, SentinelGroup
from murmur_streams.stores.redis.store import RedisRunStore
from tests.chaos.one_failover import Switch
from tests.chaos.primaries import cut_off_replicas, lose, repair

HOW = ("killed", "frozen", "in order", "killed-after-a-cut", "frozen-after-a-cut")
RUNS = 4


class SentinelFailovers:
    """The primary of a service changes.

    Args:
        group: the service.
    """

    writers = 3

    def __init__(self, group: SentinelGroup) -> None:
        self._group = group

    @property
    def url(self) -> str:
        """For a store."""
        return self._group.url

    def new_runs(self, store: RedisRunStore) -> list[str]:
        """Ids of the runs that the programs write to."""
        del store
        return [new_run_id() for _ in range(RUNS)]

    def of_lost_primary(self, runs: Sequence[str], how: str) -> list[str]:
        """All of them."""
        del how
        return [*runs]

    async def switch(self, how: str) -> Switch:
        """Bring another server to power, and wait until most Sentinels have switched."""
        group = self._group
        old = await asyncio.to_thread(lambda: group.primary)
        await cut_off_replicas(old, how)

        def wait(count: int, port_of: Callable[[Any], int]) -> float:
            deadline = time.monotonic() + PATIENCE_SECONDS
            while sum(_ask(each, port_of) != old.port for each in group.sentinels) < count:
                assert time.monotonic() < deadline, "the Sentinels name no other primary"
                time.sleep(0.002)
            return time.monotonic()

        began, most = time.monotonic(), len(group.sentinels) // 2 + 1
        asked = [(1, _named_port), (most, _switched_port)]
        waiting = [asyncio.create_task(asyncio.to_thread(wait, *each)) for each in asked]
        if how == "in order":
            await asyncio.to_thread(group.fail_over)
        else:
            lose(old, how)
        return Switch(old, began, await waiting[0], await waiting[1])

    def repair(self, switch: Switch) -> None:
        """Let the old primary work again, and wait until all replicas follow."""
        repair(switch.old)
        self._group.wait_until_whole()


def _ask(sentinel: Node, port_of: Callable[[Any], int]) -> int:
    with sentinel.client as client:
        return port_of(client)


def _named_port(client: Any) -> int:
    """The primary for new programs: the promoted one, also before the failover has ended."""
    return int(client.sentinel_get_master_addr_by_name(SERVICE)[1])


def _switched_port(client: Any) -> int:
    """The primary that the Sentinel monitors."""
    return int(client.sentinel_master(SERVICE)["port"])
