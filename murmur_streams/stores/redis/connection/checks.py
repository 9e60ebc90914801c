"""What a server must be before the store uses it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from redis.exceptions import ReadOnlyError, RedisError

from murmur_streams.core.model.errors import StoreConfigurationError
from murmur_streams.stores.redis import rights
from murmur_streams.stores.redis.connection.connections import Connections
from murmur_streams.stores.redis.connection.eviction import Eviction
from murmur_streams.stores.redis.connection.failures import clear_error, code_of
from murmur_streams.stores.redis.keys import Keys

OLDEST_SERVER = (6, 2)
PROBES: tuple[str, ...] = (
    "EVALSHA 0000000000000000000000000000000000000000 1 {key}",
    *(probe for name, probe in rights.PROBES.items() if name not in {"HSETNX", "SADD", "SREM"}),
    "MULTI",
    "SADD {key} m",
    "SREM {key} m",
    "HSETNX {key} f v",
    "HDEL {key} f",
    "DISCARD",
)
"""What the scripts call, each in a form that changes nothing on a key that is not there, so that a
user who lacks a right learns it at the start and not from a refused write. HSETNX and SADD have no
such form: they are queued and discarded."""
OWN_PROBES: tuple[str, ...] = (
    "PING",
    "SMEMBERS {key}",
    "XREAD COUNT 1 STREAMS {key} 0",
    "ZRANGE {key} 0 0",
    "ZREVRANGEBYLEX {key} + - LIMIT 0 1",
    "MULTI",
    "PEXPIRE {key} 1",
    "EXEC",
)
"""What the store calls itself, beside some of those: a subscriber that was denied its wake-up would
wait in vain for news."""
WORKER_PROBES: tuple[str, ...] = (
    "XGROUP CREATE {key} g 0",
    "XREADGROUP GROUP g c COUNT 1 STREAMS {key} >",
    "ZREMRANGEBYSCORE {key} -inf 0",
)
"""What only workers call."""


async def check_server(
    connections: Connections, keys: Keys, where: str, eviction: Eviction, *, is_first: bool
) -> dict[str, str]:
    """Refuse a server that cannot hold the guarantees.

    Args:
        connections: to the server.
        keys: the key space.
        where: the server's address, without a password.
        eviction: learns of the server's policy.
        is_first: whether nothing was done on the server yet. A program that already works does not
            stop because the server may now evict runs: that would end all runs instead of some.

    Returns:
        What the server said of itself; empty for a user who may not ask.

    Raises:
        StoreConfigurationError: older than 6.2, evicting live runs, or not permitting what the
            scripts call.
        ReadOnlyError: it is a replica.
    """
    info = await server_info(connections)
    version = info.get("redis_version")
    if version is not None:
        _check_version(version, where)
    if info.get("role", "master") != "master":
        # The server's answer to the first write: found here, it is judged and retried like that.
        await connections.drop_idle()
        raise ReadOnlyError("READONLY the server is a replica")
    policy = info.get("maxmemory_policy", "")
    if is_first and policy.startswith("allkeys"):
        raise StoreConfigurationError(
            f"{where} evicts any key when memory is full (maxmemory-policy {policy}), so live "
            "runs could vanish; set maxmemory-policy noeviction"
        )
    eviction.note(info)
    await check_permissions(connections, keys, where, PROBES + OWN_PROBES)
    return info


async def server_info(connections: Connections, *section: str) -> dict[str, str]:
    """What the server says of itself, or of one section; empty for a user who may not ask."""
    try:
        reply = cast("bytes", await connections.call("INFO", *section))
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


async def check_permissions(
    connections: Connections, keys: Keys, where: str, probes: Sequence[str]
) -> None:
    """Refuse a user who may not do what one of the probes does; they change nothing.

    Raises:
        StoreConfigurationError: all that is missing, by name.
    """
    key = f"{keys.base(0)}:probe"
    commands: list[tuple[object, ...]] = [tuple(probe.format(key=key).split()) for probe in probes]
    replies = await connections.every_reply(commands)
    refused = {
        str(command[0]).lower(): reply
        for command, reply in zip(commands, replies, strict=True)
        if isinstance(reply, RedisError) and _is_denied(reply)
    }
    if not refused:
        return
    if len(refused) == len(probes):
        raise clear_error(next(iter(refused.values())), where)
    raise StoreConfigurationError(
        f"{where} does not permit this user what the store needs: grant "
        f"{' '.join(f'+{name}' for name in sorted(refused))} on ~{keys.prefix}:*"
    )


def _is_denied(error: RedisError) -> bool:
    # An EXEC that is denied ends its transaction, and its error says that first.
    return code_of(error) in _PERMISSION or "NOPERM" in str(error)


_PERMISSION = frozenset({"NOPERM", "NOAUTH"})
