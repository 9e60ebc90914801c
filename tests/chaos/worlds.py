"""The worlds of a chaos run: servers, and what can happen to them.

A world is a context manager that yields a ``World``; ``WORLDS`` lists them by their topology.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

from murmur_streams.embedded.cluster_group import ClusterGroup
from murmur_streams.embedded.node import Node, free_port
from murmur_streams.embedded.sentinel_group import SentinelGroup
from murmur_streams.testing.faults import (
    Act,
    FaultProxy,
    ServerHandle,
    TcpProxy,
    fail_over,
    network_faults,
    process_faults,
    request_faults,
    server_faults,
)
from tests.chaos.cluster_world import cluster, of_cluster
from tests.chaos.programs import program_faults
from tests.chaos.workers import worker_faults
from tests.chaos.world import (
    ADMIN_SETTINGS,
    DOWN_AFTER_MS,
    REPLICATION_SETTINGS,
    World,
    admin_of,
    behind_proxies,
    choice_of,
    faults_of,
    settings_of_server,
    whole_again,
)
from tests.server_choice import server_binary


@contextlib.asynccontextmanager
async def standalone(folder: Path, seed: int) -> AsyncGenerator[World]:
    """One server that syncs each write to the disk, and a proxy in front of it."""
    settings = ["appendonly yes", "appendfsync always", *ADMIN_SETTINGS, *settings_of_server()]
    binary = await asyncio.to_thread(server_binary)
    async with (
        ServerHandle(folder / "server", settings, binary=binary) as server,
        FaultProxy(server.address) as proxy,
    ):
        options = {"partitions": _partitions(seed)}
        lanes = _of_server(server, proxy, seed)
        yield World(proxy.url, lanes, options, primaries=lambda: [server.port])


def _of_server(server: ServerHandle, proxy: FaultProxy, seed: int) -> dict[str, dict[str, Act]]:
    return {
        "network": network_faults(proxy, choice_of(seed, "network"))
        | request_faults(proxy, choice_of(seed, "requests")),
        "server": server_faults(lambda: admin_of(server.port), choice_of(seed, "server")),
        "processes": process_faults(server, choice_of(seed, "processes")),
    }


@contextlib.asynccontextmanager
async def sentinel(folder: Path, seed: int) -> AsyncGenerator[World]:
    """A Sentinel service with two replicas, all behind proxies; writes wait for the replicas."""
    ports = [free_port() for _ in range(3)]
    binary = await asyncio.to_thread(server_binary)
    settings = [*ADMIN_SETTINGS, *REPLICATION_SETTINGS, *settings_of_server()]
    group = SentinelGroup(binary, folder, 2, settings, ports, DOWN_AFTER_MS)
    async with contextlib.AsyncExitStack() as stack:
        proxies = await behind_proxies(stack, group.servers, ports)
        listened = [TcpProxy(("127.0.0.1", node.port)) for node in group.sentinels]
        for proxy in listened:
            await stack.enter_async_context(proxy)
        stack.callback(group.stop)
        await asyncio.to_thread(group.start)
        hosts = ",".join(f"127.0.0.1:{proxy.port}" for proxy in listened)
        url = f"redis+sentinel://{hosts}/{group.url.split('/', 3)[3]}"
        lanes = _of_service(group, proxies, listened, seed)
        options = {"durability": "replicated", "partitions": _partitions(seed)}
        yield World(url, lanes, options, may_rewind=True, primaries=lambda: [group.primary.port])


def _of_service(
    group: SentinelGroup, proxies: dict[Node, FaultProxy], listened: list[TcpProxy], seed: int
) -> dict[str, dict[str, Act]]:
    choice = choice_of(seed, "listening")
    by_sentinel = [network_faults(proxy, choice) for proxy in listened]

    def of_any_sentinel(name: str) -> Act:
        async def act() -> None:
            await choice.choice(by_sentinel)[name]()

        return act

    def on_primary(make: Callable[[FaultProxy, random.Random], dict[str, Act]], lane: str):
        choice = choice_of(seed, lane)
        by_node = {node: make(proxy, choice) for node, proxy in proxies.items()}

        def of(name: str) -> Act:
            async def act() -> None:
                primary = await asyncio.to_thread(lambda: group.primary)
                await by_node[primary][name]()

            return act

        return {name: of(name) for name in by_node[group.servers[0]]}

    return {
        "network": on_primary(network_faults, "network") | on_primary(request_faults, "requests"),
        "listening": {f"a Sentinel: {name}": of_any_sentinel(name) for name in by_sentinel[0]},
        "server": faults_of(lambda: group.primary, choice_of(seed, "server")),
        "processes": _of_processes(group, proxies, choice_of(seed, "processes")),
    }


def _of_processes(
    group: SentinelGroup, proxies: dict[Node, FaultProxy], choice: random.Random
) -> dict[str, Act]:
    acts = _of_primary(group, choice)
    for what, nodes in (
        ("replica", lambda: [each for each in group.servers if each is not group.primary]),
        ("Sentinel", lambda: group.sentinels),
    ):
        acts |= _of_any(group, what, nodes, choice)

    async def cut_off() -> None:
        primary = await asyncio.to_thread(lambda: group.primary)
        node = choice.choice([each for each in group.servers if each is not primary])
        proxies[node].black_hole(also_new=True)
        await asyncio.sleep(choice.uniform(0.1, 2))
        proxies[node].end_black_hole()
        proxies[node].cut_all()

    async def partitioned() -> None:
        """Nothing reaches the primary, which goes on: for a while two servers are primaries."""
        old = await asyncio.to_thread(lambda: group.primary)
        proxies[old].black_hole(also_new=True)
        try:
            await asyncio.to_thread(group.wait_for_other_primary, old)
            await asyncio.sleep(choice.uniform(0, 1))
        finally:
            proxies[old].end_black_hole()
            proxies[old].cut_all()

    acts["a replica is cut off"] = cut_off
    acts["the primary is cut off until another one is there"] = partitioned

    nodes = [*group.sentinels, *group.servers]
    return whole_again(lambda: nodes, group.wait_until_whole, acts, group.start_again)


def _of_primary(group: SentinelGroup, choice: random.Random) -> dict[str, Act]:
    async def killed() -> None:
        old = await fail_over(group, "killed")
        await asyncio.to_thread(group.start_again, old)

    async def frozen() -> None:
        old = await fail_over(group, "frozen")
        await asyncio.sleep(choice.uniform(0, 1))
        old.thaw()

    async def hangs() -> None:
        old = await asyncio.to_thread(lambda: group.primary)
        old.freeze()
        await asyncio.sleep(choice.uniform(0.1, 0.8))
        old.thaw()

    async def in_order() -> None:
        await fail_over(group, "in order")

    async def killed_with_sentinel() -> None:
        sentinel = choice.choice(group.sentinels)
        sentinel.kill()
        try:
            old = await fail_over(group, "killed")
        finally:
            await asyncio.to_thread(sentinel.start)
        await asyncio.to_thread(group.start_again, old)

    async def killed_during_failover() -> None:
        """An orderly failover, and its new primary dies as soon as it is one."""
        await fail_over(group, "in order")
        await killed()

    return {
        "the primary is killed": killed,
        "the primary and a Sentinel are killed": killed_with_sentinel,
        "the new primary is killed in a failover": killed_during_failover,
        "the primary is frozen until another one is there": frozen,
        "the primary hangs for a moment": hangs,
        "a failover in order": in_order,
    }


def _of_any(
    group: SentinelGroup, what: str, nodes: Callable[[], list[Node]], choice: random.Random
) -> dict[str, Act]:
    async def some() -> Node:
        return choice.choice(await asyncio.to_thread(nodes))

    async def killed() -> None:
        node = await some()
        node.kill()
        await asyncio.sleep(choice.uniform(0, 1))
        await asyncio.to_thread(group.start_again, node)

    async def frozen() -> None:
        node = await some()
        node.freeze()
        await asyncio.sleep(choice.uniform(0.1, 2))
        node.thaw()

    return {f"a {what} is killed": killed, f"a {what} is frozen": frozen}


def _partitions(seed: int) -> int:
    return 1 if seed % 2 else 3


def kinds_of_worlds() -> dict[str, frozenset[str]]:
    """The names of the kinds of faults by topology; nothing is started for them."""
    program, folder, proxy = Path("server"), Path(), FaultProxy("")
    group = SentinelGroup(program, folder, 2)
    proxies = dict.fromkeys(group.servers, proxy)
    nodes = ClusterGroup(program, folder)
    lanes = {
        "standalone": _of_server(ServerHandle(folder, binary=program), proxy, 0),
        "sentinel": _of_service(group, proxies, [proxy], 0),
        "cluster": of_cluster(nodes, dict.fromkeys(nodes.nodes, proxy), 0),
    }
    of_all = {*worker_faults([], random.Random()), *program_faults([], random.Random())}
    return {topology: frozenset(of_all.union(*found.values())) for topology, found in lanes.items()}


WORLDS = {"standalone": standalone, "sentinel": sentinel, "cluster": cluster}
