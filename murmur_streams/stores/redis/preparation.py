"""Prepares a server for a store: checks, scripts, and the number of partitions that all share."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable
from typing import Any

from redis.exceptions import RedisError

from murmur_streams.core.model.errors import StoreConfigurationError, StoreUnavailableError
from murmur_streams.stores.own_tasks import end_tasks, start_task
from murmur_streams.stores.redis.connection import checks, failures
from murmur_streams.stores.redis.connection.connections import Connections
from murmur_streams.stores.redis.connection.server_warnings import ServerWarnings
from murmur_streams.stores.redis.keys import SCHEMA_VERSION, Keys
from murmur_streams.stores.redis.loading import Loader
from murmur_streams.stores.timing import wall_clock_ms

logger = logging.getLogger("murmur_streams.redis")

SILENT_SECONDS = 1.0
"""A server that is silent for so long may speak another protocol (TLS or plain)."""


class Preparation:
    """The preparation of one store's server: at the start, and when it was lost or emptied.

    Args:
        connections: to the server.
        keys: the key space; a server with another number of partitions for it is rejected.
        where: the server's address, without a password.
        loader: loads the scripts.
    """

    def __init__(self, connections: Connections, keys: Keys, where: str, loader: Loader) -> None:
        self.warnings = ServerWarnings()
        self.check = checks.ServerCheck(connections, keys, where, self.warnings)
        self.is_protocol_known = False
        """False until a silent server was probed for the other protocol."""
        self.read_only = False
        """Whether the store only reads: nothing is loaded into the server, and nothing written."""
        self._connections = connections
        self._keys = keys
        self._where = where
        self._loader = loader

    def check_may_write(self) -> None:
        """Refuse to write in a store that only reads; nothing was sent.

        Raises:
            StoreConfigurationError: it only reads.
        """
        if self.read_only:
            raise StoreConfigurationError(
                "this store was opened with read_only=True (MURMUR_READ_ONLY=1), and only reads"
            )

    async def begin(self) -> dict[str, str]:
        """Prepare the server for the first time; probe a silent one with TLS, or without.

        Returns:
            The server's INFO; empty for a user without the right to it.

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
            return await checking
        finally:
            await end_tasks([checking])

    async def again(self) -> None:
        """Check a server without the scripts as at the start: it is a new one, or was emptied."""
        await _never_sent(self._prepare(is_first=False))

    async def compare(self) -> None:
        """Compare the server with a store that only reads, without a check of everything."""
        await _never_sent(self._check_meta())

    async def check_worker(self) -> None:
        """Check the further rights of a worker; StoreConfigurationError names those that miss."""
        self.check_may_write()
        await checks.check_permissions(
            self._connections, self._keys, self._where, checks.WORKER_PROBES
        )

    async def for_retry(self, error: BaseException) -> None:
        """Prepare the server for a call that failed with this error, before it is sent again."""
        if isinstance(error, failures.UnconfirmedError):
            await _never_sent(self._confirm_partitions())
        else:
            await self.again()

    async def watch(self, *, may_ask: bool) -> None:
        """Look about once a minute, until cancelled: a server changes while programs use it.

        It notes what should be mended, and once a day that the library is in use.

        Args:
            may_ask: whether the user may call INFO.
        """
        while True:
            # At most LOOK_SECONDS; random, so that programs do not ask all at once.
            await asyncio.sleep(checks.LOOK_SECONDS * random.uniform(0.8, 1.0))  # noqa: S311  # no secret
            try:
                await self.check.while_used(self._probes(), may_ask=may_ask)
            except (RedisError, failures.NeverSentError, OSError) as error:
                logger.debug("no look at %s: %r", self._where, error)
            now_ms = wall_clock_ms()
            if self._loader.is_stamp_due(now_ms):
                await self._loader.stamp(self._keys.meta, now_ms)

    async def _prepare(self, *, is_first: bool) -> dict[str, str]:
        if self.read_only:
            info = await self.check.before_use(self._probes(), is_first=is_first)
            await self._check_meta()
            return info
        await self._loader.find_functions()
        info = await self.check.before_use(self._probes(), is_first=is_first)
        if first := self._loader.first_commands():
            await self._connections.pipeline(first)
        await self._check_meta()
        await self._loader.stamp(self._keys.meta, wall_clock_ms())
        return info

    def _probes(self) -> tuple[str, ...]:
        """Commands that the user must be permitted to call."""
        if self.read_only:
            return checks.READ_PROBES
        own = checks.REPLICATED_PROBES if self.check.waits_for_replicas else ()
        scripts = () if self._loader.uses_functions else (checks.SCRIPT_PROBE,)
        return (*own, *scripts, *checks.PROBES, *checks.OWN_PROBES)

    async def _check_meta(self) -> None:
        """Compare the key space's meta with this store, and write it where it is missing.

        Raises:
            StoreConfigurationError: it has another number of partitions or a newer schema, or the
                key belongs to another program.
            StoreUnavailableError: it is missing, and the store only reads.
        """
        meta = self._keys.meta
        [stored] = await self._replies(("HMGET", meta, "schema_version", "partitions"))
        if None in stored and self.read_only:
            raise StoreUnavailableError(
                f"no program has written under {self._keys.prefix!r} on {self._where} yet, and "
                "this store only reads"
            )
        if None in stored:
            # Only if it is missing: a server without free memory refuses writes, and must serve
            # readers.
            await self._confirm_partitions()
        else:
            self._compare(meta, *stored)

    async def _confirm_partitions(self) -> None:
        """Write the number into meta and into each partition, where it is missing.

        The scripts must be loaded. Of two programs with different numbers only the first succeeds.

        Raises:
            StoreConfigurationError: as ``_check_meta``; nothing was written.
        """
        keys, command = self._keys, self._loader.command
        first, *others = keys.all_partitions
        # Partition 0 first and alone, since it exists for every number: of two programs that start
        # on an emptied server with different numbers, the second finds the first one's number
        # there, and has not yet written to any other partition.
        for page in ([first], others):
            bases = [keys.base(partition) for partition in page]
            numbers = (SCHEMA_VERSION, keys.partitions)
            replies = await self._replies(
                *(command("confirm", [keys.meta, base], numbers) for base in bases)
            )
            for partition, (answer, *found) in zip(page, replies, strict=True):
                if answer != b"OK":
                    self._compare(keys.meta, found[0], found[1])
                    self._compare(keys.partition_meta(partition), SCHEMA_VERSION, found[2])

    async def _replies(self, *commands: tuple[object, ...]) -> list[Any]:
        replies = await self._connections.every_reply([*commands]) if commands else []
        for reply in replies:
            if isinstance(reply, RedisError):
                is_foreign = failures.code_of(reply) == "WRONGTYPE"
                raise self._foreign(self._keys.meta) if is_foreign else reply
        return replies

    def _compare(self, key: str, schema_version: Any, partitions: Any) -> None:
        """Reject values of ``key`` that differ from this store's; b"" is a missing value."""
        keys = self._keys
        try:
            schema = int(schema_version or SCHEMA_VERSION)
            found = int(partitions or keys.partitions)
        except ValueError:
            raise self._foreign(key) from None
        runs = f"the runs under {keys.prefix!r} on {self._where}"
        if schema > SCHEMA_VERSION:
            raise StoreConfigurationError(
                f"{runs} have schema version {schema}, newer than this program's {SCHEMA_VERSION}; "
                "upgrade murmur-streams, or use another key_prefix"
            )
        if found != keys.partitions:
            raise StoreConfigurationError(
                f"{runs} were made with partitions={found} (the key {key!r} has it), this store "
                f"was opened with {keys.partitions}; use the same number"
            )

    def _foreign(self, key: str) -> StoreConfigurationError:
        return StoreConfigurationError(
            f"the key {key!r} on {self._where} is not of murmur-streams; use another key_prefix"
        )


async def _never_sent(preparing: Awaitable[object]) -> None:
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
