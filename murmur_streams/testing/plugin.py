"""Fixtures for tests of programs that use murmur-streams; pytest finds them by itself.

Everything but pytest is imported when a fixture is used: a session without them pays nothing.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import pytest

if TYPE_CHECKING:
    from murmur_streams.fleet import Fleet
    from murmur_streams.fleet.worker import Worker

    WorkerMaker = Callable[..., AbstractAsyncContextManager[Worker]]


@dataclass(frozen=True, slots=True)
class FleetStore:
    """The store of the fleets of one test."""

    url: str
    key_prefix: str


@pytest.fixture(scope="session")
def murmur_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of an embedded server of the session's own; it ends with the session.

    With pytest-xdist, each of its processes has one.
    """
    from urllib.parse import quote

    from murmur_streams.embedded import ensure_server, stop_server

    folder = tmp_path_factory.mktemp("murmur") / "data"
    ensure_server(folder)
    yield f"embedded://{quote(str(folder))}"
    stop_server(folder)


@pytest.fixture
def murmur_fleet_store(murmur_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FleetStore]:
    """Every ``Fleet()`` has its runs on ``murmur_url`` and sees none of another test's.

    It holds for fleets that name no URL and prefix of their own and are first used in the test.
    """
    store = FleetStore(murmur_url, f"test-{secrets.token_hex(6)}")
    monkeypatch.setenv("MURMUR_URL", store.url)
    monkeypatch.setenv("MURMUR_KEY_PREFIX", store.key_prefix)
    yield store
    from murmur_streams.fleet.background import disconnect

    # Or the next test's blocking calls would go to this one's runs.
    disconnect()


@pytest.fixture
def murmur_worker(murmur_fleet_store: FleetStore) -> WorkerMaker:
    """A worker in the test's event loop, for the time of a block.

    ``async with murmur_worker(fleet):`` takes the keywords of ``Worker``, too. At the end of the
    block the runs under way are handed back, and the fleet's connections are closed.
    """
    del murmur_fleet_store
    return working


@asynccontextmanager
async def working(fleet: Fleet, **options: Any) -> AsyncGenerator[Worker]:
    """Execute a fleet's runs while the block lasts; then close the fleet's connections.

    Args:
        fleet: whose agents.
        options: the keywords of ``Worker``, such as ``concurrency``.
    """
    from murmur_streams.fleet import Fleet
    from murmur_streams.fleet.worker import Worker

    if not isinstance(cast("object", fleet), Fleet):
        raise TypeError(
            f"murmur_worker takes a Fleet, not {fleet!r}: `async with murmur_worker(fleet):`"
        )
    worker = Worker(fleet, **options)
    task = asyncio.create_task(worker.run(), name="murmur_worker")
    try:
        yield worker
    finally:
        # Twice: a test that is over waits for no run.
        worker.stop()
        worker.stop()
        try:
            await task
        finally:
            await fleet.close()
