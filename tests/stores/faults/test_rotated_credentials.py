"""Passwords that change: each new connection asks the client's provider, the blocking ones, too."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import secrets
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest
from redis.asyncio import Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.sentinel import Sentinel
from redis.credentials import CredentialProvider

from murmur_streams import Fleet, RunState
from murmur_streams.core.model.errors import RunNotFoundError, StoreConfigurationError
from murmur_streams.embedded.node import Node
from murmur_streams.embedded.sentinel_group import SERVICE
from tests.cluster_service import cluster_service
from tests.fleet.working import working
from tests.running_server import short_folder
from tests.sentinel_service import sentinel_service
from tests.server_choice import server_binary
from tests.stores.faults.conftest import StoreMaker
from tests.stores.faults.events import note
from tests.stores.faults.refusals import opening, refusal
from tests.stores.faults.waiting import wait_until

USER = "rotated"


class Rotating(CredentialProvider):
    """Gives the password of now."""

    def __init__(self) -> None:
        self.password = "first"

    def get_credentials(self) -> tuple[str, str]:
        return USER, self.password

    async def get_credentials_async(self) -> tuple[str, str]:
        return self.get_credentials()


@dataclass
class World:
    """Servers with a user whose password changes, and clients that ask a provider for it.

    Args:
        make: a client for a fleet, from the options of its connections.
        servers: those that have the runs, or may have them.
        sentinels: of a service.
        blocked: the commands in which connections of an idle worker and a reader wait.
    """

    make: Callable[..., Any]
    servers: list[Node]
    sentinels: list[Node] = field(default_factory=list[Node])
    blocked: frozenset[str] = frozenset({"xread", "xreadgroup"})
    provider: Rotating = field(default_factory=Rotating)
    password: str = ""
    """The one that the servers take."""

    def __post_init__(self) -> None:
        rules = ("on", f">{self.provider.password}", "~*", "&*", "+@all")
        self._on_all("ACL", "SETUSER", USER, *rules)

    def client(self) -> Any:
        return self.make(credential_provider=self.provider)

    def rotate(self, *, is_known: bool = True) -> None:
        """Change the password everywhere, and end every connection that was made before.

        Args:
            is_known: whether the provider gives the new one.
        """
        new = secrets.token_hex(8)
        self._on_all("ACL", "SETUSER", USER, f">{new}")
        if is_known:
            self.provider.password = new
        self._on_all("ACL", "SETUSER", USER, "resetpass", f">{new}")
        self._on_all("CLIENT", "KILL", "USER", USER)
        self.password = new

    def are_all_back(self) -> bool:
        """Whether the blocking connections are there, and the subscriptions to the Sentinels."""
        waiting = {
            each["cmd"].partition("|")[0] for node in self.servers for each in users_of(node)
        }
        are_heard = [any(each["sub"] != "0" for each in users_of(node)) for node in self.sentinels]
        return self.blocked <= waiting and all(are_heard)

    def refused(self) -> list[str]:
        """The refused passwords, by the servers' own logs."""
        found: list[str] = []
        for node in (*self.servers, *self.sentinels):
            with node.client as admin:
                entries = cast("Any", admin).acl_log()
                found += [str(each) for each in entries if each["reason"] == "auth"]
        return found

    def forget_refused(self) -> None:
        """Empty these logs."""
        self._on_all("ACL", "LOG", "RESET")

    def _on_all(self, *command: str) -> None:
        for node in (*self.servers, *self.sentinels):
            with node.client as admin:
                cast("Any", admin).execute_command(*command)


def users_of(node: Node) -> list[dict[str, str]]:
    """The connections of the user."""
    with node.client as admin:
        return [each for each in cast("Any", admin).client_list() if each["user"] == USER]


@contextlib.contextmanager
def one_server(folder: Path) -> Generator[World]:
    node = Node(server_binary(), folder, ['save ""'])
    node.start()
    try:
        yield World(functools.partial(Redis, port=node.port), [node])
    finally:
        node.kill()


@contextlib.contextmanager
def a_service(folder: Path) -> Generator[World]:
    with sentinel_service(folder) as group:
        hosts = [("127.0.0.1", each.port) for each in group.sentinels]

        def make(**options: Any) -> Any:
            return Sentinel(hosts, sentinel_kwargs=options, **options).master_for(SERVICE)

        yield World(make, group.servers, group.sentinels)


@contextlib.contextmanager
def a_cluster(folder: Path) -> Generator[World]:
    with cluster_service(folder, replicas=0) as group:
        nodes = [ClusterNode("127.0.0.1", each.port) for each in group.nodes]
        make = functools.partial(RedisCluster, startup_nodes=nodes)
        yield World(make, group.nodes, blocked=frozenset({"xread", "ssubscribe"}))


@pytest.fixture(scope="module", params=[one_server, a_service, a_cluster])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    with short_folder() as folder, request.param(folder / "servers") as world:
        yield world


@pytest.fixture
async def fleet(world: World) -> AsyncIterator[Fleet]:
    """A fleet with a worker; the servers' logs of refused passwords are empty."""
    world.forget_refused()
    prefix = secrets.token_hex(4)
    async with world.client() as client, Fleet(client=client, key_prefix=prefix) as fleet:

        @fleet.agent
        async def quick(number: int) -> int:
            return number

        async with working(fleet):
            yield fleet


async def test_each_connection_asks_for_the_password_of_now(world: World, fleet: Fleet) -> None:
    """A fleet goes on through two changes: writes, reads, an open stream, a worker's waits."""
    store = await fleet.store()
    await store.create("read", "by-hand")

    async def names() -> list[str | None]:
        return [event.name async for event in store.stream("read") if event.name]

    reading = asyncio.create_task(names())
    for number in range(3):
        await wait_until(world.are_all_back, "the blocking connections are there")
        assert await (await fleet.submit("quick", number)).output(timeout=30) == number
        await store.append("read", note("read", f"{number}"))
        assert len((await store.list_runs()).runs) == number + 2
        if number < 2:
            world.rotate()
    await store.finish("read", RunState.COMPLETED)
    assert await asyncio.wait_for(reading, 30) == ["0", "1", "2"]
    assert world.refused() == []


@pytest.mark.fault("F46", on="sentinel")
@pytest.mark.fault("F46", on="cluster")
async def test_a_refused_password_is_waited_for(world: World, fleet: Fleet) -> None:
    """Calls fail at once and write nothing; the worker goes on once the password is right."""
    assert await (await fleet.submit("quick", 1)).output(timeout=30) == 1
    world.rotate(is_known=False)
    text = await refusal(fleet.submit("quick", 2, run_id="refused"), StoreConfigurationError)
    assert "password" in text
    world.provider.password = world.password
    assert await (await fleet.submit("quick", 3)).output(timeout=30) == 3
    with pytest.raises(RunNotFoundError):
        await fleet.handle("refused").status()


async def test_a_wrong_password_is_refused_at_once(world: World, make_store: StoreMaker) -> None:
    """A store that opens with it does not try for long, on a service or cluster neither."""
    client = world.make(username=USER, password="wrong")
    store = make_store(None, client=client)
    text = await refusal(asyncio.wait_for(opening(store), 4), StoreConfigurationError)
    assert "password" in text
    assert "wrong" not in text
    await client.aclose()
