"""Connections look their server's name up without the executor that agents can fill."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Connection, Redis, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.sentinel import SentinelManagedConnection

from murmur_streams import Fleet, RunContext
from murmur_streams.core.model.errors import StoreUnavailableError
from murmur_streams.embedded import ensure_server_async, stop_server
from murmur_streams.stores.redis.connection.transport import with_own_lookups
from murmur_streams.stores.redis.keys import Keys
from murmur_streams.stores.redis.store import RedisRunStore
from murmur_streams.testing.faults import ServerHandle
from tests.fleet.working import working
from tests.stores.faults.servers import spare_server
from tests.stores.faults.waiting import wait_until

AT_ONCE_SECONDS = 20
SLOTS = 2


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[ServerHandle]:
    """A server on a TCP port of 127.0.0.1."""
    async with spare_server(tmp_path / "own") as server:
        yield server


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """The gate that blocked threads wait for; it opens at the end of the test."""
    gate = threading.Event()
    yield gate
    gate.set()


@contextlib.asynccontextmanager
async def full_executor(gate: threading.Event) -> AsyncGenerator[None]:
    """The event loop's default executor, every thread of which waits for the gate."""
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(SLOTS))
    blocked = [loop.run_in_executor(None, gate.wait) for _ in range(SLOTS)]
    try:
        yield
    finally:
        gate.set()
        await asyncio.gather(*blocked)


async def cut(server: ServerHandle) -> None:
    """Close all connections of others."""
    async with server.client() as admin:
        await admin.client_kill_filter(_type="normal", skipme=True)


@pytest.mark.parametrize("how", ["url", "client"])
async def test_a_store_connects_while_the_executor_is_full(
    server: ServerHandle, gate: threading.Event, how: str
) -> None:
    """Reads and writes go on after broken connections, though no thread of the loop is free."""
    url = f"redis://localhost:{server.port}"
    async with Redis.from_url(url) as client:
        given: dict[str, Any] = {"url": url} if how == "url" else {"client": client}
        async with RedisRunStore(**given) as store:
            await store.create("before", "t")
            async with full_executor(gate), asyncio.timeout(AT_ONCE_SECONDS):
                await cut(server)
                await store.create("after", "t")
                assert (await store.snapshot("before")).target == "t"


@pytest.mark.fault("F8")
async def test_heartbeats_go_on_while_the_executor_is_full(
    server: ServerHandle, gate: threading.Event
) -> None:
    """Agents fill it with to_thread, the connections break: each run is executed once."""
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(SLOTS))
    fleet = Fleet(f"redis://localhost:{server.port}")

    @fleet.agent(max_attempts=0)
    async def blocks(run: RunContext) -> int:
        await asyncio.to_thread(gate.wait)
        return run.attempt

    async with fleet, working(fleet, lease_seconds=1, concurrency=SLOTS), server.client() as admin:
        handles = [await fleet.submit(blocks) for _ in range(SLOTS)]
        leases = Keys("murmur:runs").leases(0)

        async def beats() -> bool:
            now = await admin.zrange(leases, 0, -1, withscores=True)
            return len(now) == SLOTS and {run for run, _ in now} == started and now != before

        started = {handle.run_id.encode() for handle in handles}
        before: Any = None
        await wait_until(beats, "both runs are claimed")
        await cut(server)
        for _ in range(3):
            before = await admin.zrange(leases, 0, -1, withscores=True)
            await wait_until(beats, "a heartbeat moves the leases on")
        gate.set()
        assert [await handle.output(timeout=30) for handle in handles] == [1] * SLOTS


async def test_an_embedded_server_starts_while_the_executor_is_full(
    tmp_path: Path, gate: threading.Event
) -> None:
    """It is started again when it has died, whatever agents do to the loop's threads."""
    async with full_executor(gate), asyncio.timeout(AT_ONCE_SECONDS):
        server = await ensure_server_async(tmp_path / "data")
    assert server.pid
    stop_server(tmp_path / "data")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[object, ...]]:
    """The look-ups of ``db.test``, which has three addresses; only the last one answers."""
    asked: list[tuple[object, ...]] = []

    def look_up(host: str, port: int, **options: object) -> list[Any]:
        assert threading.current_thread() is not threading.main_thread()
        asked.append((host, port))
        return [
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", port, 0, 0)),
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.2", port)),
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)),
        ]

    monkeypatch.setattr(
        "murmur_streams.stores.redis.connection.transport.socket.getaddrinfo", look_up
    )
    return asked


@pytest.mark.fault("F47")
async def test_every_address_of_a_name_is_tried(
    server: ServerHandle, asked: list[tuple[object, ...]]
) -> None:
    """The first that answers is taken, and the name is asked for at each new connection."""
    async with RedisRunStore(f"redis://db.test:{server.port}") as store:
        await store.create("run", "t")
        first = len(asked)
        await cut(server)
        await store.create("another", "t")
    assert set(asked) == {("db.test", server.port)}
    assert len(asked) > first


async def test_all_failed_addresses_are_named(
    server: ServerHandle, asked: list[tuple[object, ...]]
) -> None:
    """Where no address answers the error says so of each."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(StoreUnavailableError) as raised:
        async with RedisRunStore(f"redis://db.test:{port}", retry_seconds=0):
            pass
    assert all(address in str(raised.value) for address in ("::1", "127.0.0.2", "127.0.0.1"))


@pytest.mark.usefixtures("asked")
async def test_a_certificate_is_asked_for_by_name() -> None:
    """With TLS the server learns the name of the URL, and not the address it led to."""
    hello = asyncio.get_running_loop().create_future()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        hello.set_result(await reader.read(4096))
        writer.close()

    listening = await asyncio.start_server(listen, "127.0.0.1", 0)
    async with listening:
        port = listening.sockets[0].getsockname()[1]
        with pytest.raises(StoreUnavailableError):
            async with RedisRunStore(f"rediss://db.test:{port}", retry_seconds=0):
                pass
        assert b"db.test" in await hello


class Tunnel(Connection):
    """A connection class of the caller's, which opens its sockets itself."""

    async def _connect(self) -> None:
        raise ConnectionRefusedError


@pytest.mark.parametrize("kind", [Tunnel, UnixDomainSocketConnection])
def test_classes_that_open_sockets_themselves_stay(kind: type[Any]) -> None:
    """Where a name leads is their own affair."""
    assert with_own_lookups(kind) is kind


@pytest.mark.parametrize("kind", [Connection, SSLConnection, SentinelManagedConnection])
def test_redis_py_has_what_the_lookups_are_built_on(kind: type[Any]) -> None:
    """Two private methods of redis-py: a release without them must be found here."""
    own = with_own_lookups(kind)
    assert own is not kind, f"redis-py: {kind.__name__} no longer inherits Connection._connect"
    assert issubclass(own, kind)
    arguments = {"host", "port", *(["ssl"] if kind is SSLConnection else [])}
    made = Connection() if kind is SentinelManagedConnection else kind()
    assert set(made._connection_arguments()) == arguments, (
        "redis-py: Connection._connection_arguments has changed"
    )
