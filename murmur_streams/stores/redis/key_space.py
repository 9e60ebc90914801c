"""The number of partitions of a key space, which every program that uses it must have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from redis.exceptions import RedisError

from murmur_streams.core.model.errors import StoreConfigurationError, StoreUnavailableError
from murmur_streams.stores.redis.connection import failures
from murmur_streams.stores.redis.connection.store_use import StoreUse
from murmur_streams.stores.redis.keys import SCHEMA_VERSION, Keys
from murmur_streams.stores.redis.nodes import Command, Nodes


class KeySpace:
    """The records of one key space: ``meta``, and one in each partition for the scripts there.

    Args:
        nodes: the servers.
        keys: the key space.
        where: the store's address, without a password.
        use: how the store uses its servers.
    """

    def __init__(self, nodes: Nodes, keys: Keys, where: str, use: StoreUse) -> None:
        self._use = use
        self._nodes = nodes
        self._keys = keys
        self._where = where

    async def check(self) -> None:
        """Compare the records with this store, and write them where they are missing.

        Raises:
            StoreConfigurationError: they have another number of partitions or a newer schema, or
                the key belongs to another program.
            StoreUnavailableError: they are missing, and the store only reads.
        """
        meta = self._keys.meta
        [stored] = await self._replies(("HMGET", meta, "schema_version", "partitions"))
        if None in stored and self._use.read_only:
            raise StoreUnavailableError(
                f"no program has written under {self._keys.prefix!r} on {self._where} yet, and "
                "this store only reads"
            )
        if None in stored:
            # Only if it is missing: a server without free memory refuses writes, and must serve
            # readers.
            await self.confirm(self._keys.all_partitions)
        else:
            self._compare(meta, *stored)

    async def confirm(self, partitions: Sequence[int]) -> None:
        """Write the number into meta and into partitions, where it is missing.

        The scripts must be loaded. Of two programs with different numbers only the first succeeds:
        the second one finds the first one's number in ``meta``, and writes to no partition. If
        ``meta`` was lost, what a partition records is found before ``meta`` is written again.

        Raises:
            StoreConfigurationError: as ``check``.
        """
        keys = self._keys
        metas = [keys.partition_meta(each) for each in partitions]
        found = await self._replies(*(("HGET", each, "partitions") for each in metas))
        for key, number in zip(metas, found, strict=True):
            self._compare(key, SCHEMA_VERSION, number)
        # ``meta`` first and alone: it decides between two programs with different numbers.
        for names in ([keys.meta], metas):
            numbers = [
                (SCHEMA_VERSION if name == keys.meta else "", keys.partitions) for name in names
            ]
            replies = await self._replies(
                *(
                    self._nodes.script("confirm", [name], own)
                    for name, own in zip(names, numbers, strict=True)
                )
            )
            for name, (answer, *stored) in zip(names, replies, strict=True):
                if answer != b"OK":
                    self._compare(name, *stored)

    async def _replies(self, *commands: Command) -> list[Any]:
        replies = await self._nodes.every_reply(commands) if commands else []
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
