"""The number of partitions: every program of a key space agrees on it before it writes."""

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
        StoreConfigurationError: another number of partitions, a newer schema, or a key of
            something else.
    """
    read = ("HMGET", keys.meta, "schema_version", "partitions")
    kept = await _replies(connections, [read], where, keys.meta)
    if None in kept[0]:
        # Only then: a server that is full refuses writes, and would refuse every reader.
        await confirm_partitions(connections, keys, where)
    else:
        _judge(keys, where, keys.meta, *kept[0])


async def confirm_partitions(connections: Connections, keys: Keys, where: str) -> None:
    """Write the number into meta and into each partition, where it is missing.

    The scripts must be loaded. Of two programs with different numbers the first one succeeds.

    Raises:
        StoreConfigurationError: as ``check_meta``; nothing was written.
    """
    first, *others = keys.all_partitions
    # Alone: partition 0 exists whatever the number is, so it refuses for all, also without a meta.
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
            raise _stranger(where, key) if code_of(reply) == "WRONGTYPE" else reply
    return replies


def _judge(keys: Keys, where: str, key: str, schema_version: Any, partitions: Any) -> None:
    """Refuse what stands in ``key``; b"" is nothing."""
    try:
        schema = int(schema_version or SCHEMA_VERSION)
        found = int(partitions or keys.partitions)
    except ValueError:
        raise _stranger(where, key) from None
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


def _stranger(where: str, key: str) -> StoreConfigurationError:
    return StoreConfigurationError(
        f"the key {key!r} on {where} is not of murmur-streams; use another key_prefix"
    )
