"""A test's share of its server: a key space of its own, and means to look into it."""

from __future__ import annotations

import contextlib
import secrets
from dataclasses import dataclass, field
from typing import Any, cast

from redis import Redis
from redis.exceptions import ResponseError

from murmur_streams.stores.redis.keys import Keys
from murmur_streams.stores.redis.store import RedisRunStore
from tests.key_audit import dump_keys

OF_SENTINELS = ("ping", "info", "publish", "replconf")
"""The commands that Sentinels and replicas send all the time."""
_OF_OTHERS = frozenset(f"cmdstat_{name}" for name in OF_SENTINELS)


@dataclass(frozen=True)
class Space:
    """The key space of one test: nothing else is on its server."""

    url: str
    admin: Redis
    """A plain client, for looking and for tampering."""
    prefix: str = field(default_factory=lambda: f"test-{secrets.token_hex(4)}")

    @property
    def is_cluster(self) -> bool:
        """Whether it is on a cluster, where ``admin`` is a client for all nodes."""
        return "+cluster" in self.url

    @property
    def server_url(self) -> str:
        """The address of the one server; of a service, that of the primary."""
        if "sentinel" not in self.url:
            return self.url
        given = self.admin.connection_pool.connection_kwargs
        return f"redis://{given['host']}:{given['port']}/0"

    @property
    def keys(self) -> Keys:
        return Keys(self.prefix)

    def store(self, **options: Any) -> RedisRunStore:
        """Open a store; the caller closes it."""
        # Most tests look into the one partition of their runs, on a cluster, too.
        options = {"partitions": 1} | options
        return RedisRunStore(self.url, key_prefix=self.prefix, **options)

    def commands(self) -> int:
        """How many commands the server has executed, those of Sentinels and replicas left out."""
        stats = cast("dict[str, dict[str, int]]", self.admin.info("commandstats"))
        return sum(each["calls"] for name, each in stats.items() if name not in _OF_OTHERS)

    def dump(self) -> dict[str, object]:
        """Everything on the server."""
        return dump_keys(self.admin)

    def dump_without_records(self) -> dict[str, object]:
        """The same without the records of calls: one that changes nothing leaves a record, too."""
        return {key: value for key, value in self.dump().items() if ":producer:" not in key}


def forget_scripts(admin: Redis) -> None:
    """Remove every script and every library of functions from the server."""
    admin.execute_command("SCRIPT", "FLUSH")
    # Servers before 7.0 have no functions.
    with contextlib.suppress(ResponseError):
        admin.execute_command("FUNCTION", "FLUSH")
