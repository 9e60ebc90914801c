"""The cost of a worker that has nothing to do."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from pathlib import Path
from typing import Any, cast

import pytest
from redis import Redis

from murmur_streams.embedded.node import Node
from tests.cluster_service import cluster_service
from tests.fleet.stage import Stage, wait_until
from tests.running_server import short_folder
from tests.servers import OF_SENTINELS, Space

WATCHED_SECONDS = 5.0
COMMANDS_A_SECOND = 2.0
OF_A_CLUSTER = 10.0
CONNECTIONS = 12
NOT_COUNTED = (*(name.upper() for name in OF_SENTINELS), "SCRIPT LOAD")
"""The embedded server's keeper asks for INFO, too; calls that happen to coincide get another
connection, once, and load it with all scripts."""


async def sent_in(seconds: float, *servers: Redis) -> int:
    """How many commands clients send meanwhile; what a script calls is not sent."""
    with contextlib.ExitStack() as stack:
        monitors = [stack.enter_context(server.monitor()) for server in servers]
        await asyncio.sleep(seconds)
        return sum(sent_before_now(*each) for each in zip(servers, monitors, strict=True))


def sent_before_now(server: Redis, watching: Any) -> int:
    """The commands that a monitor has seen until now."""
    end, count = f"ECHO {secrets.token_hex(4)}", 0
    server.execute_command(*end.split())
    while True:
        seen = cast("dict[str, Any]", watching.next_command())
        if seen["command"] == end:
            return count
        count += seen["client_type"] != "lua" and not seen["command"].startswith(NOT_COUNTED)


@pytest.mark.slow
async def test_an_idle_worker_sends_less_than_two_commands_a_second(
    stage: Stage, space: Space
) -> None:
    """The server counts the commands over some seconds."""
    await stage.ready(stage.start(idle_seconds=5))
    handle = await stage.fleet.submit("counts", {})
    await handle.output(timeout=30)
    await stage.fleet.close()

    async def is_quiet() -> bool:
        return await sent_in(0.5, space.admin) <= 1

    await wait_until(is_quiet, "the worker is done with the run")
    sent = await sent_in(WATCHED_SECONDS, space.admin)
    assert 0 < sent < COMMANDS_A_SECOND * WATCHED_SECONDS


@pytest.mark.slow
async def test_an_idle_worker_of_a_cluster_costs_its_nodes_little(tmp_path: Path) -> None:
    """In 16 partitions on three nodes: connections and commands, over some seconds."""
    with short_folder() as folder, cluster_service(folder, replicas=0) as group:
        stage = Stage(group.url, "idle", tmp_path, partitions=16)
        try:
            await stage.ready(stage.start(idle_seconds=5))
            handle = await stage.fleet.submit("counts", {})
            await handle.output(timeout=30)
            await stage.fleet.close()
            with contextlib.ExitStack() as stack:
                nodes = [stack.enter_context(node.client) for node in group.nodes]

                async def is_quiet() -> bool:
                    return await sent_in(0.5, *nodes) <= OF_A_CLUSTER / 2

                await wait_until(is_quiet, "the worker is done with the run")
                sent = await sent_in(WATCHED_SECONDS, *nodes)
            held = sum(connections_of_others(node) for node in group.nodes)
        finally:
            stage.close()
    assert 0 < sent < OF_A_CLUSTER * WATCHED_SECONDS
    assert len(nodes) < held <= CONNECTIONS


def connections_of_others(node: Node) -> int:
    """The connections to a node, without the one that asks."""
    with node.client as admin:
        return int(cast("Any", admin).info("clients")["connected_clients"]) - 1
