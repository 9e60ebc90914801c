"""Checks of a server before the store uses it, and once a minute: it can change at any time.

Version, role, eviction, persistence, replicas, permissions, clock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

from redis.exceptions import ReadOnlyError, RedisError

from murmur_streams.core.model.errors import MurmurError, StoreConfigurationError
from murmur_streams.stores.redis import script_rights
from murmur_streams.stores.redis.connection.connections import Connections, Reply
from murmur_streams.stores.redis.connection.failures import clear_error, code_of
from murmur_streams.stores.redis.connection.server_warnings import (
    WarningKind,
    judge_clock,
    judge_info,
)
from murmur_streams.stores.redis.connection.store_use import StoreUse
from murmur_streams.stores.redis.replies import clock_ms
from murmur_streams.stores.timing import wall_clock_ms

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
_OWN_READS = (
    "PING",
    "SMEMBERS {key}",
    "XREAD COUNT 1 STREAMS {key} 0",
    "ZRANGE {key} 0 0",
    "ZREVRANGEBYLEX {key} + - LIMIT 0 1",
)
OWN_PROBES: tuple[str, ...] = (
    *_OWN_READS,
    "MULTI",
    "PEXPIRE {key} 1",
    "EXEC",
)
"""Further commands that the store itself calls: without them a subscriber would wait in vain."""
_READS = "EXISTS GET HGET HGETALL HMGET PTTL TIME XRANGE XREVRANGE ZCARD ZSCORE"
READ_PROBES: tuple[str, ...] = (
    *(script_rights.PROBES[name] for name in _READS.split()),
    *_OWN_READS,
)
"""The commands of a store that only reads: it calls no scripts."""
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
_ONLY_READS = "; or open the store with read_only=True (MURMUR_READ_ONLY=1), if it only reads"
LOOK_SECONDS = 60.0
"""The longest time between two looks at a server."""
_EXACT_SECONDS = 1.0
"""A reply that took longer does not say what time the server has."""


class ServerCheck:
    """The checks of one server for one store.

    Args:
        connections: to the server.
        probe_key: a key of the server for the probes, which never exists.
        where: the server's address, without a password.
        use: how the store uses it; its warnings get what should be mended on the server.
    """

    def __init__(self, connections: Connections, probe_key: str, where: str, use: StoreUse) -> None:
        self.probe_key = probe_key
        """"" for a node of a cluster that has no key of the store now."""
        self._connections = connections
        self._where = where
        self._use = use

    async def before_use(self, probes: Sequence[str], *, is_first: bool) -> dict[str, str]:
        """Reject a server on which the guarantees do not hold.

        Args:
            probes: commands that the user must be permitted to call, in forms that change nothing.
            is_first: whether this is the program's first check. Later, a server that may evict runs
                is not rejected: stopping would end all runs instead of some.

        Returns:
            The server's INFO; empty for a user without the right to it.

        Raises:
            StoreConfigurationError: it is older than 6.2 (in a cluster 7.0), evicts live runs, is a
                node of a cluster and should not, or does not permit a command that the store calls.
            ReadOnlyError: it is a replica.
        """
        info, skew_seconds = await _look(self._connections)
        _check_kind(info, self._where, is_cluster=self._use.is_cluster)
        if info.get("role", "master") != "master":
            # The same error as the answer to a write, so that it is judged and retried in the same
            # way.
            await self._connections.drop_idle()
            raise ReadOnlyError("READONLY the server is a replica")
        policy = info.get("maxmemory_policy", "")
        if is_first and policy.startswith("allkeys"):
            raise StoreConfigurationError(
                f"{self._where} evicts any key when memory is full (maxmemory-policy {policy}), so "
                "live runs could vanish; set maxmemory-policy noeviction"
            )
        self._note(info, skew_seconds)
        await self.permissions(probes)
        self._use.warnings.note(self._where, {WarningKind.PERMISSIONS: None})
        return info

    async def permissions(self, probes: Sequence[str]) -> None:
        """Reject a user who may not call one of the probes; see ``check_permissions``."""
        if self.probe_key:
            await check_permissions(self._connections, self.probe_key, self._where, probes)

    async def while_used(self, probes: Sequence[str], *, may_ask: bool) -> None:
        """Look at the server again: what has changed is a warning, and nothing is rejected.

        Args:
            probes: as for ``before_use``.
            may_ask: whether the user may call INFO.
        """
        info, skew_seconds = await _look(self._connections, may_ask=may_ask)
        self._note(info, skew_seconds)
        denied = None
        try:
            await self.permissions(probes)
        except MurmurError as error:
            denied = str(error)
        self._use.warnings.note(self._where, {WarningKind.PERMISSIONS: denied})

    def _note(self, info: Mapping[str, str], skew_seconds: float | None) -> None:
        findings = judge_info(
            info,
            self._where,
            has_failovers=self._use.is_cluster or self._connections.has_failovers,
            waits_for_replicas=self._use.waits_for_replicas,
        )
        if skew_seconds is not None:
            findings |= judge_clock(skew_seconds, self._where)
        self._use.warnings.note(self._where, findings)


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
    [reply] = await connections.every_reply([("INFO", *section)])
    return info_fields(reply)


async def _look(
    connections: Connections, *, may_ask: bool = True
) -> tuple[dict[str, str], float | None]:
    """The server's INFO, and by how many seconds its clock is ahead of this machine's.

    None: the reply took too long to say it.
    """
    commands: list[tuple[object, ...]] = [("TIME",), *([("INFO",)] if may_ask else [])]
    before = wall_clock_ms()
    time, *info = await connections.every_reply(commands)
    after = wall_clock_ms()
    skew_seconds = None
    if not isinstance(time, RedisError) and after - before <= 1000 * _EXACT_SECONDS:
        skew_seconds = (clock_ms(time) - (before + after) / 2) / 1000
    return info_fields(info[0]) if info else {}, skew_seconds


def info_fields(info: Reply) -> dict[str, str]:
    """The fields of a reply to INFO; none of a user without the right to it."""
    # Some users lack the right to INFO, and fakeredis lacks the command: the checks go on.
    if isinstance(info, RedisError):
        if getattr(info, "status_code", None) in {"NOPERM", "ERR"}:
            return {}
        raise info
    lines = cast("bytes", info).decode().splitlines()
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
    may_read = {"hset", "set", "xadd"} <= refused.keys() and not {"hget", "xread"} & refused.keys()
    raise StoreConfigurationError(
        f"{where} does not permit this user what the store needs: grant {' '.join(grants)} "
        f"on ~{key.split(':{', 1)[0]}:*{_ONLY_READS if may_read else ''}"
    )
