"""A client of the caller's is used as it is, whatever its settings, and stays the caller's."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fakeredis import FakeAsyncRedis
from redis._parsers import _AsyncRESP2Parser, _AsyncRESP3Parser
from redis.asyncio import (
    BlockingConnectionPool,
    ConnectionPool,
    Redis,
    UnixDomainSocketConnection,
)
from redis.asyncio.retry import Retry
from redis.backoff import ConstantBackoff
from redis.credentials import UsernamePasswordCredentialProvider
from redis.exceptions import ConnectionError as RedisConnectionError

from murmur_streams.core.model.errors import StoreClosedError, StoreConfigurationError
from murmur_streams.core.model.events import RunEvent, RunEventType
from murmur_streams.core.model.results import AgentResult
from murmur_streams.core.model.states import RunProgress, RunState
from murmur_streams.stores.redis.connection.connections import Connections
from murmur_streams.stores.redis.connection.maker import ConnectionMaker
from murmur_streams.stores.redis.store import RedisRunStore
from tests.servers import Space
from tests.stores.faults.servers import spare_server

Shape = Callable[[str], Redis]
"""Makes a client for a URL."""


class TheirPool(ConnectionPool):
    """A pool class of the caller's."""


class TheirConnection(UnixDomainSocketConnection):
    """A connection class of the caller's."""


SETTINGS: dict[str, dict[str, Any]] = {
    "bytes": {},
    "decoded": {"decode_responses": True},
    "RESP2": {"protocol": 2},
    "RESP2 decoded": {"protocol": 2, "decode_responses": True},
    "RESP3": {"protocol": 3},
    "RESP3 decoded": {"protocol": 3, "decode_responses": True},
    "new replies": {"legacy_responses": False},
    "new replies of RESP3": {"protocol": 3, "legacy_responses": False, "decode_responses": True},
    "timeouts": {"socket_timeout": 0.05, "socket_connect_timeout": 1.0},
    "retries": {"retry": Retry(ConstantBackoff(5), 10), "retry_on_error": [RedisConnectionError]},
    "latin-1": {"decode_responses": True, "encoding": "latin-1"},
    "one connection": {"max_connections": 1},
    "its single connection": {"single_connection_client": True},
    "health checks": {"health_check_interval": 1},
    "a parser of Python": {"parser_class": _AsyncRESP2Parser},
    "a RESP3 parser of Python": {"parser_class": _AsyncRESP3Parser, "protocol": 3},
    "a name": {"client_name": "theirs"},
}
POOLS: dict[str, Shape] = {
    "a pool class of theirs": lambda url: Redis(connection_pool=TheirPool.from_url(url)),
    "a pool that blocks": lambda url: Redis.from_pool(
        BlockingConnectionPool.from_url(url, max_connections=1, timeout=1)
    ),
}


async def lives_a_run(store: RedisRunStore) -> None:
    """The contract in short: every kind of call, a live subscriber, a resumed one."""
    await store.create("run", "t", input={"ключ": "☕"})

    async def read() -> list[RunEvent]:
        return [event async for event in store.stream("run")]

    subscriber = asyncio.create_task(read())
    await store.set_state("run", RunState.RUNNING)
    await store.update_progress("run", RunProgress(total=1))
    event = RunEvent(type=RunEventType.LOG, run_id="run", data="naïve ☕")
    await asyncio.gather(*(store.append("run", event) for _ in range(20)))
    await store.push_event("run", event)
    result = AgentResult[str](output="☕", agent_name="t", task_id="1")
    assert await store.finish("run", RunState.COMPLETED, result=result) is True
    events = await subscriber
    assert [each.data for each in events] == ["naïve ☕"] * 21
    resumed = [each.seq async for each in store.stream("run", after=events[9].id)]
    assert resumed == [each.seq for each in events[10:]]
    stored = await store.get_result("run")
    assert isinstance(stored, AgentResult)
    assert stored.output == "☕"
    assert await store.get_input("run") == {"ключ": "☕"}
    assert (await store.get_status("run")).progress == RunProgress(total=1)
    assert [run.run_id for run in (await store.list_runs()).runs] == ["run"]
    assert (await store.audit("run")).problems == ()
    assert await store.delete("run") is True


@pytest.mark.parametrize("name", SETTINGS)
async def test_a_store_works_over_a_client_of_any_settings(space: Space, name: str) -> None:
    """For each setting of redis-py, a run lives through the store and the client stays open."""
    async with Redis.from_url(space.server_url, **SETTINGS[name]) as client:
        async with RedisRunStore(client=client, key_prefix=space.prefix) as store:
            await lives_a_run(store)
        assert await client.ping()


@pytest.mark.parametrize("name", POOLS)
async def test_a_store_works_over_a_client_of_any_pool(space: Space, name: str) -> None:
    """A run lives through the store with each kind of connection pool."""
    client = POOLS[name](space.server_url)
    async with RedisRunStore(client=client, key_prefix=space.prefix) as store:
        await lives_a_run(store)
    assert await client.ping()
    await client.aclose()
    await client.connection_pool.disconnect()


@pytest.mark.parametrize("decoded", [False, True])
async def test_a_store_works_over_fakeredis(decoded: bool) -> None:
    """Tests of users may give a FakeAsyncRedis."""
    async with FakeAsyncRedis(decode_responses=decoded) as client:
        async with RedisRunStore(client=client, key_prefix="fake") as store:
            await lives_a_run(store)
        assert await client.ping()


@pytest.mark.parametrize("how", ["in the URL", "as arguments", "from a provider"])
async def test_a_store_uses_its_clients_credentials_over_tcp(tmp_path: Path, how: str) -> None:
    """They may come from the URL, from arguments, or from a provider."""
    async with spare_server(tmp_path / "own", password="secret") as server:
        shapes: dict[str, Callable[[], Redis]] = {
            "in the URL": lambda: Redis.from_url(server.url("default:secret")),
            "as arguments": lambda: Redis(port=server.port, username="default", password="secret"),
            "from a provider": lambda: Redis(
                port=server.port,
                credential_provider=UsernamePasswordCredentialProvider("default", "secret"),
            ),
        }
        async with shapes[how]() as client:
            async with RedisRunStore(client=client, key_prefix="own") as store:
                await lives_a_run(store)
            assert await client.ping()


async def test_a_store_outlives_its_closed_client(space: Space) -> None:
    """The store makes connections of its own."""
    client = Redis.from_url(space.server_url)
    await client.ping()
    await client.aclose()
    async with RedisRunStore(client=client, key_prefix=space.prefix) as store:
        await lives_a_run(store)


async def test_a_clients_retries_and_timeouts_are_not_inherited(
    space: Space,
) -> None:
    """The store's connections do not inherit the retries and timeouts of the given client."""
    for name in ("timeouts", "retries", "health checks"):
        async with Redis.from_url(space.server_url, **SETTINGS[name]) as client:
            connections = Connections(ConnectionMaker.of(client), size=1, deadline_seconds=5)
            async with connections.connection() as connection:
                assert connection.retry._retries == 0
                assert connection.socket_timeout is None
                assert connection.health_check_interval == 0
                assert int(connection.protocol) == 2
            await connections.close()


async def test_a_store_uses_its_clients_connection_class(space: Space) -> None:
    """A subclass of a connection, given by the pool, is used by the store too."""
    pool = ConnectionPool.from_url(space.server_url)
    if pool.connection_class is not UnixDomainSocketConnection:
        pytest.skip("the server is not on a socket")
    pool.connection_class = TheirConnection
    async with Redis.from_pool(pool) as client:
        connections = Connections(ConnectionMaker.of(client), size=1, deadline_seconds=5)
        async with connections.connection() as connection:
            assert type(connection) is TheirConnection
        await connections.close()
        async with RedisRunStore(client=client, key_prefix=space.prefix) as store:
            await lives_a_run(store)


def test_a_store_works_without_hiredis(space: Space) -> None:
    """redis-py's own parser is enough."""
    program = """
import sys
sys.modules["hiredis"] = None
import asyncio, redis
from murmur_streams import RedisRunStore
from tests.stores.redis.test_clients import lives_a_run

async def main(url, prefix):
    async with RedisRunStore(url, key_prefix=prefix) as store:
        await lives_a_run(store)

assert not redis.utils.HIREDIS_AVAILABLE
asyncio.run(main(*sys.argv[1:]))
print("lived")
"""
    command = [sys.executable, "-W", "error", "-c", program, space.server_url, space.prefix]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.stdout, done.stderr) == ("lived\n", "")


async def test_a_given_client_stays_open_when_the_store_is_closed(space: Space) -> None:
    """It belongs to the caller."""
    async with Redis.from_url(space.server_url) as client:
        async with RedisRunStore(client=client, key_prefix=space.prefix) as store:
            assert store.client is client
        assert await client.ping()


async def test_a_given_client_and_a_url_are_not_taken_together(space: Space) -> None:
    """Both at once raise ValueError."""
    async with Redis.from_url(space.server_url) as client:
        with pytest.raises(ValueError, match="exactly one"):
            RedisRunStore(space.url, client=client)


def test_neither_client_nor_url_is_refused() -> None:
    """A store needs exactly one of them."""
    with pytest.raises(ValueError, match="exactly one"):
        RedisRunStore()


async def test_a_closed_store_says_so(space: Space) -> None:
    """Reads and writes raise StoreClosedError."""
    store = space.store()
    await store.create("run", "t")
    await store.close()
    with pytest.raises(StoreClosedError):
        await store.get_status("run")
    with pytest.raises(StoreClosedError):
        await store.push_event("run", RunEvent(type=RunEventType.LOG, run_id="run"))


async def test_a_store_that_was_never_used_closes(space: Space) -> None:
    """Closing twice without a connection raises nothing."""
    store = space.store()
    await store.close()
    await store.close()


@pytest.mark.parametrize(
    ("field", "value", "match"),
    [("partitions", 4, "partitions=4"), ("schema_version", 2, "schema version 2")],
)
async def test_a_key_space_of_another_kind_is_refused(
    space: Space, field: str, value: int, match: str
) -> None:
    """Another number of partitions or a newer schema: the error has it, nothing is written."""
    space.admin.hset(space.keys.meta, field, value)
    store = space.store()
    with pytest.raises(StoreConfigurationError, match=match):
        await store.create("run", "t")
    await store.close()
    assert list(space.dump()) == [space.keys.meta]


async def test_two_prefixes_share_a_server_and_no_runs(space: Space) -> None:
    """The same run id under two prefixes is two runs."""
    other = space.store()
    async with (
        RedisRunStore(space.url, key_prefix=space.prefix + "-b") as one,
        other,
    ):
        await one.create("run", "t")
        await other.create("run", "t")
        await one.finish("run", RunState.COMPLETED)
        assert (await other.get_status("run")).state is RunState.PENDING
    for key in space.admin.scan_iter(match=f"{space.prefix}-b:*"):
        space.admin.delete(key)
