"""Prepares a server for a store: checks and scripts."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable

from redis.exceptions import RedisError

from murmur_streams.core.model.errors import StoreConfigurationError
from murmur_streams.stores.own_tasks import end_tasks, start_task
from murmur_streams.stores.redis.connection import checks, failures
from murmur_streams.stores.redis.connection.connections import Connections
from murmur_streams.stores.redis.connection.store_use import StoreUse
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
        use: how the store uses it.
    """

    def __init__(
        self, connections: Connections, keys: Keys, where: str, loader: Loader, use: StoreUse
    ) -> None:
        self.check = checks.ServerCheck(connections, f"{keys.base(0)}:probe", where, use)
        self.is_protocol_known = False
        """False until a silent server was probed for the other protocol."""
        self.stamps = keys.meta
        """The server's hash that has the stamps of the libraries in use; "" where it has none."""
        self._connections = connections
        self._where = where
        self._loader = loader
        self._use = use
        self._may_ask = False
        """Whether the user may call INFO."""

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

    async def check_worker(self) -> None:
        """Check the further rights of a worker; StoreConfigurationError names those that miss."""
        of_cluster = checks.CLUSTER_PROBES if self._use.is_cluster else ()
        await self.check.permissions((*checks.WORKER_PROBES, *of_cluster))

    async def look(self) -> None:
        """Note what should be mended on the server, and once a day that the library is in use."""
        try:
            await self.check.while_used(self._probes(), may_ask=self._may_ask)
        except (RedisError, failures.NeverSentError, OSError) as error:
            logger.debug("no look at %s: %r", self._where, error)
        if self._loader.is_stamp_due(wall_clock_ms()):
            await self.stamp()

    async def stamp(self) -> None:
        """Note that the library is in use."""
        if self.stamps and not self._use.read_only:
            await self._loader.stamp(self.stamps, wall_clock_ms())

    async def _prepare(self, *, is_first: bool) -> None:
        if not self._use.read_only:
            await self._loader.find_functions()
        info = await self.check.before_use(self._probes(), is_first=is_first)
        self._may_ask = bool(info)
        if not self._use.read_only and (first := self._loader.first_commands()):
            await self._connections.pipeline(first)

    def _probes(self) -> tuple[str, ...]:
        """Commands that the user must be permitted to call."""
        if self._use.read_only:
            return checks.READ_PROBES
        own = checks.REPLICATED_PROBES if self._use.waits_for_replicas else ()
        scripts = () if self._loader.uses_functions else (checks.SCRIPT_PROBE,)
        of_cluster = checks.CLUSTER_PROBES if self._use.is_cluster else ()
        return (*own, *scripts, *of_cluster, *checks.PROBES, *checks.OWN_PROBES)


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
