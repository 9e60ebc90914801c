"""A fleet with agents, a worker and a server, in the test's own key space."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from murmur_streams import Fleet, RunContext
from murmur_streams.client import AsyncClient
from tests.client.pods import Pod, pod_of
from tests.fleet.working import working
from tests.servers import Space

PATIENCE_SECONDS = 30


@dataclass
class Gates:
    """Opened by a test, waited for by the agent ``gated``."""

    opened: asyncio.Event = field(default_factory=asyncio.Event)


@pytest.fixture
async def gates() -> Gates:
    return Gates()


@pytest.fixture
async def fleet(space: Space, gates: Gates) -> AsyncIterator[Fleet]:
    """The agents of the test's server."""
    async with Fleet(space.url, key_prefix=space.prefix) as fleet:

        @fleet.agent
        async def counts(steps: int, run: RunContext) -> int:
            for step in range(steps):
                await run.emit("step", step)
            return steps

        @fleet.agent
        async def gated(given: str, run: RunContext) -> str:
            await run.emit("begun")
            await gates.opened.wait()
            return given

        @fleet.agent
        async def boom(given: str) -> None:
            raise RuntimeError(given)

        yield fleet


@pytest.fixture
async def worker(fleet: Fleet) -> AsyncIterator[None]:
    """A worker that executes the fleet's runs."""
    async with working(fleet):
        yield


@pytest.fixture
async def pod(fleet: Fleet) -> AsyncIterator[Pod]:
    """The server of the test."""
    async with pod_of(fleet) as pod:
        yield pod


@pytest.fixture
async def client(pod: Pod) -> AsyncIterator[AsyncClient]:
    """A client of that server."""
    async with AsyncClient(pod.url) as client:
        yield client
