"""Three Sentinels, a primary and replicas on this machine: for trying out, and for tests.

All listen on loopback ports, need no password, and keep nothing on the disk but their own settings.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any, cast

from redis import Redis
from redis.exceptions import RedisError

from murmur_streams.core.model.errors import EmbeddedServerError
from murmur_streams.embedded.node import Node, wait_for

SERVICE = "runs"
DOWN_AFTER_MS = 1_000
SENTINELS = 3
PROMOTION_SECONDS = 0.1
"""A Sentinel needs several of its ticks, of a tenth of a second each, to promote a server."""
_SETTINGS = ('save ""', "repl-diskless-sync-delay 0", "repl-backlog-size 16mb")


class SentinelGroup:
    """The processes of a service.

    Args:
        binary: the server's executable.
        folder: where they keep their files.
        replicas: how many servers besides the primary.
        settings: further lines of the servers' settings.
        announced: the ports of proxies, one for each server, where all others reach it.
        down_after_ms: a server that did not answer for so long counts as down.
    """

    def __init__(
        self,
        binary: Path,
        folder: Path,
        replicas: int = 1,
        settings: Sequence[str] = (),
        announced: Sequence[int] = (),
        down_after_ms: int = DOWN_AFTER_MS,
    ) -> None:
        settings = [*_SETTINGS, *settings]
        self.servers = [
            Node(binary, folder / f"server{number}", settings) for number in range(replicas + 1)
        ]
        for node, port in zip(self.servers, announced, strict=False):
            node.announce(port)
        first = f"127.0.0.1 {self.servers[0].announced_port}"
        for node in self.servers[1:]:
            node.settings.append(f"replicaof {first}")
        monitor = [
            f"sentinel monitor {SERVICE} {first} 2",
            f"sentinel down-after-milliseconds {SERVICE} {down_after_ms}",
            f"sentinel failover-timeout {SERVICE} 5000",
        ]
        self.sentinels = [
            Node(binary, folder / f"sentinel{number}", monitor, sentinel=True)
            for number in range(SENTINELS)
        ]

    @property
    def url(self) -> str:
        """For a store."""
        hosts = ",".join(f"127.0.0.1:{each.port}" for each in self.sentinels)
        return f"redis+sentinel://{hosts}/{SERVICE}/0"

    @property
    def primary(self) -> Node:
        """The server that the Sentinels name."""
        for sentinel in self.sentinels:
            with sentinel.client as client, contextlib.suppress(RedisError, OSError):
                found = cast("Any", client).sentinel_get_master_addr_by_name(SERVICE)
                return next(each for each in self.servers if each.announced_port == found[1])
        raise EmbeddedServerError("none of the group's Sentinels answers")

    def start(self) -> None:
        """Start all of it, and return when a failover is possible."""
        for node in (*self.servers, *self.sentinels):
            node.start()
        self.wait_until_whole()

    def start_again(self, node: Node) -> None:
        """Start a server or Sentinel that was killed; a server as a replica of the present primary.

        By its own settings it may be a primary, with nothing or with what a snapshot has. A replica
        that followed it before would connect to it, and would have no more than that, either.
        """
        if node in self.sentinels:
            node.start()
            return
        wait_for(lambda: self._agreed_port() not in {None, node.announced_port}, "a primary")
        node.start("--replicaof", "127.0.0.1", str(self._agreed_port()))

    def stop(self) -> None:
        """End every process."""
        for node in (*self.sentinels, *self.servers):
            node.kill()

    def fail_over(self) -> None:
        """Ask for an orderly failover."""
        with self.sentinels[0].client as client:
            cast("Any", client).execute_command("SENTINEL", "FAILOVER", SERVICE)

    def wait_for_other_primary(self, old: Node) -> None:
        """Wait until the Sentinels name another primary than ``old``."""
        wait_for(lambda: self.primary is not old, "another primary")

    def wait_until_whole(self) -> None:
        """Wait until every server follows the primary again, and the Sentinels know it.

        A server that was away gets a REPLICAOF from here: Sentinels send it only ten seconds later.
        """
        wait_for(self._are_linked, "the replicas follow the primary")
        wait_for(self._is_complete, "the Sentinels know each other and the replicas")

    def _are_linked(self) -> bool:
        port = self._agreed_port()
        if port is None:
            return False
        are_linked = True
        for server in self.servers:
            with server.client as client:
                seen = cast("Any", client).info("replication")
                if server.announced_port == port:
                    are_linked &= seen["role"] == "master"
                elif seen.get("master_port") != port:
                    self._let_follow(client, port)
                    are_linked = False
                else:
                    are_linked &= seen["master_link_status"] == "up"
        return are_linked

    def _let_follow(self, client: Redis, port: int) -> None:
        """Send a REPLICAOF to a server, unless a failover may be under way.

        A look at all servers takes seconds when one of them is slow, and meanwhile the Sentinels
        may have promoted this one: it would become a replica of the old primary, and what it had
        acknowledged would be gone from it and from the replicas that follow it. So they are asked
        again right before. A promotion comes later than ``PROMOTION_SECONDS`` after its first sign.
        """
        asked = time.monotonic()
        if self._agreed_port() == port and time.monotonic() - asked < PROMOTION_SECONDS:
            cast("Any", client).replicaof("127.0.0.1", port)

    def _agreed_port(self) -> int | None:
        """The port of the primary that all Sentinels name; None if they do not, or replace it."""
        named: set[tuple[int, int]] = set()
        for sentinel in self.sentinels:
            with sentinel.client as client:
                seen = cast("Any", client).sentinel_master(SERVICE)
                if "failover_in_progress" in seen["flags"] or "o_down" in seen["flags"]:
                    return None
                named.add((seen["port"], seen["config-epoch"]))
        return named.pop()[0] if len(named) == 1 else None

    def _is_complete(self) -> bool:
        for sentinel in self.sentinels:
            with sentinel.client as client:
                seen = cast("Any", client).sentinel_master(SERVICE)
                replicas = cast("Any", client).sentinel_slaves(SERVICE)
            sound = [each for each in replicas if each["master-link-status"] == "ok"]
            if seen["num-other-sentinels"] != len(self.sentinels) - 1:
                return False
            if len(sound) != len(self.servers) - 1:
                return False
        return True


@contextlib.contextmanager
def sentinel_group(
    binary: Path, folder: Path, replicas: int = 1, settings: Sequence[str] = ()
) -> Generator[SentinelGroup]:
    """A running group; its processes end with the block."""
    group = SentinelGroup(binary, folder, replicas, settings)
    try:
        group.start()
        yield group
    finally:
        group.stop()
