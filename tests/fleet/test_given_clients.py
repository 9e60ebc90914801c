"""``Fleet(client=...)``: runs of a fleet at a client's server, service or cluster."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import redis
from fakeredis import FakeAsyncRedis
from redis.asyncio import Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.sentinel import Sentinel

from murmur_streams import Fleet
from murmur_streams.core.model.errors import InvalidInputError, StoreConfigurationError
from murmur_streams.embedded.cluster_group import ClusterGroup
from murmur_streams.embedded.sentinel_group import SERVICE, SentinelGroup
from murmur_streams.server import make_app
from tests.cluster_service import cluster_service
from tests.fleet.working import working
from tests.running_server import short_folder
from tests.sentinel_service import sentinel_service
from tests.server.serving import client_of, submitted
from tests.servers import Space

ELSEWHERE = "redis://127.0.0.1:1"


@pytest.fixture(scope="module")
def service() -> Iterator[SentinelGroup]:
    with short_folder() as folder, sentinel_service(folder) as group:
        yield group


@pytest.fixture(scope="module")
def cluster() -> Iterator[ClusterGroup]:
    with short_folder() as folder, cluster_service(folder, replicas=0) as group:
        yield group


@pytest.fixture(params=["one server", "a service", "a cluster"])
async def client(request: pytest.FixtureRequest) -> AsyncIterator[Redis | RedisCluster]:
    """A client of each topology."""
    others: list[Redis] = []
    if request.param == "one server":
        space: Space = request.getfixturevalue("space")
        made: Any = Redis.from_url(space.server_url)
    elif request.param == "a service":
        group: SentinelGroup = request.getfixturevalue("service")
        sentinel = Sentinel([("127.0.0.1", each.port) for each in group.sentinels])
        made, others = sentinel.master_for(SERVICE), sentinel.sentinels
    else:
        nodes = request.getfixturevalue("cluster").nodes
        made = RedisCluster(startup_nodes=[ClusterNode("127.0.0.1", each.port) for each in nodes])
    async with made as client:
        yield client
    for each in others:
        await each.aclose()


def with_agent(client: Any, prefix: str = "given") -> Fleet:
    fleet = Fleet(client=client, key_prefix=prefix)

    @fleet.agent
    async def double(number: int) -> int:
        return number * 2

    return fleet


async def test_a_run_is_executed_where_the_client_leads(
    client: Redis | RedisCluster, space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Submitted, executed and read, in a pod, too; the client stays open, the variable loses."""
    monkeypatch.setenv("MURMUR_URL", ELSEWHERE)
    fleet = with_agent(client, space.prefix)
    async with fleet, working(fleet), client_of(make_app(fleet)) as caller:
        handle = await fleet.submit("double", 21)
        assert await handle.output(timeout=30) == 42
        over_http = await submitted(caller, 4, "double")
        assert await fleet.handle(over_http, "double").output(timeout=30) == 8
        listed = await (await fleet.store()).list_runs()
        assert {run.run_id for run in listed.runs} == {handle.run_id, over_http}
    assert await client.ping()


def test_each_event_loop_has_connections_of_its_own(space: Space) -> None:
    """The client's own connections are never used, so one loop after another may use the fleet."""
    fleet = with_agent(Redis.from_url(space.server_url), space.prefix)

    async def one_run(number: int) -> Any:
        async with fleet, working(fleet):
            return await (await fleet.submit("double", number)).output(timeout=30)

    assert [asyncio.run(one_run(number)) for number in (1, 2)] == [2, 4]
    assert fleet.sync.submit("double", 3).status().state == "pending"
    fleet.sync.close()


async def test_a_fakeredis_holds_the_runs_of_a_test() -> None:
    """No server is needed."""
    async with FakeAsyncRedis() as client, with_agent(client) as fleet, working(fleet):
        assert await (await fleet.submit("double", 21)).output(timeout=30) == 42


def test_a_client_that_cannot_be_used_is_refused_at_once() -> None:
    """Where the fleet is made, with what to give instead."""
    sentinel: Any = Sentinel([("127.0.0.1", 1)])
    blocking: Any = redis.Redis()
    text: Any = ELSEWHERE
    for wrong, kind in ((blocking, "redis.client.Redis"), (sentinel, "Sentinel"), (text, "str")):
        with pytest.raises(InvalidInputError, match=rf"client is a .*{kind}, but must .*asyncio"):
            Fleet(client=wrong)
    with pytest.raises(StoreConfigurationError, match="master_for"):
        Fleet(client=sentinel.slave_for(SERVICE))
    with pytest.raises(InvalidInputError, match="not both"):
        Fleet(ELSEWHERE, client=Redis())
    with pytest.raises(TypeError, match="no option 'sync'"):
        Fleet(client=Redis(), sync=True)
