"""An agent whose events the server has lost learns of it at its next write."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from murmur_streams import Fleet, RunContext, RunHandle, StoreRewoundError
from murmur_streams.embedded import server_status
from murmur_streams.testing.plugin import working
from tests.stores.faults.rewinding import moment_of


class Stage:
    """A fleet whose agent is stopped before and after an event that will be lost."""

    def __init__(self, fleet: Fleet, client: Redis) -> None:
        self.fleet = fleet
        self.client = client
        self.has_begun, self.may_lose = asyncio.Event(), asyncio.Event()
        self.has_lost, self.may_go_on = asyncio.Event(), asyncio.Event()

    async def lose(self, run: RunContext) -> None:
        """Write an event that is lost."""
        await run.emit("there")
        self.has_begun.set()
        await self.may_lose.wait()
        await run.emit("lost")
        self.has_lost.set()
        await self.may_go_on.wait()

    async def run(self) -> RunHandle[Any]:
        """Submit a run, and set the server back while it is executed."""
        handle = await self.fleet.submit("work")
        await self.has_begun.wait()
        moment = await moment_of(self.client)
        self.may_lose.set()
        await self.has_lost.wait()
        await moment.come_back()
        self.may_go_on.set()
        return handle

    async def names(self, handle: RunHandle[Any]) -> list[str | None]:
        """The names of its events."""
        return [event.name async for event in handle.stream() if event.name]


@pytest.fixture
async def stage(own_folder: Path) -> AsyncIterator[Stage]:
    status = server_status(own_folder)
    assert status is not None
    fleet = Fleet(status.url, key_prefix=f"test-{secrets.token_hex(4)}")
    async with Redis.from_url(status.url, protocol=2) as client:
        yield Stage(fleet, client)


async def test_an_agent_can_write_again_what_is_missing(stage: Stage) -> None:
    """It catches the error, and its run is completed by the same execution."""

    @stage.fleet.agent
    async def work(run: RunContext) -> int:
        await stage.lose(run)
        with pytest.raises(StoreRewoundError):
            await run.emit("next")
        await run.emit("again")
        return run.attempt

    async with working(stage.fleet):
        handle = await stage.run()
        assert await handle.output(timeout=30) == 1
        assert await stage.names(handle) == ["there", "again"]


async def test_a_run_that_lost_events_is_executed_again(stage: Stage) -> None:
    """The agent does not catch the error: the run is left, and its lease runs out."""

    @stage.fleet.agent
    async def work(run: RunContext) -> int:
        if run.attempt == 1:
            await stage.lose(run)
        await run.emit("next")
        return run.attempt

    async with working(stage.fleet, lease_seconds=1.0):
        handle = await stage.run()
        assert await handle.output(timeout=30) == 2
        assert await stage.names(handle) == ["there", "next"]
