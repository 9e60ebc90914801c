"""What the worlds of a chaos run have in common."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from murmur_streams.core.model.errors import EmbeddedServerError
from murmur_streams.embedded.node import Node
from murmur_streams.testing.faults import Act, FaultProxy, server_faults
from tests.server_choice import own_settings

ADMIN = "chaos"
"""The user of the faults: what happens to the programs' user does not concern it."""
ADMIN_SETTINGS = (f"user {ADMIN} on >{ADMIN} ~* &* +@all",)
REPLICATION_SETTINGS = ("repl-timeout 3", "repl-ping-replica-period 1")
"""A replica notices within seconds that its primary is deaf; by default, within a minute."""
DOWN_AFTER_MS = 3_000
"""A server that did not answer for so long is replaced. The faults of networks and servers are
shorter, and do not fail it over by themselves: a second failover before the replicas have what the
first primary had acknowledged is beyond the limit of replicated writes."""
WHOLE_TRIES = 4
"""Of half a minute each."""


@dataclass(frozen=True, slots=True)
class World:
    """Servers for programs."""

    url: str
    lanes: dict[str, dict[str, Act]]
    """The kinds of faults by lane and name: the faults of different lanes overlap."""
    options: dict[str, Any] = field(default_factory=dict[str, Any])
    """Of the programs' stores."""
    may_rewind: bool = False
    """Whether a failover may take away what readers have seen."""
    primaries: Callable[[], Collection[int]] = lambda: ()
    """The ports of the servers that hold the runs now; it waits for them."""


def choice_of(seed: int, lane: str) -> random.Random:
    """The choices of a lane besides its kinds."""
    return random.Random(f"{seed}:{lane}:details")


def admin_of(port: int) -> Redis:
    """A client of the faults' user."""
    return Redis(
        host="127.0.0.1",
        port=port,
        username=ADMIN,
        password=ADMIN,
        protocol=2,
        socket_timeout=5,
        socket_connect_timeout=2,
    )


def settings_of_server() -> list[str]:
    """The settings that the chosen server needs."""
    return [f"{name} {value}" for name, value in own_settings().items()]


def faults_of(find: Callable[[], Node], choice: random.Random) -> dict[str, Act]:
    """The faults of servers, each of the server that is found when it begins.

    Args:
        find: called in a thread: one that asked a frozen server would hold up every proxy.
        choice: of the details.
    """
    found: Node | None = None

    def admin() -> Redis:
        assert found is not None
        return admin_of(found.port)

    def wrapped(act: Act) -> Act:
        async def both() -> None:
            nonlocal found
            found = await asyncio.to_thread(find)
            await act()

        return both

    acts = {name: wrapped(act) for name, act in server_faults(admin, choice).items()}
    # Replicas and Sentinels have the programs' user.
    del acts["the password is another one"]
    return acts


async def behind_proxies(
    stack: contextlib.AsyncExitStack, nodes: Sequence[Node], ports: Sequence[int]
) -> dict[Node, FaultProxy]:
    """A proxy in front of each node, on the port that it announces; they end with the stack."""
    proxies: dict[Node, FaultProxy] = {}
    for node, port in zip(nodes, ports, strict=True):
        proxies[node] = FaultProxy(("127.0.0.1", node.port), port)
        await stack.enter_async_context(proxies[node])
    return proxies


def whole_again(
    nodes: Callable[[], Sequence[Node]],
    wait: Callable[[], object],
    acts: dict[str, Act],
    start: Callable[[Node], None],
) -> dict[str, Act]:
    """Faults of processes that begin and end with all nodes up and all replicas in step.

    Args:
        nodes: all of them.
        wait: returns when they work together again; raises when that takes too long.
        acts: the faults.
        start: starts a node that was killed.
    """

    async def until_whole() -> None:
        for tries_left in reversed(range(WHOLE_TRIES)):
            try:
                await asyncio.to_thread(_wake, nodes(), start)
                await asyncio.to_thread(wait)
            except (EmbeddedServerError, RedisError, OSError):
                # The other lanes' faults may delay it.
                if not tries_left:
                    raise
            else:
                return

    def wrapped(act: Act) -> Act:
        async def both() -> None:
            await until_whole()
            try:
                await act()
            finally:
                await until_whole()

        return both

    return {name: wrapped(act) for name, act in acts.items()}


def _wake(nodes: Sequence[Node], start: Callable[[Node], None]) -> None:
    for node in nodes:
        # A fault that could not be made may have left one of them so.
        if node.runs:
            node.thaw()
        else:
            start(node)
