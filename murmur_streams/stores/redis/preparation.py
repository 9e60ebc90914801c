"""Prepares a server for a store: checks and scripts."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Sequence

from redis.exceptions import RedisError

from murmur_streams.core.model.errors import StoreConfigurationError
from murmur_streams.stores.own_tasks import end_tasks, start_task
from murmur_streams.stores.redis.connection import checks, failures
from murmur_streams.stores.redis.connection.checks import PROBES, SCRIPT_PROBE, Eviction
from murmur_streams.stores.redis.connection.connections import Connections
from murmur_streams.stores.redis.keys import Keys
from murmur_streams.stores.redis.loading import Loader
from murmur_streams.stores.timing import wall_clock_ms

logger = logging.getLogger("murmur_streams.redis")

SILENT_SECONDS = 1.0
"""A server that is silent for so long may speak another protocol (TLS or plain)."""


class Preparation:
    """The preparation of one store's server: at the start, and when it was lost or emptied.

    Args:
        connections: to the server.
        keys: the key space.
        where: the server's address, without a password.
        loader: loads the scripts.
        further_probes: of the store's settings.
        is_cluster: whether the server must be a node of a cluster, or may not be one.
    """

    def __init__(
        self,
        connections: Connections,
        keys: Keys,
        where: str,
        loader: Loader,
        further_probes: Sequence[str] = (),
        *,
        is_cluster: bool = False,
    ) -> None:
        self.eviction = Eviction(where)
        self.is_protocol_known = False
        """False until a silent server was probed for the other protocol."""
        self.probe_key = f"{keys.base(0)}:probe"
        """A key of this server for the probes, which never exists; "" where it has none."""
        self.stamps = keys.meta
        """The server's hash that has the stamps of the libraries in use; "" where it has none."""
        self._connections = connections
        self._further_probes = further_probes
        self._is_cluster = is_cluster
        self._may_ask = False
        """Whether the user may call INFO."""
        self._where = where
        self._loader = loader

    async def begin(self) -> None:
        """Prepare the server for the first time; probe a silent one with TLS, or without.

        Raises:
            StoreConfigurationError: the server is unfit, or speaks the other protocol.
        """
        checking = start_task(self._prepare(is_first=True), "check the server")
        try:
            await asyncio.wait([checking], timeout=SILENT_SECONDS)
            # The exception is always read: asyncio logs one that is never read.
            is_silent = not checking.done() or _is_lost(checking.exception())
            if is_silent and not self.is_protocol_known:
                # Once for each check: on a broken network the probe takes the time of retries.
                self.is_protocol_known = True
                refusal = await self._connections.protocol_refusal()
                if refusal is not None:
                    raise StoreConfigurationError(f"no connection to {self._where}: {refusal}")
            await checking
        finally:
            await end_tasks([checking])

    async def again(self) -> None:
        """Check a server without the scripts as at the start: it is a new one, or was emptied."""
        await never_sent(self._prepare(is_first=False))

    async def check_permissions(self, probes: Sequence[str]) -> None:
        """Reject a user who may not call one of the probes; see ``checks.check_permissions``."""
        if self.probe_key:
            await checks.check_permissions(self._connections, self.probe_key, self._where, probes)

    async def look(self) -> None:
        """Look at the eviction policy, and note once a day that the library is in use."""
        try:
            if self._may_ask:
                self.eviction.note(await checks.server_info(self._connections, "memory"))
        except (RedisError, failures.NeverSentError, OSError) as error:
            logger.debug("the eviction policy of %s is not known: %r", self._where, error)
        now_ms = wall_clock_ms()
        if self._loader.is_stamp_due(now_ms):
            await self.stamp()

    async def stamp(self) -> None:
        """Note that the library is in use."""
        if self.stamps:
            await self._loader.stamp(self.stamps, wall_clock_ms())

    async def _prepare(self, *, is_first: bool) -> None:
        await self._loader.find_functions()
        probes = PROBES if self._loader.uses_functions else (SCRIPT_PROBE, *PROBES)
        info = await checks.check_server(
            self._connections,
            self.probe_key,
            self._where,
            self.eviction,
            is_first=is_first,
            is_cluster=self._is_cluster,
            probes=(*self._further_probes, *probes) if self.probe_key else (),
        )
        if first := self._loader.first_commands():
            await self._connections.pipeline(first)
        self._may_ask = "maxmemory_policy" in info


async def never_sent(preparing: Awaitable[object]) -> None:
    """Mark errors of a preparation: the call itself was not sent, so it was not applied."""
    try:
        await preparing
    except failures.NeverSentError:
        raise
    except Exception as error:
        raise failures.NeverSentError from error


def _is_lost(error: BaseException | None) -> bool:
    """Whether a call failed without an answer."""
    return (
        error is not None and failures.fate_of(failures.reason_of(error)) is failures.Fate.UNKNOWN
    )
