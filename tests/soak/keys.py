"""Which keys are on the server, and whether each obeys its rule.

The rules are the key table of the project (``tests/key_audit.py``): a key has an expiry of its own,
expires with its run, or stays. Some keys that stay are the record of runs that are there, such as
the index; when all runs have expired, those must be gone as well.
"""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

from redis import Redis
from redis.cluster import RedisCluster

from tests.chaos.world import ADMIN, World
from tests.key_audit import Row, audit_keys, key_table

STAYING = frozenset(
    {
        "<prefix>:meta",
        "<prefix>:workers",
        "<prefix>:{p}:dead",
        "<prefix>:{p}:dead:<target>",
        "<prefix>:{p}:feed",
        "<prefix>:{p}:meta",
        "<prefix>:{p}:paused",
    }
)
"""The rows of the key table that may be there when all runs have expired: settings, the bounded
feed, dead letters, and the list of workers."""
UNKNOWN = "not in the key table"
LOOKS, BETWEEN_LOOKS_SECONDS = 3, 1.0
Counts = dict[str, int]


def client_of(world: World) -> Redis:
    """A client of the faults' user for all servers that hold runs; the caller closes it."""
    ports = sorted(world.primaries())
    # What a client of a cluster offers of a plain one is enough.
    made: Any = RedisCluster if len(ports) > 1 else Redis
    return made(host="127.0.0.1", port=ports[0], username=ADMIN, password=ADMIN, protocol=2)


def problems_that_stay(client: Redis, apart_ms: int = 0) -> list[str]:
    """The problems of keys that each of several looks finds: runs expire meanwhile.

    Args:
        client: for all servers that hold runs.
        apart_ms: how far the expiry of a key may be from its run's.
    """
    found = dict.fromkeys(audit_keys(client, apart_ms=apart_ms))
    for _ in range(LOOKS - 1):
        if found:
            time.sleep(BETWEEN_LOOKS_SECONDS)
            again = set(audit_keys(client, apart_ms=apart_ms))
            found = dict.fromkeys(each for each in found if each in again)
    return [*found]


def count_keys(client: Redis) -> Counts:
    """How many keys each row of the key table has."""
    names = [name.decode() for name in client.scan_iter(count=1000)]
    counter = Counter(_key_of(_row_of(name)) for name in names)
    return dict(sorted(counter.items()))


def left_keys(client: Redis) -> list[str]:
    """The keys that must not be there when every run has expired."""
    names = sorted(name.decode() for name in client.scan_iter(count=1000))
    return [name for name in names if not _may_be_left(_row_of(name))]


def rule_of(key: str) -> str:
    """The rule of a row of the key table, in plain language."""
    row = next((each for each in key_table() if each.key == key), None)
    if row is None:
        return UNKNOWN
    if row.expires == "never":
        return "stays" if key in STAYING else "goes when it is empty"
    return "expires by itself" if row.expires == "own" else "expires with its run"


def _may_be_left(row: Row | None) -> bool:
    return row is not None and (row.expires == "own" or row.key in STAYING)


def _row_of(name: str) -> Row | None:
    return next((row for row in key_table() if row.matches(name)), None)


def _key_of(row: Row | None) -> str:
    return UNKNOWN if row is None else row.key
