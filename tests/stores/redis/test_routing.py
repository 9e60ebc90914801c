"""Which node of a cluster a command goes to, and where each reply belongs. No server is asked."""

from __future__ import annotations

from typing import Any, cast

import pytest
from redis.asyncio import RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.crc import key_slot
from redis.exceptions import ClusterDownError, ResponseError

from murmur_streams.stores.redis.connection.pools import Pools
from murmur_streams.stores.redis.connection.store_use import StoreUse
from murmur_streams.stores.redis.connection.topology import Topology
from murmur_streams.stores.redis.keys import Keys
from murmur_streams.stores.redis.nodes import Command, Nodes, key_of
from murmur_streams.stores.redis.server import Server

PARTITIONS = 16
KEYS = Keys("murmur:runs", PARTITIONS)
OF_COMMANDS: dict[Command, str | None] = {
    ("HMGET", "k", "state"): "k",
    ("ZREVRANGEBYLEX", "k", "+", "-", "LIMIT", 0, 5): "k",
    ("XRANGE", "k", "-", "+", "COUNT", 1): "k",
    ("XGROUP", "CREATE", "k", "group", "0", "MKSTREAM"): "k",
    ("XREAD", "COUNT", 1, "BLOCK", 20, "STREAMS", "k", "l", "0", "0"): "k",
    ("XREADGROUP", "GROUP", "g", "c", "COUNT", 1, "BLOCK", 20, "STREAMS", "k", ">"): "k",
    ("FCALL", "murmur_commit", 2, "k", "l", "argument"): "k",
    ("EVALSHA", "sha", 1, "k"): "k",
    ("FCALL", "murmur_loaded", 0): None,
    ("EVALSHA", "sha", 0): None,
    **{
        (name,): None
        for name in ("DISCARD", "EXEC", "FUNCTION", "INFO", "MULTI", "PING", "ROLE", "TIME")
    },
    ("SCRIPT", "EXISTS", "sha"): None,
    ("WAIT", 1, 100): None,
}


class SentCommands:
    """Stands for the connections to one node: it notes what is sent, and answers with its name."""

    def __init__(self, name: str) -> None:
        self.address = name
        self.commands = self.blocking = self
        self.sent: list[list[Command]] = []
        self.answers: dict[str, object] = {}

    async def every_reply(self, commands: list[Command]) -> list[object]:
        """An answer for each command."""
        self.sent.append(commands)
        return [self.answers.get(str(each[0]), (self.address, each)) for each in commands]


class ThreeNodes:
    """A topology in which each third of the slots has a node, unless it has been taken away."""

    is_cluster = True

    def __init__(self) -> None:
        self.connections = [SentCommands(name) for name in "abc"]
        self.all = [cast("Pools", each) for each in self.connections]
        self.gone: set[int] = set()

    @property
    def pools(self) -> list[Pools]:
        """Of the nodes that serve slots."""
        return [pools for at, pools in enumerate(self.all) if at not in self.gone]

    def of(self, slot: int) -> Pools:
        """The node of a slot."""
        at = slot * 3 // 16_384
        if at in self.gone:
            raise ClusterDownError("CLUSTERDOWN no node is known that serves the slot")
        return self.all[at]


@pytest.fixture
def topology() -> ThreeNodes:
    return ThreeNodes()


@pytest.fixture
def nodes(topology: ThreeNodes) -> Nodes:
    use = StoreUse(is_cluster=True, read_only=False)
    return Nodes(cast("Topology", topology), KEYS, "redis+cluster://a", use)


def node_of(partition: int) -> str:
    """The node that has a partition, by the slots."""
    return "abc"[key_slot(KEYS.base(partition).encode()) * 3 // 16_384]


def partition_on(name: str) -> int:
    """A partition of a node."""
    return next(each for each in KEYS.all_partitions if node_of(each) == name)


@pytest.mark.parametrize("command", OF_COMMANDS, ids=lambda command: "-".join(map(str, command)))
def test_a_command_is_routed_by_its_first_key(command: Command) -> None:
    """Every form of command that the store sends; None for one without a key."""
    assert key_of(command) == OF_COMMANDS[command]


async def test_replies_come_in_the_order_of_the_commands(
    nodes: Nodes, topology: ThreeNodes
) -> None:
    """One round trip to each node, whatever the order of the partitions is."""
    commands: list[Command] = [("HGETALL", KEYS.leases(each)) for each in KEYS.all_partitions]
    replies = await nodes.every_reply(commands)
    expected = [(node_of(each), commands[each]) for each in KEYS.all_partitions]
    assert replies == expected
    assert [len(each.sent) for each in topology.connections] == [1, 1, 1]


async def test_a_transaction_and_a_clock_go_with_their_key(
    nodes: Nodes, topology: ThreeNodes
) -> None:
    """MULTI belongs to the key after it; EXEC and TIME to the key before, if there is one."""
    first, second = (KEYS.feed(partition_on(name)) for name in "ab")
    commands: list[Command] = [
        *(("TIME",), ("ZCARD", first), ("TIME",)),
        *(("MULTI",), ("XADD", second, "*", "f", "v"), ("PEXPIRE", second, 1), ("EXEC",)),
    ]
    replies = await nodes.every_reply(commands)
    assert [name for name, _ in replies] == [*"aaabbbb"]
    assert topology.connections[0].sent == [commands[:3]]
    assert topology.connections[1].sent == [commands[3:]]


async def test_the_first_error_is_raised_once_all_are_read(
    nodes: Nodes, topology: ThreeNodes
) -> None:
    """No reply is left on a connection; without the raise it is an element of the result."""
    topology.connections[1].answers["XLEN"] = error = ResponseError("WRONGTYPE no stream")
    commands: list[Command] = [("XLEN", KEYS.feed(partition_on(name))) for name in "abc"]
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        await nodes.pipeline(commands)
    assert [len(each.sent) for each in topology.connections] == [1, 1, 1]
    assert (await nodes.every_reply(commands))[1] is error


async def test_a_partition_without_a_node_is_refused_alone(
    nodes: Nodes, topology: ThreeNodes
) -> None:
    """The others are served, and the list of nodes has those that are there."""
    topology.gone.add(2)
    lost, here = partition_on("c"), partition_on("a")
    with pytest.raises(ClusterDownError):
        nodes.of_partition(lost)
    with pytest.raises(ClusterDownError):
        nodes.of_key(KEYS.feed(lost))
    assert nodes.of_partition(here).where == "a"
    assert [node.where for node in nodes.all] == ["a", "b"]
    with pytest.raises(ClusterDownError):
        await nodes.every_reply([("XLEN", KEYS.feed(here)), ("XLEN", KEYS.feed(lost))])
    assert all(not each.sent for each in topology.connections)


def test_a_lost_partition_is_called_as_the_others_are(
    topology: ThreeNodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its calls are formed all the same; while no node at all is known, the error says so."""
    client = RedisCluster(startup_nodes=[ClusterNode("127.0.0.1", 1)])
    server = Server(client, KEYS, where="redis+cluster://a", retry_seconds=1)
    monkeypatch.setattr(server.nodes, "_topology", topology)
    lost = partition_on("c")
    assert server.loader(lost) is server.nodes.of_partition(lost).loader
    topology.gone = {2}
    assert server.loader(lost) is server.nodes.all[0].loader
    topology.gone = {0, 1, 2}
    with pytest.raises(ClusterDownError):
        server.loader(lost)


def test_each_node_knows_its_partitions(nodes: Nodes) -> None:
    """All of them together have each partition once."""
    found = {node.where: [*node.partitions] for node in nodes.all}
    assert sorted(each for own in found.values() for each in own) == [*KEYS.all_partitions]
    assert all(node_of(each) == name for name, own in found.items() for each in own)


def test_a_node_stays_the_same_object(nodes: Nodes) -> None:
    """Its scripts are loaded once, and lanes are found by it."""
    partition = partition_on("b")
    assert nodes.of_partition(partition) is nodes.of_key(KEYS.leases(partition))
    assert nodes.of_partition(partition) is nodes.of_command(("XLEN", KEYS.feed(partition)))


def test_a_store_with_one_server_sends_everything_there() -> None:
    """Also commands without a key."""
    only = ThreeNodes()
    only.is_cluster = False
    use = StoreUse(is_cluster=False, read_only=False)
    nodes = Nodes(cast("Topology", only), KEYS, "redis://a", use)
    found: list[Any] = [nodes.of_partition(each) for each in KEYS.all_partitions]
    assert {*found, nodes.of_command(("PING",))} == {nodes.all[0]}
