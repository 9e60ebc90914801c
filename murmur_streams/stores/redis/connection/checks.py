"""Checks of a server before the store uses it: version, role, eviction, permissions.

The eviction policy is watched afterwards, too: it can change at any time.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import cast

from redis.exceptions import ReadOnlyError, RedisError

from murmur_streams.core.model.errors import StoreConfigurationError
from murmur_streams.stores.redis import script_rights
from murmur_streams.stores.redis.connection.connections import Connections
from murmur_streams.stores.redis.connection.failures import clear_error, code_of

logger = logging.getLogger("murmur_streams.redis")

OLDEST_SERVER = (6, 2)
OLDEST_NODE = (7, 0)
"""Of a cluster: workers are woken by messages that only one node gets (SPUBLISH)."""
SCRIPT_PROBE = "EVALSHA 0000000000000000000000000000000000000000 1 {key}"
PROBES: tuple[str, ...] = (
    *(
        probe
        for name, probe in script_rights.PROBES.items()
        if name not in {"HSETNX", "SADD", "SREM"}
    ),
    "MULTI",
    "SADD {key} m",
    "SREM {key} m",
    "HSETNX {key} f v",
    "HDEL {key} f",
    "DISCARD",
)
"""The commands of the scripts, in forms that change nothing while the key does not exist: a missing
right shows at the start, and not in a refused write. HSETNX and SADD do not have such a form: they
are queued in a transaction that is discarded."""
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
"""Further commands that the store itself calls: without them a subscriber would wait in vain."""
WORKER_PROBES: tuple[str, ...] = (
    "XGROUP CREATE {key} g 0",
    "XREADGROUP GROUP g c COUNT 1 STREAMS {key} >",
    "ZREMRANGEBYSCORE {key} -inf 0",
)
"""Commands that only workers call."""
CLUSTER_PROBES = tuple(script_rights.CLUSTER_PROBES.values())
"""The commands that the scripts of a cluster call besides."""
REPLICATED_PROBES: tuple[str, ...] = ("WAIT 0 1", "INFO replication")
"""Commands that only stores call whose writes wait for replicas."""
_GRANTS = {"evalsha": "+evalsha +script|load (from 7.0 on better: +fcall +function|load)"}
"""How a right is granted whose name alone does not suffice."""
LOOK_SECONDS = 60.0
"""The longest time between two looks at the policy."""
NO_EVICTION = "noeviction"
METRIC = "murmur_store_may_evict"
"""The name of the Prometheus gauge of pods and workers: 1 while there is a warning."""
METRIC_MEANING = (
    "1 while the store's server may evict runs: its maxmemory-policy is not noeviction."
)


class Eviction:
    """The server's ``maxmemory-policy``, as of the last look.

    A policy other than noeviction lets the server delete runs when its memory is full: with
    ``allkeys-*`` any key, with ``volatile-*`` those that expire, which all keys of a run do.

    Args:
        where: the server's address, without a password.
    """

    def __init__(self, where: str) -> None:
        self._where = where
        self._policy = NO_EVICTION

    @property
    def warning(self) -> str | None:
        """The advice about the policy; None while the server evicts nothing."""
        if self._policy == NO_EVICTION:
            return None
        return (
            f"{self._where} may evict runs when its memory is full (maxmemory-policy "
            f"{self._policy}); set maxmemory-policy noeviction"
        )

    def note(self, info: Mapping[str, str]) -> None:
        """Read the policy from INFO, and log a change once."""
        policy = info.get("maxmemory_policy", self._policy)
        if policy == self._policy:
            return
        self._policy = policy
        logger.warning(
            "%s",
            self.warning or f"{self._where} evicts nothing any more (maxmemory-policy {policy})",
        )


async def check_server(
    connections: Connections,
    probe_key: str,
    where: str,
    eviction: Eviction,
    *,
    is_first: bool,
    is_cluster: bool,
    probes: Sequence[str],
) -> dict[str, str]:
    """Reject a server on which the guarantees do not hold.

    Args:
        connections: to the server.
        probe_key: a key for the probes, which never exists.
        where: the server's address, without a password.
        eviction: gets the server's eviction policy.
        is_first: whether this is the program's first check. Later, a server that may evict runs is
            not rejected: stopping would end all runs instead of some.
        is_cluster: whether it must be a node of a cluster, or may not be one.
        probes: the commands of the scripts, in forms that change nothing.

    Returns:
        The server's INFO; empty for a user without the right to it.

    Raises:
        StoreConfigurationError: it is older than 6.2 (in a cluster 7.0), evicts live runs, is a
            node of a cluster and should not, or does not permit a command that the scripts call.
        ReadOnlyError: it is a replica.
    """
    info = await server_info(connections)
    _check_kind(info, where, is_cluster=is_cluster)
    if info.get("role", "master") != "master":
        # The same error as the answer to a write, so that it is judged and retried in the same way.
        await connections.drop_idle()
        raise ReadOnlyError("READONLY the server is a replica")
    policy = info.get("maxmemory_policy", "")
    if is_first and policy.startswith("allkeys"):
        raise StoreConfigurationError(
            f"{where} evicts any key when memory is full (maxmemory-policy {policy}), so live "
            "runs could vanish; set maxmemory-policy noeviction"
        )
    eviction.note(info)
    if probes:
        await check_permissions(connections, probe_key, where, (*probes, *OWN_PROBES))
    return info


def _check_kind(info: Mapping[str, str], where: str, *, is_cluster: bool) -> None:
    """Reject a server of a kind on which the store cannot work."""
    version, oldest = info.get("redis_version", ""), OLDEST_NODE if is_cluster else OLDEST_SERVER
    found = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if version and found < oldest:
        needed = ".".join(map(str, oldest))
        raise StoreConfigurationError(
            f"{where} is version {version}; the store needs Redis {needed} or newer, or Valkey"
            f"{' (in a cluster)' if is_cluster else ''}"
        )
    if info.get("cluster_enabled") == "1" and not is_cluster:
        # It would take the runs of its own slots, and no worker would find the others.
        raise StoreConfigurationError(
            f"{where} is a node of a cluster; name the cluster in the URL: "
            "redis+cluster://host:port,host:port"
        )


async def server_info(connections: Connections, *section: str) -> dict[str, str]:
    """The server's INFO, or one section of it; empty for a user without the right to it."""
    try:
        reply = cast("bytes", await connections.call("INFO", *section))
    except Exception as error:
        # Some users lack the right to INFO, and fakeredis lacks the command: the checks go on.
        if getattr(error, "status_code", None) in {"NOPERM", "ERR"}:
            return {}
        raise
    lines = reply.decode().splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)


async def check_permissions(
    connections: Connections, key: str, where: str, probes: Sequence[str]
) -> None:
    """Reject a user who may not call one of the probes, which change nothing.

    Args:
        connections: to the server.
        key: one of the server's, which never exists.
        where: the server's address, without a password.
        probes: commands with ``{key}`` in them.

    Raises:
        StoreConfigurationError: names every missing right.
    """
    commands: list[tuple[object, ...]] = [tuple(probe.format(key=key).split()) for probe in probes]
    replies = await connections.every_reply(commands)
    refused = {
        str(command[0]).lower(): reply
        for command, reply in zip(commands, replies, strict=True)
        # The error of a denied EXEC begins with the end of its transaction.
        if isinstance(reply, RedisError)
        and (code_of(reply) in {"NOPERM", "NOAUTH"} or "NOPERM" in str(reply))
    }
    if not refused:
        return
    if len(refused) == len(probes):
        raise clear_error(next(iter(refused.values())), where)
    grants = [_GRANTS.get(name, f"+{name}") for name in sorted(refused)]
    raise StoreConfigurationError(
        f"{where} does not permit this user what the store needs: grant {' '.join(grants)} "
        f"on ~{key.split(':{', 1)[0]}:*"
    )
