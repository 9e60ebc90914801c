"""Checks and looks at every server of a store. One that is gone matters only if all are gone."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable

from redis.exceptions import RedisError

from murmur_streams.stores.redis.connection import checks, failures
from murmur_streams.stores.redis.keys import Keys
from murmur_streams.stores.redis.loading import is_complete
from murmur_streams.stores.redis.nodes import Command, Nodes, ServerNode

logger = logging.getLogger("murmur_streams.redis")


async def begin(nodes: Nodes) -> None:
    """Prepare every server for the first time; see ``Preparation.begin``."""
    await _of_each(nodes, lambda node: node.preparation.begin())


async def stamp(nodes: Nodes) -> None:
    """Note on every server that its library is in use."""
    await _of_each(nodes, lambda node: node.preparation.stamp())


async def check_worker(nodes: Nodes) -> None:
    """Check the further rights of a worker; StoreConfigurationError names those that miss."""
    await _of_each(nodes, lambda node: node.preparation.check_worker())


async def watch(nodes: Nodes) -> None:
    """Look at every server about once a minute, until cancelled: it changes while it is used."""
    while True:
        # At most LOOK_SECONDS; random, so that programs do not ask all at once.
        await asyncio.sleep(checks.LOOK_SECONDS * random.uniform(0.8, 1.0))  # noqa: S311  # no secret
        for node in nodes.all:
            await node.preparation.look()


async def ping(nodes: Nodes, keys: Keys, where: str) -> None:
    """Check that every server takes writes and has the scripts; prepare one that has not.

    Raises:
        StoreError: it takes no writes now: it is a replica, out of memory, or has too few replicas.
    """

    async def look(node: ServerNode) -> None:
        commands: list[Command] = [("PING",), node.loader.probe()]
        if node.partitions:
            # This changes nothing, and fails wherever a write fails.
            commands.append(("ZADD", keys.leases(node.partitions[0]), "XX", "0", ""))
        try:
            _, found, *_ = await node.commands.pipeline(commands)
        except RedisError as error:
            if not failures.is_not_loaded(error):
                # What the server answers for now is raised, and not retried.
                is_for_now = failures.is_for_now(error)
                raise (failures.unavailable(where, error) if is_for_now else error) from None
            found = 0
        if not is_complete(found):
            await node.prepare_again()
            await node.commands.pipeline([("PING",), node.loader.probe()])

    await _of_each(nodes, look)


async def _of_each(nodes: Nodes, call: Callable[[ServerNode], Awaitable[object]]) -> None:
    """Do something on every server.

    Raises:
        MurmurError, RedisError, OSError: that of a server which no retry can change; else the first
            one, if no server could be reached.
    """
    found = nodes.all
    done = await asyncio.gather(*(call(node) for node in found), return_exceptions=True)
    failed = [each for each in done if isinstance(each, BaseException)]
    for error in failed:
        if failures.fate_of(failures.reason_of(error)) in failures.FINAL:
            raise error
    if len(failed) == len(found):
        raise failed[0]
    for error in failed:
        logger.debug("one of several servers does not answer: %r", error)
