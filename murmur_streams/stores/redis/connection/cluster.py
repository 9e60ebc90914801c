"""Redis Cluster: which node serves which slot, and when slots get another owner."""

from __future__ import annotations

import asyncio
import bisect
import contextlib
import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, cast

from redis.exceptions import ClusterDownError, RedisError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError

from murmur_streams.core.model.errors import StoreConfigurationError
from murmur_streams.stores.own_tasks import end_tasks, start_shared_task, start_task
from murmur_streams.stores.redis.connection.connections import reply_or_error
from murmur_streams.stores.redis.connection.failures import NeverSentError, is_shut, reason_of
from murmur_streams.stores.redis.connection.maker import Address, AnyClient, ConnectionMaker
from murmur_streams.stores.redis.connection.pools import Pools
from murmur_streams.stores.redis.connection.slots import SlotRange, newest, read_view
from murmur_streams.stores.timing import retry_pause_seconds

logger = logging.getLogger("murmur_streams.redis")

LOOK_SECONDS = 1.0
"""How often one of the nodes is asked for the owners of the slots. A node that is frozen breaks no
connection: without this, its callers would wait until their calls have run out of time."""
ASK_SECONDS = 1.0
"""How long the nodes get to answer, all at once."""
MOMENT_SECONDS = 0.1
"""How long the others still get when most have answered."""
ANEW_SECONDS = 10.0
"""News of a failover reach every node within a few seconds. If most nodes still name lower epochs
after this time, the cluster was set up anew."""
_VIEW: list[tuple[object, ...]] = [("CLUSTER", "SLOTS"), ("CLUSTER", "NODES")]


class Cluster:
    """The nodes of a cluster that serve slots.

    For each slot the owner with the highest epoch counts, among what the nodes answer and what was
    known before: a node that comes back after a failover still takes itself for the owner.

    Args:
        client: its addresses, credentials and options are used.
        deadline_seconds: a connection whose reply takes longer counts as broken.
    """

    is_cluster = True
    term, name = 0, ""
    """Another primary is another node, with replicas of its own."""

    def __init__(self, client: AnyClient, deadline_seconds: float) -> None:
        given = cast("Any", client)
        self._maker = ConnectionMaker.of(client)
        self._remap = given.nodes_manager.address_remap
        self._first: list[Address] = [
            (str(node.host), int(node.port)) for node in given.nodes_manager.startup_nodes.values()
        ]
        self.when_moved: Callable[[], None] = lambda: None
        self._deadline_seconds = deadline_seconds
        self._ranges: list[SlotRange] = []
        self._known: dict[Address, Pools] = {}
        """Of every node that serves slots, or has served some."""
        self._serving: dict[Address, Pools] = {}
        self._have_most_answered = False
        self._behind_since: float | None = None
        """Since when most nodes have named owners with lower epochs than those known."""
        self._asking: asyncio.Task[bool] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()

    @property
    def agreement(self) -> Cluster:
        """Of the nodes."""
        return self

    async def is_agreed(self) -> bool:
        """Whether most nodes, asked now, name the owners of slots that are known."""
        with contextlib.suppress(RedisError, OSError):
            return not await self._ask_once() and self._have_most_answered
        return False

    @property
    def pools(self) -> Sequence[Pools]:
        """Of all nodes that serve slots."""
        return tuple(self._serving.values())

    def of(self, slot: int) -> Pools:
        """The node that serves a slot; ClusterDownError where none does."""
        ranges = self._ranges
        at = bisect.bisect_right(ranges, slot, key=lambda each: each.first) - 1
        if at < 0 or ranges[at].last < slot:
            raise ClusterDownError("CLUSTERDOWN no node is known that serves the slot")
        return self._serving[ranges[at].address]

    async def find(self) -> None:
        """Ask the nodes for the owners of the slots.

        Raises:
            StoreConfigurationError: the server is not a node of a cluster.
            RedisError, OSError: no node answers.
        """
        if not self._ranges:
            await self._ask_once()

    def watch(self) -> None:
        """Look for other owners once a second from now on."""
        if self._watching is None:
            self._watching = start_task(self._watch(), "watch the cluster")

    async def pause_before_retry(self, attempt: int) -> None:
        """Ask for the owners of the slots, and wait if they are the same as before."""
        self._changed.clear()
        with contextlib.suppress(RedisError, OSError, NeverSentError):
            if await self._ask_once():
                return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(retry_pause_seconds(attempt)):
                await self._changed.wait()

    async def close(self) -> None:
        """Close every connection; calls under way fail."""
        await end_tasks([task for task in (self._watching, self._asking) if task is not None])
        for pools in self._known.values():
            await pools.close()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS * random.uniform(0.8, 1.2))  # noqa: S311  # no secret
            try:
                await self._look(*random.choice([*self._serving.items()]))  # noqa: S311
            except (RedisError, OSError, NeverSentError) as error:
                logger.debug("a node of the cluster does not answer: %r", reason_of(error))
                with contextlib.suppress(RedisError, OSError, StoreConfigurationError):
                    await self._ask_once()

    async def _look(self, address: Address, pools: Pools) -> None:
        """Ask one node, on a connection that is kept."""
        async with asyncio.timeout(LOOK_SECONDS / 2):
            replies = await pools.commands.every_reply(_VIEW)
        await self._learn([self._read(address, *replies)])

    async def _ask_once(self) -> bool:
        """Ask all nodes, once for all callers; whether a slot has got another owner."""
        if self._asking is None or self._asking.done():
            self._asking = start_shared_task(self._ask(), "ask the cluster")
        return await asyncio.shield(self._asking)

    async def _ask(self) -> bool:
        replicas = [address for each in self._ranges for address in each.replicas]
        addresses = [*dict.fromkeys([*self._serving, *replicas, *self._first])]
        asks = [asyncio.create_task(self._view_of(each)) for each in addresses]
        try:
            done = await _most_of(asks)
        finally:
            await end_tasks(asks)
        failed = [error for task in done if (error := task.exception()) is not None]
        views = [task.result() for task in done if task.exception() is None]
        views = [view for view in views if view]
        if not views:
            raise self._no_answer(addresses, failed)
        self._have_most_answered = 2 * len(views) > len(addresses)
        if self._have_begun_anew(views, asked=len(addresses)):
            self._ranges = []
        return await self._learn(views)

    async def _view_of(self, address: Address) -> list[SlotRange]:
        connection = self._maker.at(address, socket_connect_timeout=ASK_SECONDS).make()
        try:
            await connection.connect()
            await connection.send_packed_command(connection.pack_commands(_VIEW))
            replies = [await reply_or_error(connection) for _ in _VIEW]
        finally:
            with contextlib.suppress(Exception):
                await connection.disconnect(nowait=True)
        return self._read(address, *replies)

    def _read(self, address: Address, slots: Any, nodes: Any) -> list[SlotRange]:
        if isinstance(slots, RedisError):
            raise slots
        # A user without the right to the second one has no epochs, and takes the newest answer.
        view = read_view(slots, b"" if isinstance(nodes, RedisError) else nodes, address)
        remap = self._remap
        return (
            view if remap is None else [replace(each, address=remap(each.address)) for each in view]
        )

    def _have_begun_anew(self, views: Sequence[Sequence[SlotRange]], asked: int) -> bool:
        """Whether the nodes count from lower epochs, because the cluster was set up anew."""
        known = max((each.epoch for each in self._ranges), default=-1)
        found = max(each.epoch for view in views for each in view)
        if found >= known or 2 * len(views) <= asked:
            self._behind_since = None
            return False
        now = asyncio.get_running_loop().time()
        self._behind_since = now if self._behind_since is None else self._behind_since
        return now - self._behind_since > ANEW_SECONDS

    def _no_answer(self, asked: Sequence[Address], failed: Sequence[BaseException]) -> Exception:
        for error in failed:
            if is_shut(error):
                return cast("Exception", error)
            if isinstance(error, ResponseError):
                if "cluster support disabled" in str(error):
                    return StoreConfigurationError(
                        "the server is not a node of a cluster; use redis:// or rediss://"
                    )
                return error
        where = ", ".join(f"{host}:{port}" for host, port in asked)
        said = str(failed[0]) if failed else f"no answer within {ASK_SECONDS:g} s, or no slots"
        return RedisConnectionError(f"none of the cluster's nodes {where} answers: {said}")

    async def _learn(self, views: Sequence[Sequence[SlotRange]]) -> bool:
        """Take over what is newer than what is known; whether a slot has got another owner."""
        before = _owners(self._ranges)
        self._ranges = newest([self._ranges, *views])
        after = _owners(self._ranges)
        if before == after:
            return False
        for address in {address for *_, address in after} - self._known.keys():
            host, port = address
            maker, where = self._maker.at(address), f"{host}:{port}"
            self._known[address] = Pools(maker, self._deadline_seconds, address=where)
        served = self._serving
        self._serving = {address: self._known[address] for *_, address in after}
        if before:
            logger.warning(
                "slots of the cluster have other nodes now: %s", ", ".join(self._shown())
            )
        self._changed.set()
        for address, pools in served.items():
            if address not in self._serving:
                # Calls under way would wait for a node that is gone or frozen, or that will lose
                # what it still takes.
                await pools.drop_all()
        return True

    def _shown(self) -> list[str]:
        return [
            f"{each.first}-{each.last} {each.address[0]}:{each.address[1]}" for each in self._ranges
        ]


async def _most_of(asks: Sequence[asyncio.Task[list[SlotRange]]]) -> set[asyncio.Task[Any]]:
    """Wait until most nodes have answered, and a moment for the others: one may be frozen."""
    until = asyncio.get_running_loop().time() + ASK_SECONDS
    done, waiting = set[asyncio.Task[Any]](), set(asks)
    while waiting and (left := until - asyncio.get_running_loop().time()) > 0:
        answered = [task for task in done if task.exception() is None]
        patience = MOMENT_SECONDS if 2 * len(answered) > len(asks) else left
        more, waiting = await asyncio.wait(
            waiting, timeout=min(patience, left), return_when=asyncio.FIRST_COMPLETED
        )
        done |= more
        if not more:
            break
    return done


def _owners(ranges: Sequence[SlotRange]) -> list[tuple[int, int, Address]]:
    return [(each.first, each.last, each.address) for each in ranges]
