"""What an operator should mend on a server though the store works: judged here, logged once."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from enum import StrEnum

logger = logging.getLogger("murmur_streams.redis")

NO_EVICTION = "noeviction"
MOST_SKEW_SECONDS = 5.0
"""How far the clock of a server may be from this machine's."""


class WarningKind(StrEnum):
    """What is wrong with a server."""

    EVICTION = "eviction"
    PERSISTENCE = "persistence"
    REPLICAS = "replicas"
    ROLE = "role"
    PERMISSIONS = "permissions"
    CLOCK = "clock"


Findings = Mapping[WarningKind, str | None]
"""What a look found: the advice, or None where all is well. What is not known is missing."""
EVICTION_METRIC = "murmur_store_may_evict"
"""The name of the Prometheus gauge of pods and workers: 1 while there is that warning."""
EVICTION_MEANING = (
    "1 while the store's server may evict runs: its maxmemory-policy is not noeviction."
)
METRIC = "murmur_store_warning"
"""The same for each kind of warning, which is its label."""
METRIC_MEANING = "1 while something on the store's server should be mended, by kind."

_MENDED = {
    WarningKind.EVICTION: "evicts nothing any more: its maxmemory-policy is noeviction",
    WarningKind.PERSISTENCE: "has an append-only file or a replica now",
    WarningKind.REPLICAS: "has replicas and min-replicas-to-write now",
    WarningKind.ROLE: "is a primary again",
    WarningKind.PERMISSIONS: "permits this user again what the store needs",
    WarningKind.CLOCK: "has the time of this machine again",
}


class ServerWarnings:
    """The warnings about all servers of one store, as of the last look at each."""

    def __init__(self) -> None:
        self._known: dict[tuple[WarningKind, str], str] = {}

    def note(self, where: str, findings: Findings) -> None:
        """Take in what a look at a server found, and log each change once.

        Args:
            where: the server's address, without a password.
            findings: what is missing there stays as it was.
        """
        for kind, advice in findings.items():
            if advice == self._known.get((kind, where)):
                continue
            if advice is None:
                del self._known[kind, where]
                logger.warning("%s %s", where, _MENDED[kind])
            else:
                self._known[kind, where] = advice
                logger.warning("%s", advice)

    def texts(self) -> dict[str, str]:
        """The advice of each kind, of all servers."""
        found: dict[str, list[str]] = {}
        for (kind, _), advice in self._known.items():
            found.setdefault(kind.value, []).append(advice)
        return {kind: "; ".join(advices) for kind, advices in sorted(found.items())}


def judge_info(
    info: Mapping[str, str], where: str, *, has_failovers: bool, waits_for_replicas: bool
) -> dict[WarningKind, str | None]:
    """Judge the INFO of a server; of fields that it does not have nothing is said.

    Args:
        info: its fields; empty for a user without the right to it.
        where: the server's address, without a password.
        has_failovers: whether another server takes its position when it fails.
        waits_for_replicas: whether writes wait for its replicas.
    """
    found: dict[WarningKind, str | None] = {}
    if "maxmemory_policy" in info:
        found[WarningKind.EVICTION] = _eviction(info["maxmemory_policy"], where)
    if "role" in info:
        is_replica = info["role"] != "master"
        advice = f"{where} is a replica now: writes wait until its address has a primary again"
        found[WarningKind.ROLE] = advice if is_replica else None
    # A managed service hides where its program is, and has settings and copies of its own.
    is_own = info.get("executable", "").startswith("/")
    if is_own and {"aof_enabled", "connected_slaves"} <= info.keys() and not has_failovers:
        found[WarningKind.PERSISTENCE] = _persistence(info, where)
    if is_own and info.get("role") == "master" and (has_failovers or waits_for_replicas):
        found[WarningKind.REPLICAS] = _replicas(info, where, waits=waits_for_replicas)
    return found


def judge_clock(skew_seconds: float, where: str) -> dict[WarningKind, str | None]:
    """Judge how far the clock of a server is ahead of this machine's.

    The text has no number that changes from one look to the next: it would be logged each time.
    """
    if abs(skew_seconds) <= MOST_SKEW_SECONDS:
        return {WarningKind.CLOCK: None}
    side = "ahead of" if skew_seconds > 0 else "behind"
    advice = (
        f"the clock of {where} is more than {MOST_SKEW_SECONDS:g} s {side} this machine's: leases "
        "and delays go by the server's, the times of entries by this machine's; let both follow "
        "the same time server"
    )
    return {WarningKind.CLOCK: advice}


def _eviction(policy: str, where: str) -> str | None:
    """A policy other than noeviction lets the server delete runs when its memory is full.

    With ``allkeys-*`` any key, with ``volatile-*`` those that expire, which all keys of a run do.
    """
    if policy == NO_EVICTION:
        return None
    return (
        f"{where} may evict runs when its memory is full (maxmemory-policy {policy}); "
        "set maxmemory-policy noeviction"
    )


def _persistence(info: Mapping[str, str], where: str) -> str | None:
    if info["aof_enabled"] == "1" or info["connected_slaves"] != "0":
        return None
    return (
        f"{where} has neither an append-only file nor a replica: when it stops, what was written "
        "since its last snapshot is lost; set appendonly yes"
    )


def _replicas(info: Mapping[str, str], where: str, *, waits: bool) -> str | None:
    if waits and info.get("connected_slaves") == "0":
        return (
            f"{where} has no replica, and durability is 'replicated': no write returns until a "
            "replica is connected"
        )
    if "min_slaves_good_slaves" in info:
        return None
    return (
        f"{where} has no min-replicas-to-write: while it is cut off from its replicas it goes on "
        "taking writes, which a failover drops; set min-replicas-to-write 1"
    )
