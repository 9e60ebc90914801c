"""Makes all programs of a key space agree on the number of partitions before they write."""

from __future__ import annotations

from typing import Any

from redis.exceptions import RedisError

from murmur_streams.core.model.errors import StoreConfigurationError
from murmur_streams.stores.redis.connection.connections import Connections
from murmur_streams.stores.redis.connection.failures import code_of
from murmur_streams.stores.redis.keys import SCHEMA_VERSION, Keys
from murmur_streams.stores.redis.scripts import load_scripts


async def check_meta(connections: Connections, keys: Keys, where: str) -> None:
    """Compare the key space's meta with this store, and write it where it is missing.

    Raises:
        StoreConfigurationError: it has another number of partitions or a newer schema, or the key
            belongs to another program.
    """
    read = ("HMGET", keys.meta, "schema_version", "partitions")
    stored = await _replies(connections, [read], where, keys.meta)
    if None in stored[0]:
        # Only if it is missing: a server without free memory refuses writes, and must serve
        # readers.
        await confirm_partitions(connections, keys, where)
    else:
        _judge(keys, where, keys.meta, *stored[0])


async def confirm_partitions(connections: Connections, keys: Keys, where: str) -> None:
    """Write the number into meta and into each partition, where it is missing.

    The scripts must be loaded. Of two programs with different numbers only the first succeeds.

    Raises:
        StoreConfigurationError: as ``check_meta``; nothing was written.
    """
    first, *others = keys.all_partitions
    # Partition 0 first and alone, since it exists for every number: of two programs that start on
    # an emptied server with different numbers, the second finds the first one's number there, and
    # has not yet written to any other partition.
    for page in ([first], others):
        calls = [_confirmation(keys, each) for each in page]
        replies = await _replies(connections, calls, where, keys.meta)
        for partition, (answer, *found) in zip(page, replies, strict=True):
            if answer != b"OK":
                here = keys.partition_meta(partition)
                _judge(keys, where, keys.meta, found[0], found[1])
                _judge(keys, where, here, SCHEMA_VERSION, found[2])


def _confirmation(keys: Keys, partition: int) -> tuple[object, ...]:
    sha, base = load_scripts()["confirm"].sha, keys.base(partition)
    return ("EVALSHA", sha, 2, keys.meta, base, SCHEMA_VERSION, keys.partitions)


async def _replies(
    connections: Connections, commands: list[tuple[object, ...]], where: str, key: str
) -> list[Any]:
    replies = await connections.every_reply(commands) if commands else []
    for reply in replies:
        if isinstance(reply, RedisError):
            raise _foreign(where, key) if code_of(reply) == "WRONGTYPE" else reply
    return replies


def _judge(keys: Keys, where: str, key: str, schema_version: Any, partitions: Any) -> None:
    """Reject values of ``key`` that differ from this store's; b"" is a missing value."""
    try:
        schema = int(schema_version or SCHEMA_VERSION)
        found = int(partitions or keys.partitions)
    except ValueError:
        raise _foreign(where, key) from None
    if schema > SCHEMA_VERSION:
        raise StoreConfigurationError(
            f"the runs under {keys.prefix!r} on {where} have schema version {schema}, newer "
            f"than this program's {SCHEMA_VERSION}; upgrade murmur-streams, or use another "
            "key_prefix"
        )
    if found != keys.partitions:
        raise StoreConfigurationError(
            f"the runs under {keys.prefix!r} on {where} were made with partitions={found} (the key "
            f"{key!r} has it), this store was opened with {keys.partitions}; use the same number"
        )


def _foreign(where: str, key: str) -> StoreConfigurationError:
    return StoreConfigurationError(
        f"the key {key!r} on {where} is not of murmur-streams; use another key_prefix"
    )
