"""Replicated writes: a call counts only once the replicas have it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Literal

from redis.exceptions import RedisError

from murmur_streams.core.model.errors import InvalidInputError
from murmur_streams.stores.redis.connection import checks, failures
from murmur_streams.stores.redis.connection.connections import Connections, Reply
from murmur_streams.stores.redis.connection.lane import Lane

logger = logging.getLogger("murmur_streams.redis")

Durability = Literal["primary", "replicated"]
CONFIRM_SECONDS = 1.0
"""How long one try waits for the replicas. The repeat of a call finds its recorded answers."""
LOOK_SECONDS = 1.0
"""How often the primary is asked for its replicas."""
MOST_LAG_SECONDS = 5
"""A replica that has confirmed nothing for so long is not waited for: when the primary fails,
Sentinel promotes one that has more."""


class Replicas:
    """The replicas of a store's primary.

    Args:
        connections: to the primary.
        where: its address, without a password.
        deadline_seconds: how long a lane waits for a reply. Two calls are on their way at once, and
            both must wait within it.
    """

    def __init__(self, connections: Connections, where: str, deadline_seconds: float) -> None:
        self._connections = connections
        self._where = where
        self.confirm_ms = round(1_000 * min(CONFIRM_SECONDS, deadline_seconds / 4))
        self.needed = 1
        """How many of them must confirm a call: all that keep up, and at least one."""

    async def watch(self) -> None:
        """Count them again and again, until cancelled."""
        while True:
            try:
                info = await checks.server_info(self._connections, "replication")
                self.needed = max(1, replicas_that_keep_up(info))
            except (RedisError, OSError, failures.NeverSentError) as error:
                logger.debug("the replicas of %s are not known: %r", self._where, error)
            await asyncio.sleep(LOOK_SECONDS)


class ReplicatedLane:
    """A lane whose replies count once the replicas have what the calls wrote.

    Args:
        lane: each call blocks it until the replicas have confirmed.
        replicas: how many must.
    """

    def __init__(self, lane: Lane, replicas: Replicas) -> None:
        self._lane = lane
        self._replicas = replicas

    def call(
        self, *command: object, notify: Callable[[], None] | None = None
    ) -> asyncio.Future[Reply]:
        """Send a command; TooFewReplicasError when too few replicas confirmed it in time.

        Args:
            command: the command.
            notify: called as soon as the future is done.
        """
        reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        needed = self._replicas.needed
        applied = self._lane.call(*command)

        def finish() -> None:
            # Both are read: asyncio logs an exception that is never read.
            failed, unconfirmed = applied.exception(), confirmed.exception()
            error = failed or unconfirmed
            if error is None and confirmed.result() < needed:
                error = failures.TooFewReplicasError(
                    f"{confirmed.result()} of {needed} replicas have it"
                )
            if error is not None:
                reply.set_exception(error)
            else:
                reply.set_result(applied.result())
            if notify is not None:
                notify()

        # The server executes it right after the command, and blocks this connection alone.
        confirmed = self._lane.call("WAIT", needed, self._replicas.confirm_ms, notify=finish)
        return reply


def replicas_that_keep_up(info: Mapping[str, str]) -> int:
    """How many replicas may be promoted, from a primary's INFO."""
    found = 0
    for number in range(int(info.get("connected_slaves", 0))):
        parts = info.get(f"slave{number}", "").split(",")
        fields = dict(part.split("=", 1) for part in parts if "=" in part)
        lag = int(fields.get("lag", 0))
        found += fields.get("state") == "online" and lag <= MOST_LAG_SECONDS
    return found


def check_durability(durability: str) -> bool:
    """Whether writes wait for replicas; InvalidInputError for an unknown word."""
    if durability not in {"primary", "replicated"}:
        raise InvalidInputError(
            f"durability is {durability!r}, but must be 'primary' (a write returns when the "
            "primary has it) or 'replicated' (when its replicas have it, too)"
        )
    return durability == "replicated"
