"""The world of a chaos run on Redis Cluster: nodes fail and freeze, slots move, nodes are added."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
from collections.abc import AsyncGenerator, Callable, Sequence
from pathlib import Path
from typing import Any, cast

from redis.crc import key_slot
from redis.exceptions import RedisError

from murmur_streams.embedded.cluster_group import ClusterGroup, id_of
from murmur_streams.embedded.node import Node, free_port, wait_for
from murmur_streams.testing.faults import (
    Act,
    FaultProxy,
    network_faults,
    request_faults,
)
from tests.chaos.world import (
    ADMIN_SETTINGS,
    DOWN_AFTER_MS,
    REPLICATION_SETTINGS,
    World,
    behind_proxies,
    choice_of,
    faults_of,
    settings_of_server,
    whole_again,
)
from tests.server_choice import server_binary

PRIMARIES, REPLICAS, PARTITIONS = 3, 1, 16
SLOTS = [key_slot(f"{{{partition}}}".encode()) for partition in range(PARTITIONS)]
"""Those of the runs."""
MOST_ADDED = 2
MOVE_TRIES = 20


@contextlib.asynccontextmanager
async def cluster(folder: Path, seed: int) -> AsyncGenerator[World]:
    """Three primaries and their replicas behind proxies, and 16 partitions."""
    ports = [free_port(further=10_000) for _ in range(PRIMARIES * (1 + REPLICAS))]
    binary = await asyncio.to_thread(server_binary)
    settings = [*ADMIN_SETTINGS, *REPLICATION_SETTINGS, *settings_of_server()]
    settings.append(f"cluster-node-timeout {DOWN_AFTER_MS}")
    group = ClusterGroup(binary, folder, PRIMARIES, REPLICAS, settings, ports)
    async with contextlib.AsyncExitStack() as stack:
        proxies = await behind_proxies(stack, group.nodes, ports)
        stack.callback(group.stop)
        await asyncio.to_thread(group.start)
        options = {"durability": "replicated", "partitions": PARTITIONS}
        lanes = of_cluster(group, proxies, seed)
        yield World(
            group.url,
            lanes,
            options,
            may_rewind=True,
            primaries=lambda: {group.primary_of(slot).port for slot in SLOTS},
        )


def of_cluster(
    group: ClusterGroup, proxies: dict[Node, FaultProxy], seed: int
) -> dict[str, dict[str, Act]]:
    """The kinds of faults of a cluster, by lane and name."""
    which = choice_of(seed, "node")

    def on_any(make: Callable[[FaultProxy, random.Random], dict[str, Act]]) -> dict[str, Act]:
        choice = choice_of(seed, make.__name__)
        by_node = [make(proxy, choice) for proxy in proxies.values()]

        def of(name: str) -> Act:
            async def act() -> None:
                await which.choice(by_node)[name]()

            return act

        return {name: of(name) for name in by_node[0]}

    def some_primary() -> Node:
        return which.choice(_primaries(group.nodes))

    return {
        "network": on_any(network_faults) | on_any(request_faults),
        "server": faults_of(some_primary, choice_of(seed, "server")),
        "processes": whole_again(
            lambda: group.nodes,
            lambda: _wait_until_whole(group),
            _of_processes(group, choice_of(seed, "processes")),
            Node.start,
        ),
    }


def _wait_until_whole(group: ClusterGroup) -> None:
    group.wait_until_whole()
    _end_moves(group)


def _end_moves(group: ClusterGroup) -> None:
    """End the moves that another fault has interrupted: their partitions stand still till then."""
    by_id = {id_of(node): node for node in group.nodes}
    for node in group.nodes:
        with node.client as client:
            client.response_callbacks.clear()
            execute = cast("Any", client).execute_command
            known = cast("bytes", execute("CLUSTER", "NODES")).decode()
            (own,) = [line for line in known.splitlines() if "myself" in line.split()[2]]
            if "slave" in own.split()[2]:
                continue
            for slot, arrow, other in re.findall(r"\[(\d+)(->-|-<-)(\w+)\]", own):
                if arrow == "->-" and other in by_id:
                    _end_move(group, int(slot), by_id[other])
                elif arrow == "-<-" and execute("CLUSTER", "COUNTKEYSINSLOT", slot):
                    # A failover of the source has ended the move there: the rest follows.
                    _end_move(group, int(slot), node)
                else:
                    execute("CLUSTER", "SETSLOT", slot, "STABLE")


def _of_processes(group: ClusterGroup, choice: random.Random) -> dict[str, Act]:
    async def some_primary() -> tuple[Node, int]:
        slot = choice.choice(SLOTS)
        return await asyncio.to_thread(group.primary_of, slot), slot

    async def another(old: Node, slot: int) -> None:
        what = "another primary"
        await asyncio.to_thread(wait_for, lambda: group.primary_of(slot) is not old, what)

    async def killed() -> None:
        old, slot = await some_primary()
        old.kill()
        await another(old, slot)
        await asyncio.to_thread(old.start)

    async def frozen() -> None:
        old, slot = await some_primary()
        old.freeze()
        await another(old, slot)
        await asyncio.sleep(choice.uniform(0, 1))
        old.thaw()

    async def hangs() -> None:
        old, _ = await some_primary()
        old.freeze()
        await asyncio.sleep(choice.uniform(0.1, 0.7))
        old.thaw()

    async def in_order() -> None:
        old, slot = await some_primary()
        await asyncio.to_thread(group.fail_over, old)
        await another(old, slot)

    return {
        "a primary is killed": killed,
        "a primary is frozen until another one is there": frozen,
        "a primary hangs for a moment": hangs,
        "a failover in order": in_order,
        **_of_replicas(group, choice),
        **_of_slots(group, choice),
    }


def _of_replicas(group: ClusterGroup, choice: random.Random) -> dict[str, Act]:
    async def some_replica() -> Node:
        primary = await asyncio.to_thread(group.primary_of, choice.choice(SLOTS))
        return await asyncio.to_thread(group.replica_of, primary)

    async def killed() -> None:
        replica = await some_replica()
        replica.kill()
        await asyncio.sleep(choice.uniform(0, 1))
        await asyncio.to_thread(replica.start)

    async def frozen() -> None:
        replica = await some_replica()
        replica.freeze()
        await asyncio.sleep(choice.uniform(0.1, 2))
        replica.thaw()

    return {"a replica is killed": killed, "a replica is frozen": frozen}


def _of_slots(group: ClusterGroup, choice: random.Random) -> dict[str, Act]:
    async def target(slot: int) -> Node:
        """Another primary, which has slots or was added for them."""
        source = await asyncio.to_thread(group.primary_of, slot)
        others = await asyncio.to_thread(_primaries, group.nodes)
        return choice.choice([node for node in others if node is not source])

    async def key_by_key() -> None:
        slot = choice.choice(SLOTS)
        to = await target(slot)
        await _until_done(lambda: group.begin_move(slot, to))
        await asyncio.sleep(choice.uniform(0, 0.5))
        await _until_done(lambda: group.move_keys(slot, to, choice.randint(1, 50)))
        await asyncio.sleep(choice.uniform(0, 0.5))
        await _until_done(lambda: _end_move(group, slot, to))

    async def at_once() -> None:
        slot = choice.choice(SLOTS)
        to = await target(slot)
        await asyncio.to_thread(group.move_slot_at_once, slot, to)

    async def added() -> None:
        at_first = PRIMARIES * (1 + REPLICAS)
        if len(group.nodes) < at_first + MOST_ADDED * (1 + REPLICAS):
            # With a replica: else its death, which is another fault, would take its slots along.
            await asyncio.to_thread(group.add_node, REPLICAS)
        slot, newest = choice.choice(SLOTS), group.nodes[-1 - REPLICAS :]
        (to,) = await asyncio.to_thread(_primaries, newest)
        if await asyncio.to_thread(group.primary_of, slot) is not to:
            await asyncio.to_thread(group.move_slot, slot, to)

    return {
        "a slot moves key by key": key_by_key,
        "a slot moves at once": at_once,
        "a node is added and gets a slot": added,
    }


def _primaries(nodes: Sequence[Node]) -> list[Node]:
    found: list[Node] = []
    for node in nodes:
        if not node.runs or node.is_frozen:
            continue
        with node.client as client:
            if cast("Any", client).info("replication")["role"] == "master":
                found.append(node)
    return found


def _end_move(group: ClusterGroup, slot: int, to: Node) -> None:
    group.move_keys(slot, to)
    group.end_move(slot, to)


async def _until_done(step: Callable[[], object]) -> None:
    """A step of a move, again and again: other faults may meet it."""
    for tries_left in reversed(range(MOVE_TRIES)):
        try:
            await asyncio.to_thread(step)
        except (RedisError, OSError):
            if not tries_left:
                raise
            await asyncio.sleep(0.2)
        else:
            return
