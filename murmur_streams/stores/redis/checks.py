"""What a server must be before the store uses it."""

from __future__ import annotations

from typing import cast

from murmur_streams.core.errors import StoreConfigurationError
from murmur_streams.stores.redis.connections import Connections
from murmur_streams.stores.redis.keys import SCHEMA_VERSION, Keys

OLDEST_SERVER = (6, 2)


async def check_server(connections: Connections, keys: Keys, where: str) -> None:
    """Refuse a server that cannot hold the guarantees, and claim the key space's meta hash.

    Raises:
        StoreConfigurationError: older than 6.2, a replica, evicting live runs, or its key space
            has another number of partitions or a newer schema.
    """
    info = await _info(connections)
    version = info.get("redis_version")
    if version is not None:
        _check_version(version, where)
    if info.get("role", "master") != "master":
        raise StoreConfigurationError(f"{where} is a replica; use the primary's address")
    policy = info.get("maxmemory_policy", "noeviction")
    if policy.startswith("allkeys"):
        raise StoreConfigurationError(
            f"{where} evicts any key when memory is full (maxmemory-policy {policy}), so live "
            "runs could vanish; set maxmemory-policy noeviction"
        )
    await _check_meta(connections, keys, where)


async def _info(connections: Connections) -> dict[str, str]:
    try:
        reply = cast("bytes", await connections.call("INFO"))
    except Exception as error:
        # Users without the right to INFO, and fakeredis, have none; the rest goes on.
        if getattr(error, "status_code", None) in {"NOPERM", "ERR"}:
            return {}
        raise
    lines = reply.decode().splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)


def _check_version(version: str, where: str) -> None:
    found = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if found < OLDEST_SERVER:
        raise StoreConfigurationError(
            f"{where} is version {version}; the store needs Redis 6.2 or newer, or Valkey"
        )


async def _check_meta(connections: Connections, keys: Keys, where: str) -> None:
    await connections.call("HSETNX", keys.meta, "schema_version", SCHEMA_VERSION)
    await connections.call("HSETNX", keys.meta, "partitions", keys.partitions)
    schema, partitions = await connections.call(
        "HMGET", keys.meta, "schema_version", "partitions"
    )
    if int(schema) > SCHEMA_VERSION:
        raise StoreConfigurationError(
            f"the runs under {keys.prefix!r} on {where} have schema version {int(schema)}, newer "
            f"than this program's {SCHEMA_VERSION}; upgrade murmur-streams, or use another "
            "key_prefix"
        )
    if int(partitions) != keys.partitions:
        raise StoreConfigurationError(
            f"the runs under {keys.prefix!r} on {where} were made with partitions="
            f"{int(partitions)}, this store was opened with {keys.partitions}; use the same number"
        )
