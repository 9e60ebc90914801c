"""The worlds of a chaos run: servers, and what can happen to them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redis.asyncio import Redis

from murmur_streams.embedded.sentinel_group import Node, SentinelGroup
from tests.chaos.faults import Act, of_connections, of_server
from tests.sentinel_service import sentinel_service
from tests.stores.faults.failovers import fail_over
from tests.stores.faults.proxy import FaultProxy
from tests.stores.faults.servers import SpareServer, spare_server


@dataclass(frozen=True, slots=True)
class World:
    """Servers for programs."""

    url: str
    options: dict[str, Any]
    """Of the programs' stores."""
    faults: dict[str, Act]
    may_rewind: bool = False
    """Whether a failover may take away what readers have seen."""


@contextlib.asynccontextmanager
async def standalone(folder: Path, choice: random.Random) -> AsyncGenerator[World]:
    """One server that syncs each write to the disk, and a proxy in front of it."""
    settings = ("appendonly", "yes", "appendfsync", "always")
    async with (
        spare_server(folder / "server", *settings) as server,
        FaultProxy(server.address) as proxy,
    ):
        faults = of_connections(proxy, choice) | of_server(server.client, choice)
        faults |= _of_process(server, choice) | _of_role(server, choice)
        yield World(proxy.url, {}, faults)


def _of_process(server: SpareServer, choice: random.Random) -> dict[str, Act]:
    async def killed() -> None:
        await server.kill()
        await asyncio.sleep(choice.uniform(0, 0.5))
        await server.start()

    async def restarted() -> None:
        os.kill(server.pid, signal.SIGTERM)
        await asyncio.sleep(choice.uniform(0.2, 0.5))
        await server.kill()
        await server.start()

    async def frozen() -> None:
        os.kill(server.pid, signal.SIGSTOP)
        await asyncio.sleep(choice.uniform(0.1, 1.5))
        os.kill(server.pid, signal.SIGCONT)

    return {
        "the server is killed": killed,
        "the server restarts in order": restarted,
        "the server is frozen": frozen,
    }


def _of_role(server: SpareServer, choice: random.Random) -> dict[str, Act]:
    async def demoted() -> None:
        async with server.client() as admin:
            # A primary that does not exist: the server keeps its data, and is a replica.
            await admin.execute_command("REPLICAOF", "127.0.0.1", "1")
            await asyncio.sleep(choice.uniform(0.05, 0.5))
            await admin.execute_command("REPLICAOF", "NO", "ONE")

    return {"the server is a replica for a moment": demoted}


@contextlib.asynccontextmanager
async def sentinel(folder: Path, choice: random.Random) -> AsyncGenerator[World]:
    """A Sentinel service with two replicas, and programs whose writes wait for them."""
    with sentinel_service(folder, replicas=2) as group:

        def client() -> Redis:
            return Redis(host="127.0.0.1", port=group.primary.port, protocol=2)

        faults = of_server(client, choice) | _of_service(group, choice)
        yield World(group.url, {"durability": "replicated"}, faults, may_rewind=True)


def _of_service(group: SentinelGroup, choice: random.Random) -> dict[str, Act]:
    acts = _of_primary(group, choice)
    for what, nodes in (
        ("replica", lambda: [each for each in group.servers if each is not group.primary]),
        ("Sentinel", lambda: group.sentinels),
    ):
        acts |= _of_any(what, nodes, choice)

    def and_whole_again(act: Act) -> Act:
        async def both() -> None:
            await act()
            await asyncio.to_thread(group.wait_until_whole)

        return both

    return {name: and_whole_again(act) for name, act in acts.items()}


def _of_primary(group: SentinelGroup, choice: random.Random) -> dict[str, Act]:
    async def killed() -> None:
        old = await fail_over(group, "killed")
        await asyncio.to_thread(old.start)

    async def frozen() -> None:
        old = await fail_over(group, "frozen")
        await asyncio.sleep(choice.uniform(0, 1))
        old.thaw()

    async def hangs() -> None:
        old = group.primary
        old.freeze()
        await asyncio.sleep(choice.uniform(0.1, 0.8))
        old.thaw()

    async def in_order() -> None:
        await fail_over(group, "in order")

    return {
        "the primary is killed": killed,
        "the primary is frozen until another one is there": frozen,
        "the primary hangs for a moment": hangs,
        "a failover in order": in_order,
    }


def _of_any(what: str, nodes: Callable[[], list[Node]], choice: random.Random) -> dict[str, Act]:
    async def killed() -> None:
        node = choice.choice(nodes())
        node.kill()
        await asyncio.sleep(choice.uniform(0, 1))
        await asyncio.to_thread(node.start)

    async def frozen() -> None:
        node = choice.choice(nodes())
        node.freeze()
        await asyncio.sleep(choice.uniform(0.1, 2))
        node.thaw()

    return {f"a {what} is killed": killed, f"a {what} is frozen": frozen}


WORLDS = {"standalone": standalone, "sentinel": sentinel}
