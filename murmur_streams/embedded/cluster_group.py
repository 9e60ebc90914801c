"""A Redis Cluster on this machine: for trying out, and for tests.

All nodes listen on loopback ports, need no password, and keep nothing on the disk but their own
settings.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any, cast

from redis.exceptions import RedisError

from murmur_streams.core.model.errors import EmbeddedServerError
from murmur_streams.embedded.node import Node, wait_for

SLOTS = 16_384
NODE_TIMEOUT_MS = 1_000
_SETTINGS = (
    *('save ""', "cluster-enabled yes", f"cluster-node-timeout {NODE_TIMEOUT_MS}"),
    # A part that is down must not stop the others.
    *("cluster-require-full-coverage no", "cluster-migration-barrier 999"),
    *("repl-diskless-sync-delay 0", "repl-backlog-size 16mb"),
)
_MOVED_AT_ONCE = 100
BUS_DISTANCE = 10_000
"""Between the port for clients and the one for the other nodes."""


class ClusterGroup:
    """The processes of a cluster: each primary has the same number of slots, and a replica.

    Args:
        binary: the server's executable.
        folder: where they keep their files.
        primaries: how many nodes have slots.
        replicas: how many replicas each of them has.
        settings: further lines of the nodes' settings.
        announced: the ports of proxies, one for each node, where clients and replicas reach it.
    """

    def __init__(
        self,
        binary: Path,
        folder: Path,
        primaries: int = 3,
        replicas: int = 1,
        settings: Sequence[str] = (),
        announced: Sequence[int] = (),
    ) -> None:
        self._binary = binary
        self._folder = folder
        self._settings = [*_SETTINGS, *settings]
        self.nodes = [self._new_node(number) for number in range(primaries * (1 + replicas))]
        self._primaries = primaries
        self.announce(announced)

    @property
    def url(self) -> str:
        """For a store."""
        return (
            f"redis+cluster://{','.join(f'127.0.0.1:{node.announced_port}' for node in self.nodes)}"
        )

    def announce(self, ports: Sequence[int]) -> None:
        """Let clients and replicas reach the nodes by proxies on these ports; before the start."""
        for node, port in zip(self.nodes, ports, strict=False):
            node.announce(port)
            bus = f"cluster-announce-bus-port {node.port + BUS_DISTANCE}"
            node.settings += [f"cluster-announce-port {port}", bus]

    def start(self) -> None:
        """Start all of it, and return when every slot is served and every replica follows."""
        for node in self.nodes:
            node.start()
        primaries = self.nodes[: self._primaries]
        for number, node in enumerate(self.nodes):
            _ask(node, "SET-CONFIG-EPOCH", number + 1)
            _ask(node, "MEET", "127.0.0.1", self._any().port)
        for number, node in enumerate(primaries):
            first, after = (SLOTS * edge // len(primaries) for edge in (number, number + 1))
            _ask(node, "ADDSLOTSRANGE", first, after - 1)
        wait_for(self._know_each_other, "the nodes know each other")
        for number, replica in enumerate(self.nodes[self._primaries :]):
            _ask(replica, "REPLICATE", id_of(primaries[number % len(primaries)]))
        self.wait_until_whole()

    def stop(self) -> None:
        """End every process."""
        for node in self.nodes:
            node.kill()

    def add_node(self, replicas: int = 0) -> Node:
        """Start another primary, which has no slots yet; with so many replicas."""
        node = self._join()
        for _ in range(replicas):
            replica = self._join()
            _ask(replica, "REPLICATE", id_of(node))
        wait_for(self._know_each_other, "the nodes know the new ones")
        # Until then it takes no keys.
        wait_for(self._is_whole, "the new node is well")
        return node

    def _join(self) -> Node:
        node = self._new_node(len(self.nodes))
        self.nodes.append(node)  # Before its start: one that does not answer is ended, too.
        node.start()
        _ask(node, "MEET", "127.0.0.1", self._any().port)
        wait_for(lambda: self._knows_all(node), "the new node knows the others")
        return node

    def primary_of(self, slot: int) -> Node:
        """The node that serves a slot, as most nodes see it."""
        seen = [self._port_of(node, slot) for node in self._answering()]
        port = max(set(seen), key=seen.count, default=None)
        for node in self.nodes:
            if node.announced_port == port:
                return node
        raise EmbeddedServerError(f"no node of the cluster serves slot {slot}")

    def replica_of(self, primary: Node) -> Node:
        """A replica of a primary."""
        for node in self._answering():
            with node.client as client:
                seen = cast("Any", client).info("replication")
            if seen["role"] == "slave" and seen["master_port"] == primary.announced_port:
                return node
        raise EmbeddedServerError(f"the node on port {primary.port} has no replica that answers")

    def fail_over(self, primary: Node) -> None:
        """Ask for an orderly failover to its replica."""
        _ask(self.replica_of(primary), "FAILOVER")

    def begin_move(self, slot: int, to: Node) -> None:
        """Begin to move a slot: from now on the nodes refuse what needs both of them."""
        source = self.primary_of(slot)
        _ask(to, "SETSLOT", slot, "IMPORTING", id_of(source))
        _ask(source, "SETSLOT", slot, "MIGRATING", id_of(to))

    def move_keys(self, slot: int, to: Node, count: int | None = None) -> int:
        """Move keys of a slot whose move has begun; all of them, or the first ``count``."""
        moved, source = 0, self.primary_of(slot)
        while count is None or moved < count:
            limit = _MOVED_AT_ONCE if count is None else min(_MOVED_AT_ONCE, count - moved)
            keys = _ask(source, "GETKEYSINSLOT", slot, limit)
            if not keys:
                break
            with source.client as client:
                where = ("127.0.0.1", to.port, "", 0, 5_000)
                cast("Any", client).execute_command("MIGRATE", *where, "KEYS", *keys)
            moved += len(keys)
        return moved

    def end_move(self, slot: int, to: Node) -> None:
        """End the move of a slot whose keys have been moved."""
        source, owner = self.primary_of(slot), id_of(to)
        others = [node for node in self._answering() if node not in (to, source)]
        for node in (to, source, *others):
            with contextlib.suppress(RedisError):  # Replicas refuse it.
                _ask(node, "SETSLOT", slot, "NODE", owner)

    def move_slot(self, slot: int, to: Node) -> None:
        """Move a slot key by key, as every version can."""
        self.begin_move(slot, to)
        self.move_keys(slot, to)
        self.end_move(slot, to)

    def move_slot_at_once(self, slot: int, to: Node) -> None:
        """Move a slot in one step, which Valkey can from 9.0 on."""
        source = self.primary_of(slot)
        _ask(source, "MIGRATESLOTS", "SLOTSRANGE", slot, slot, "NODE", id_of(to))
        wait_for(lambda: self.primary_of(slot) is to, "the slot has moved")

    def wait_until_whole(self) -> None:
        """Wait until every slot is served, and every replica follows its primary."""
        wait_for(self._is_whole, "every node is well")

    def _new_node(self, number: int) -> Node:
        own = [f"cluster-config-file nodes-{number}.conf", *self._settings]
        return Node(self._binary, self._folder / f"node{number}", own)

    def _answering(self) -> list[Node]:
        fine = [node for node in self.nodes if node.is_started and not node.is_frozen]
        return [node for node in fine if node.answers()]

    def _any(self) -> Node:
        return next(node for node in self._answering())

    def _port_of(self, node: Node, slot: int) -> int | None:
        for first, last, primary, *_ in _ask(node, "SLOTS"):
            if first <= slot <= last:
                return int(primary[1])
        return None

    def _knows_all(self, node: Node) -> bool:
        known = cast("bytes", _ask(node, "NODES")).decode().splitlines()
        fine = [line for line in known if "handshake" not in line and "fail" not in line.split()[2]]
        return len(fine) >= len(self._answering())

    def _know_each_other(self) -> bool:
        return all(self._knows_all(node) for node in self._answering())

    def _is_whole(self) -> bool:
        for node in self._answering():
            with node.client as client:
                info = cast("bytes", _ask(node, "INFO")).decode()
                seen = cast("Any", client).info("replication")
            if "cluster_state:ok" not in info or f"cluster_slots_ok:{SLOTS}" not in info:
                return False
            if seen["role"] == "slave" and seen["master_link_status"] != "up":
                return False
        return True


@contextlib.contextmanager
def cluster_group(
    binary: Path,
    folder: Path,
    primaries: int = 3,
    replicas: int = 1,
    settings: Sequence[str] = (),
) -> Generator[ClusterGroup]:
    """A running cluster; its processes end with the block."""
    group = ClusterGroup(binary, folder, primaries, replicas, settings)
    try:
        group.start()
        yield group
    finally:
        group.stop()


def id_of(node: Node) -> str:
    """The id of a node in its cluster."""
    return cast("bytes", _ask(node, "MYID")).decode()


def _ask(node: Node, *command: object) -> Any:
    """The reply to a CLUSTER command, as the node sends it."""
    with node.client as client:
        client.response_callbacks.clear()
        return cast("Any", client).execute_command("CLUSTER", *command)
