"""A server, a proxy before it, and a check that nothing was left behind."""

from __future__ import annotations

import asyncio
import gc
import logging
import shutil
import tempfile
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis as BlockingRedis
from redis.asyncio import Redis

from murmur_streams.embedded import EmbeddedServer, ensure_server, stop_server
from murmur_streams.stores.redis.store import RedisRunStore
from murmur_streams.testing.faults import FaultProxy, ServerHandle
from tests.key_audit import audit_folder, left_by_hand
from tests.stores.faults.servers import spare_server
from tests.stores.faults.waiting import wait_until

CALL_SECONDS = 0.4
"""The time that a stalled call costs a test. A slow machine only makes more retries of it."""

StoreMaker = Callable[..., RedisRunStore]


@pytest.fixture(scope="session")
def server_folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="murmur-faults-"))
    yield folder / "data"
    stop_server(folder / "data")
    shutil.rmtree(folder)


@pytest.fixture
def server(request: pytest.FixtureRequest, server_folder: Path) -> Iterator[EmbeddedServer]:
    """A clean server; the keys are audited, if the test has left it alive."""
    server = ensure_server(server_folder)
    with BlockingRedis.from_url(server.url) as client:
        client.flushall()
    yield server
    audit_folder(server_folder, others=left_by_hand(request))


@pytest.fixture
async def nothing_is_left() -> AsyncIterator[None]:
    """No task outlives the test, and none dies unheard."""
    heard: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: heard.append(context))
    yield
    await wait_until(
        lambda: asyncio.all_tasks() == {asyncio.current_task()}, "no task outlives the test", 10
    )
    gc.collect()
    await asyncio.sleep(0)
    assert heard == []


@pytest.fixture
async def admin(server: EmbeddedServer, nothing_is_left: None) -> AsyncIterator[Redis]:
    """A client that goes around the proxy."""
    async with Redis.from_url(server.url, protocol=2, decode_responses=True) as client:
        yield client


@pytest.fixture
async def proxy(server: EmbeddedServer, nothing_is_left: None) -> AsyncIterator[FaultProxy]:
    async with FaultProxy(str(server.socket_path)) as proxy:
        yield proxy


@pytest.fixture
async def make_store(
    request: pytest.FixtureRequest, nothing_is_left: None
) -> AsyncIterator[StoreMaker]:
    """Makes stores with a key prefix of this test's own; they are closed with the test."""
    stores: list[RedisRunStore] = []
    prefix = f"faults:{zlib.crc32(request.node.nodeid.encode()):x}"

    def make(url: str | None, **options: Any) -> RedisRunStore:
        defaults: dict[str, Any] = {
            "key_prefix": prefix,
            "call_seconds": CALL_SECONDS,
            "partitions": 1,
        }
        store = RedisRunStore(url, **{**defaults, **options})
        stores.append(store)
        return store

    yield make
    for store in stores:
        await store.close()


@pytest.fixture
def store(proxy: FaultProxy, make_store: StoreMaker) -> RedisRunStore:
    """A store whose every byte goes through the proxy."""
    return make_store(proxy.url)


@pytest.fixture
def straight(server: EmbeddedServer, make_store: StoreMaker) -> RedisRunStore:
    """A store on the same keys that goes around the proxy."""
    return make_store(server.url)


@pytest.fixture
async def spare(tmp_path: Path, nothing_is_left: None) -> AsyncIterator[ServerHandle]:
    async with spare_server(tmp_path / "spare") as server:
        yield server


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG)
    return caplog
