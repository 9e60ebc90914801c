"""The numbers of partitions of a key space, which every program that uses it must know."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from typing import Any

from redis.exceptions import RedisError

from murmur_streams.core.model.errors import (
    MurmurError,
    StoreConfigurationError,
    StoreUnavailableError,
)
from murmur_streams.stores.redis.connection import failures
from murmur_streams.stores.redis.connection.store_use import StoreUse
from murmur_streams.stores.redis.counts import PartitionCounts
from murmur_streams.stores.redis.keys import SCHEMA_VERSION, Keys
from murmur_streams.stores.redis.nodes import Command, Nodes
from murmur_streams.stores.redis.replies import text

logger = logging.getLogger("murmur_streams.redis")

_TRIES, _PAUSE_SECONDS = 20, 0.05
LOOK_SECONDS = 5.0
"""How often an idle program looks whether the number of partitions was raised."""


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
        self._given = keys.counts.newest if use.is_number_given else None
        self._is_known = False
        """Whether the store's numbers are those that the key space had at some time."""
        self.when_changed: list[Callable[[], None]] = []
        """What is called when the store has taken over other numbers."""

    async def check(self) -> None:
        """Compare the records with this store, and write them where they are missing.

        Raises:
            StoreConfigurationError: they have another number of partitions or a newer schema, or
                the key belongs to another program.
            StoreUnavailableError: they are missing, and the store only reads.
        """
        if await self.look():
            return
        if self._use.read_only:
            raise StoreUnavailableError(
                f"no program has written under {self._keys.prefix!r} on {self._where} yet, and "
                "this store only reads"
            )
        # Only if it is missing: a server without free memory refuses writes, and must serve
        # readers.
        await self.confirm(self._keys.all_partitions)
        self._is_known = True

    async def look(self) -> bool:
        """Compare ``meta`` with this store; False when it is missing. Raises as ``check``."""
        meta = self._keys.meta
        [stored] = await self._replies(("HMGET", meta, "schema_version", "partitions"))
        if None in stored:
            return False
        await self._compare(meta, *stored)
        self._is_known = True
        return True

    async def look_in(self, partition: int) -> None:
        """Compare the record of one partition: unlike ``meta``, it is on the node of its runs."""
        if self._use.read_only:
            await self.look()
            return
        key = self._keys.partition_meta(partition)
        [recorded] = await self._replies(("HGET", key, "partitions"))
        if recorded:
            await self._compare(key, SCHEMA_VERSION, recorded)

    async def watch(self) -> None:
        """Look every few seconds, until cancelled: so an idle program learns of a raise."""
        while True:
            await asyncio.sleep(LOOK_SECONDS * random.uniform(0.8, 1.0))  # noqa: S311  # no secret
            try:
                await self.look()
            except (MurmurError, RedisError, failures.NeverSentError, OSError) as error:
                logger.debug("the number of partitions was not compared: %r", error)

    async def confirm(self, partitions: Sequence[int]) -> None:
        """Write the numbers into meta and into partitions, where they are missing.

        The scripts must be loaded. Of two programs with different numbers only the first succeeds:
        the second one finds the first one's number in ``meta``, and writes to no partition. If
        ``meta`` was lost, what a partition records is found before ``meta`` is written again.

        Raises:
            StoreConfigurationError: as ``check``.
        """
        keys, counts = self._keys, self._keys.counts
        metas = [keys.partition_meta(each) for each in partitions]
        found = await self._replies(*(("HGET", each, "partitions") for each in metas))
        for key, number in zip(metas, found, strict=True):
            await self._compare(key, SCHEMA_VERSION, number)
        if keys.counts != counts:
            return  # A change was completed: every record is written.
        if not self._use.is_cluster:
            await self._confirm([keys.meta, *metas], counts)
            return
        # ``meta`` first and alone: it decides between two programs with different numbers.
        await self._confirm([keys.meta], counts)
        await asyncio.gather(*(self._confirm([each], counts) for each in metas))

    async def _confirm(self, names: Sequence[str], counts: PartitionCounts) -> None:
        schema_version = SCHEMA_VERSION if names[0] == self._keys.meta else ""
        call = self._nodes.script("confirm", names, [schema_version, str(counts)])
        [[answer, *other]] = await self._replies(call)
        if answer != b"OK":
            index, *stored = other
            await self._compare(names[int(index) - 1], *stored)

    async def change(self, after: PartitionCounts) -> None:
        """Record other numbers, for all programs; one that was cut off is repeated by any program.

        Once each partition records them, no run appears in it by an old number. So a run that is
        in no partition of an older number will not be there later, and ``create`` by the new
        number, which begins only after that, cannot create a run that exists.

        Raises:
            StoreConfigurationError: another change is under way.
        """
        if not await self._complete(after):
            raise StoreConfigurationError(
                f"another change of the number of partitions under {self._keys.prefix!r} is under "
                "way; try it again"
            )
        self._adopt(after)

    async def _end_change(self, found: PartitionCounts) -> PartitionCounts:
        """Complete the change that a partition has begun; what the numbers are then.

        Other programs may complete it, too, and begin a further one meanwhile.
        """
        for _ in range(_TRIES):
            if await self._complete(found):
                return found
            await asyncio.sleep(_PAUSE_SECONDS * random.random())  # noqa: S311  # no secret
            [stored] = await self._replies(("HMGET", self._keys.meta, "partitions", "changing"))
            later = [self._read(self._keys.meta, SCHEMA_VERSION, each) for each in stored if each]
            found = next((each for each in later[::-1] if each.follows(found)), found)
        raise StoreUnavailableError(
            f"several programs change the number of partitions under {self._keys.prefix!r} at once"
        )

    async def _complete(self, after: PartitionCounts) -> bool:
        """Write ``after`` into every record; False when another change is under way."""
        keys = self._keys
        [recorded] = await self._replies(("HGET", keys.meta, "partitions"))
        before = text(recorded or b"")
        if not await self._record(keys.meta, "begin", before, after):
            return False
        metas = [keys.partition_meta(each) for each in range(after.newest)]
        found = await self._replies(*(("HGET", each, "partitions") for each in metas))
        for key, number in zip(metas, found, strict=True):
            here = text(number or b"")
            may_write = not here or after.follows(self._read(key, SCHEMA_VERSION, here))
            if here != str(after) and not (
                may_write and await self._record(key, "record", here, after)
            ):
                return False
        if before:
            await self._copy_pauses(self._read(keys.meta, SCHEMA_VERSION, before).newest, after)
        return await self._record(keys.meta, "publish", before, after)

    async def _record(self, key: str, step: str, before: str, after: PartitionCounts) -> bool:
        call = self._nodes.script("recount", [key], [step, before, str(after)])
        [[answer, *_]] = await self._replies(call)
        return answer == b"OK"

    async def _copy_pauses(self, old: int, after: PartitionCounts) -> None:
        """Pause in new partitions what is paused in the old ones, which take no pause now."""
        keys, new = self._keys, range(old, after.newest)
        if not new:
            return
        found = await self._replies(*(("SMEMBERS", keys.paused(each)) for each in range(old)))
        targets = {text(target) for targets in found for target in targets}
        calls = [
            self._nodes.script("pause", [keys.base(each)], [target, str(after)])
            for each in new
            for target in targets
        ]
        await self._replies(*calls)

    async def _replies(self, *commands: Command) -> list[Any]:
        replies = await self._nodes.every_reply(commands) if commands else []
        for reply in replies:
            if isinstance(reply, RedisError):
                is_foreign = failures.code_of(reply) == "WRONGTYPE"
                raise self._foreign(self._keys.meta) if is_foreign else reply
        return replies

    async def _compare(self, key: str, schema_version: Any, partitions: Any) -> None:
        """Take over the numbers in ``key``, complete a change, or reject them; b"" is missing."""
        found, own = self._read(key, schema_version, partitions), self._keys.counts
        if found == own:
            return
        if self._is_known and own.follows(found):
            # The server has lost a change that this store knows.
            if not self._use.read_only:
                await self._complete(own)
            return
        if not found.follows(own) and self._given is not None and self._given not in found.numbers:
            raise StoreConfigurationError(
                f"the runs under {self._keys.prefix!r} on {self._where} were made with "
                f"partitions={found} (the key {key!r} has it), this store was opened with "
                f"{own.newest}; use the same number"
            )
        self._adopt(found if key == self._keys.meta else await self._end_change(found))

    def _adopt(self, counts: PartitionCounts) -> None:
        if counts == self._keys.counts:
            return
        logger.info("the runs under %r have partitions=%s now", self._keys.prefix, counts)
        self._keys.change(counts)
        for call in self.when_changed:
            call()

    def _read(self, key: str, schema_version: Any, partitions: Any) -> PartitionCounts:
        """The numbers in ``key``; those of this store where they are missing."""
        try:
            schema = int(schema_version or SCHEMA_VERSION)
            found = PartitionCounts.parse(text(partitions)) if partitions else self._keys.counts
        except ValueError:
            raise self._foreign(key) from None
        if schema > SCHEMA_VERSION:
            raise StoreConfigurationError(
                f"the runs under {self._keys.prefix!r} on {self._where} have schema version "
                f"{schema}, newer than this program's {SCHEMA_VERSION}; upgrade murmur-streams, or "
                "use another key_prefix"
            )
        return found

    def _foreign(self, key: str) -> StoreConfigurationError:
        return StoreConfigurationError(
            f"the key {key!r} on {self._where} is not of murmur-streams; use another key_prefix"
        )
