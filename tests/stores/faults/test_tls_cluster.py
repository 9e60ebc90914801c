"""A cluster whose nodes speak TLS, and ask clients for a certificate."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
from redis.asyncio import RedisCluster
from redis.asyncio.cluster import ClusterNode

from murmur_streams import Fleet
from murmur_streams.core.model.errors import StoreConfigurationError
from murmur_streams.embedded.cluster_group import ClusterGroup
from tests.authority import Authority, tls_front
from tests.fleet.working import working
from tests.running_server import short_folder
from tests.server_choice import own_settings, server_binary
from tests.stores.faults.conftest import StoreMaker
from tests.stores.faults.refusals import opening, refusal


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@dataclass(frozen=True)
class Fronts:
    """A cluster whose nodes are reached through fronts that speak TLS, and name these ports."""

    group: ClusterGroup
    ports: list[int]
    connections: list[list[None]]
    """One list for each front, which grows with each connection that has shown a certificate."""


@pytest.fixture
async def fronts(authority: Authority) -> AsyncIterator[Fronts]:
    """Three nodes. The servers of the tests are built without TLS, so fronts speak it for them."""
    context = authority.context(authority.sign("node", "IP:127.0.0.1"), asks_clients=True)
    settings = [f"{name} {value}" for name, value in own_settings().items()]
    with short_folder() as folder:
        group = ClusterGroup(server_binary(), folder, replicas=0, settings=settings)
        async with contextlib.AsyncExitStack() as stack:
            made = [
                await stack.enter_async_context(tls_front(("127.0.0.1", node.port), context))
                for node in group.nodes
            ]
            ports, connections = [port for port, _ in made], [each for _, each in made]
            group.announce(ports)
            stack.callback(group.stop)
            await asyncio.to_thread(group.start)
            yield Fronts(group, ports, connections)


async def test_runs_of_a_cluster_that_asks_for_certificates(
    fronts: Fronts, authority: Authority
) -> None:
    """Runs on every node, by connections with the certificate of the URL, or of a client."""
    own = authority.sign("client", "DNS:client")
    files: dict[str, Any] = {"ssl_certfile": str(own.certificate), "ssl_keyfile": str(own.key)}
    files["ssl_ca_certs"] = str(authority.file)
    hosts = ",".join(f"127.0.0.1:{port}" for port in fronts.ports)
    options = "&".join(f"{name}={value}" for name, value in files.items())
    nodes = [ClusterNode("127.0.0.1", port) for port in fronts.ports]
    async with RedisCluster(startup_nodes=nodes, ssl=True, **files) as client:
        given: list[dict[str, Any]] = [
            {"url": f"rediss+cluster://{hosts}?{options}", "key_prefix": "by-url"},
            {"client": client, "key_prefix": "by-client"},
        ]
        for each in given:
            for connections in fronts.connections:
                connections.clear()
            await executes_runs(Fleet(**each))
            assert all(fronts.connections), "each node was used"
            for node in fronts.group.nodes:
                with node.client as admin:
                    assert list(admin.scan_iter(f"{each['key_prefix']}:*:run:*")), "it has runs"


async def executes_runs(fleet: Fleet) -> None:
    """Execute a run for each of many ids, which are spread over the partitions."""

    @fleet.agent
    async def double(number: int) -> int:
        return number * 2

    async with fleet, working(fleet, concurrency=20):
        handles = [await fleet.submit("double", number) for number in range(30)]
        outputs = [await each.output(timeout=30) for each in handles]
    assert outputs == [2 * number for number in range(30)]


@pytest.mark.parametrize("missing", ["ssl_certfile=", "ssl_ca_certs="])
async def test_a_missing_setting_is_named(
    missing: str, authority: Authority, make_store: StoreMaker
) -> None:
    """A node asks for a certificate, or has one of an authority that is not trusted: at once."""
    with authority.server_that_asks_clients(authority.sign("asks", "IP:127.0.0.1")) as port:
        options = "" if missing == "ssl_ca_certs=" else f"?ssl_ca_certs={authority.file}"
        store = make_store(f"rediss+cluster://127.0.0.1:{port}{options}", call_seconds=5.0)
        text = await refusal(asyncio.wait_for(opening(store), 4), StoreConfigurationError)
    assert missing in text
