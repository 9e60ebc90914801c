"""A cluster of the chosen server, and a client that may do everything on it."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from pathlib import Path
from typing import Any, cast

from redis import Redis
from redis.cluster import RedisCluster

from murmur_streams.embedded.cluster_group import ClusterGroup, cluster_group
from tests.server_choice import own_settings, server_binary

_ON_ALL = frozenset({"SCRIPT", "FUNCTION", "CONFIG", "FLUSHALL", "FLUSHDB", "CLIENT"})


class ClusterAdmin(RedisCluster):
    """Sends commands without a key to every primary, and answers as the first one does."""

    def execute_command(self, *args: Any, **kwargs: Any) -> Any:
        if args[0].split()[0] in _ON_ALL and "target_nodes" not in kwargs:
            answers = [
                super(ClusterAdmin, self).execute_command(*args, target_nodes=node, **kwargs)
                for node in self.get_primaries()
            ]
            return answers[0]
        return super().execute_command(*args, **kwargs)


@contextlib.contextmanager
def cluster_service(folder: Path, primaries: int = 3, replicas: int = 1) -> Generator[ClusterGroup]:
    """A running cluster; its processes end with the block."""
    settings = [f"{name} {value}" for name, value in own_settings().items()]
    with cluster_group(server_binary(), folder, primaries, replicas, settings) as group:
        yield group


@contextlib.contextmanager
def running_cluster(folder: Path) -> Generator[tuple[str, Redis]]:
    """A cluster: its URL, and a client for all of it."""
    with cluster_service(folder) as group:
        admin = ClusterAdmin(host="127.0.0.1", port=group.nodes[0].port, protocol=2)
        try:
            yield group.url, cast("Redis", admin)
        finally:
            admin.close()
