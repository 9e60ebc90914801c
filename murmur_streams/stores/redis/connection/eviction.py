"""Watches whether the server may evict runs; its policy can change at any time."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Mapping

from redis.exceptions import RedisError

from murmur_streams.stores.redis.connection.connections import NeverSentError

logger = logging.getLogger("murmur_streams.redis")

LOOK_SECONDS = 60.0
"""The longest time between two looks at the policy."""
NO_EVICTION = "noeviction"
METRIC = "murmur_store_may_evict"
"""The name of the Prometheus gauge of pods and workers: 1 while there is a warning."""
METRIC_MEANING = (
    "1 while the store's server may evict runs: its maxmemory-policy is not noeviction."
)


class Eviction:
    """The server's ``maxmemory-policy``, as of the last look.

    A policy other than noeviction lets the server delete runs when its memory is full: with
    ``allkeys-*`` any key, with ``volatile-*`` those that expire, which all keys of a run do.

    Args:
        where: the server's address, without a password.
    """

    def __init__(self, where: str) -> None:
        self._where = where
        self._policy = NO_EVICTION

    @property
    def warning(self) -> str | None:
        """The advice about the policy; None while the server evicts nothing."""
        if self._policy == NO_EVICTION:
            return None
        return (
            f"{self._where} may evict runs when its memory is full (maxmemory-policy "
            f"{self._policy}); set maxmemory-policy noeviction"
        )

    def note(self, info: Mapping[str, str]) -> None:
        """Read the policy from INFO, and log a change once."""
        policy = info.get("maxmemory_policy", self._policy)
        if policy == self._policy:
            return
        self._policy = policy
        logger.warning(
            "%s",
            self.warning or f"{self._where} evicts nothing any more (maxmemory-policy {policy})",
        )

    async def watch(self, ask: Callable[[], Awaitable[Mapping[str, str]]]) -> None:
        """Look about once a minute, until cancelled.

        Args:
            ask: gets the server's INFO; after a failed call the next look asks again.
        """
        while True:
            # At most LOOK_SECONDS; random, so that programs do not ask all at once.
            await asyncio.sleep(LOOK_SECONDS * random.uniform(0.8, 1.0))  # noqa: S311  # no secret
            try:
                self.note(await ask())
            except (RedisError, NeverSentError, OSError) as error:
                logger.debug("the eviction policy of %s is not known: %r", self._where, error)
