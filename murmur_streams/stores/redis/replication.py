"""Replicated writes: a call counts only once the replicas have it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from typing import Literal

from redis.exceptions import RedisError

from murmur_streams.core.model.errors import InvalidInputError
from murmur_streams.stores.redis.connection import checks, failures
from murmur_streams.stores.redis.connection.connections import Connections, Reply
from murmur_streams.stores.redis.connection.lane import Lane
from murmur_streams.stores.redis.connection.topology import Topology

logger = logging.getLogger("murmur_streams.redis")

Durability = Literal["primary", "replicated"]
CONFIRM_SECONDS = 1.0
"""How long one try waits for the replicas. The repeat of a call finds its recorded answers."""
LOOK_SECONDS = 1.0
"""How often the primary is asked for its replicas."""
FIRST_LOOK_SECONDS = 0.1
"""The same until the replicas of this primary are known."""
LASTING_SECONDS = 5.0
"""A replica that has confirmed nothing for so long, or has been away, is not waited for: when the
primary fails, Sentinel promotes one that has more. The news of a failover are faster."""


class Replicas:
    """The replicas of a store's primary, and how many of them must confirm a call.

    A replica that leaves may have been promoted just now: the others follow the old primary for
    another moment, and the store does not know of the failover yet. If it did not count any more at
    once, the old primary and a replica that follows it would acknowledge writes that the new
    primary does not have. So it counts until it has been away for ``LASTING_SECONDS`` and most
    Sentinels, asked after that, still name this primary.

    Args:
        connections: to the primary.
        topology: says whether the store knows the present primary.
        where: its address, without a password.
        deadline_seconds: how long a lane waits for a reply. Two calls are on their way at once, and
            both must wait within it.
    """

    def __init__(
        self, connections: Connections, topology: Topology, where: str, deadline_seconds: float
    ) -> None:
        self._connections, self._agreement = connections, topology.agreement
        topology.when_moved = self.forget
        self._where = where
        self.confirm_ms = round(1_000 * min(CONFIRM_SECONDS, deadline_seconds / 4))
        self.needed: int | None = None
        """All that count, and at least one; None while the store does not know them."""
        self.counted: frozenset[str] = frozenset()
        """Their addresses."""
        self._confirmed_at: dict[str, float] = {}
        """The replicas that count, and when each has confirmed something, by the loop's clock."""
        self._counted_in: int | None = None
        """The term of the primary that they belong to."""
        self._has_moved = asyncio.Event()

    def forget(self) -> None:
        """The store has left the old primary: count the replicas of the new one at once.

        No write is acknowledged until most Sentinels name the new primary: with another failover
        right behind, the news of this one may be old already.
        """
        self.needed = None
        self._has_moved.set()

    def look_again(self) -> None:
        """Count them now: one has come that does not count yet."""
        self._has_moved.set()

    async def watch(self) -> None:
        """Count them again and again, until cancelled."""
        while True:
            self._has_moved.clear()
            try:
                await self.count()
            except (RedisError, OSError, failures.NeverSentError) as error:
                logger.debug("the replicas of %s are not known: %r", self._where, error)
            seconds = LOOK_SECONDS if self.needed is not None else FIRST_LOOK_SECONDS
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._has_moved.wait()

    async def count(self) -> None:
        """Ask the primary for its replicas."""
        term = self._term()
        info = await checks.server_info(self._connections, "replication")
        if term != self._term():
            return
        now = asyncio.get_running_loop().time()
        known = self._confirmed_at | {
            name: now - lag for name, lag in online_replicas(info).items()
        }
        if term != self._counted_in and self._agreement is not None:
            # One of them is the primary now.
            known.pop(self._agreement.name, None)
        gone = {name for name, at in known.items() if now - at > LASTING_SECONDS}
        if (gone or term != self._counted_in) and self._agreement is not None:
            is_agreed = await self._agreement.is_agreed()
            if term != self._term() or (term != self._counted_in and not is_agreed):
                return
            gone = gone if is_agreed else set[str]()
        self._confirmed_at = {name: at for name, at in known.items() if name not in gone}
        self._counted_in, self.needed = term, max(1, len(self._confirmed_at))
        self.counted = frozenset(self._confirmed_at)

    def _term(self) -> int:
        return 0 if self._agreement is None else self._agreement.term


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
        needed, counted = self._replicas.needed, self._replicas.counted
        applied = self._lane.call(*command)

        def too_few(count: int, info: Reply) -> failures.TooFewReplicasError | None:
            # WAIT does not name the replicas that it counts. One that came a moment ago may stand
            # there for one that counts and has just been promoted.
            newcomers = online_replicas(checks.info_fields(info)).keys() - counted
            count = max(0, count - len(newcomers))
            if newcomers:
                self._replicas.look_again()
            if needed is None:
                return failures.TooFewReplicasError(
                    f"{count} replicas have it, and it is not known yet how many must"
                )
            if count < needed:
                return failures.TooFewReplicasError(f"{count} of {needed} replicas have it")
            return None

        def finish() -> None:
            # All are read: asyncio logs an exception that is never read.
            failed, *others = (each.exception() for each in (applied, confirmed, listed))
            unconfirmed = others[0] or others[1]
            error = failed or unconfirmed
            if failed is None and unconfirmed is not None and not _is_unknown(unconfirmed):
                # The server has executed the call, whatever it answers to the WAIT: a primary that
                # becomes a replica ends it with UNBLOCKED. Taken for the call's own answer, this
                # would mean "not executed", and a refusal of the repeat would be the caller's.
                error = failures.TooFewReplicasError(f"no replica confirmed it: {unconfirmed}")
            if error is None:
                error = too_few(confirmed.result(), listed.result())
            if error is not None:
                reply.set_exception(error)
            else:
                reply.set_result(applied.result())
            if notify is not None:
                notify()

        # The server executes it right after the command, and blocks this connection alone.
        confirmed = self._lane.call("WAIT", needed or 1, self._replicas.confirm_ms)
        listed = self._lane.call("INFO", "replication", notify=finish)
        return reply


def _is_unknown(error: BaseException) -> bool:
    """Whether a failed call already counts as one that may have been executed."""
    is_own = failures.reason_of(error) is error
    return is_own and failures.fate_of(error) is failures.Fate.UNKNOWN


def online_replicas(info: Mapping[str, str]) -> dict[str, int]:
    """The replicas that follow a primary, by its INFO, and since when each has confirmed nothing.

    Returns:
        Seconds by the replica's address.
    """
    found: dict[str, int] = {}
    for number in range(int(info.get("connected_slaves", 0))):
        parts = info.get(f"slave{number}", "").split(",")
        fields = dict(part.split("=", 1) for part in parts if "=" in part)
        if fields.get("state") == "online":
            found[f"{fields.get('ip')}:{fields.get('port')}"] = int(fields.get("lag", 0))
    return found


def check_durability(durability: str) -> bool:
    """Whether writes wait for replicas; InvalidInputError for an unknown word."""
    if durability not in {"primary", "replicated"}:
        raise InvalidInputError(
            f"durability is {durability!r}, but must be 'primary' (a write returns when the "
            "primary has it) or 'replicated' (when its replicas have it, too)"
        )
    return durability == "replicated"
