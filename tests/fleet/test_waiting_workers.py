"""A worker whose server is a replica, or refuses its credentials, waits and goes on."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from murmur_streams import Fleet
from murmur_streams.cli.supervisor.health import Status, WorkerHealth
from murmur_streams.core.model.errors import StoreConfigurationError, StoreReadOnlyError
from murmur_streams.fleet.worker import Worker
from murmur_streams.testing.faults import ServerHandle
from tests.fleet.stage import wait_until
from tests.fleet.working import working
from tests.stores.faults.refusals import rotate
from tests.stores.faults.servers import spare_server

SECRET = "hunter2"


@pytest.fixture
async def spare(tmp_path: Path) -> AsyncIterator[ServerHandle]:
    async with spare_server(tmp_path / "spare") as server:
        yield server


@contextlib.asynccontextmanager
async def fleet_on(server: ServerHandle, credentials: str = "") -> AsyncGenerator[Fleet]:
    """A fleet with one agent, whose calls are retried for a moment only."""
    async with Fleet(server.url(credentials), key_prefix="test-w", retry_seconds=0.1) as fleet:

        @fleet.agent
        async def fine(number: int) -> int:
            return number + 1

        yield fleet


def lines(caplog: pytest.LogCaptureFixture, text: str) -> list[str]:
    """The warnings in the log that have this text."""
    return [
        record.getMessage()
        for record in caplog.records
        if record.levelno >= logging.WARNING and text in record.getMessage()
    ]


async def replica(admin: Redis, *, of: str | None = "127.0.0.1") -> None:
    """Make the server a replica of a server that is not there, or a primary again."""
    await admin.execute_command("REPLICAOF", *(("NO", "ONE") if of is None else (of, "1")))


async def test_a_worker_waits_while_its_server_is_a_replica(
    spare: ServerHandle, caplog: pytest.LogCaptureFixture
) -> None:
    """It begins on a replica, says so once, works when that is a primary, and outlasts another."""
    async with spare.client() as admin, fleet_on(spare) as fleet:
        await replica(admin)
        beats: list[None] = []
        async with working(fleet, lease_seconds=1, on_beat=lambda: beats.append(None)):
            await wait_until(lambda: logged(caplog, 1), "the worker says what it waits for")
            assert beats == []
            await replica(admin, of=None)
            assert await (await fleet.submit("fine", 1)).output(timeout=30) == 2
            caplog.clear()
            await replica(admin)
            await wait_until(lambda: logged(caplog, 1), "the worker says what it waits for")
            with pytest.raises(StoreReadOnlyError):
                await fleet.submit("fine", 1)
            await replica(admin, of=None)
            assert await (await fleet.submit("fine", 2)).output(timeout=30) == 3


async def logged(caplog: pytest.LogCaptureFixture, times: int, text: str = "is a replica") -> bool:
    return len(lines(caplog, text)) >= times


async def test_a_worker_waits_while_its_server_is_full(
    spare: ServerHandle, caplog: pytest.LogCaptureFixture
) -> None:
    """It begins on a full server and works when there is room; later it says why it is unready."""
    async with spare.client() as admin, fleet_on(spare) as fleet:
        await fleet.submit("fine", 1)
        await admin.config_set("maxmemory", 1)
        async with working(fleet, lease_seconds=1) as worker:
            await wait_until(lambda: logged(caplog, 1, "out of memory"), "the worker says so")
            await admin.config_set("maxmemory", 0)
            assert await (await fleet.submit("fine", 1)).output(timeout=30) == 2
            assert worker.refusal is None
            await admin.config_set("maxmemory", 1)

            async def is_refused() -> bool:
                return "out of memory" in (worker.refusal or "")

            await wait_until(is_refused, "an idle worker learns of it")
            health = WorkerHealth(60, status=Status.WORKING, refusal=lambda: worker.refusal)
            health.beat()
            assert not health.is_ready
            assert health.as_json()["refused"] == worker.refusal
            await admin.config_set("maxmemory", 0)
            assert await (await fleet.submit("fine", 2)).output(timeout=30) == 3
            assert health.is_ready


async def test_a_worker_that_waits_for_a_primary_can_be_stopped(spare: ServerHandle) -> None:
    """The wait at the start ends at once when the worker is to stop."""
    async with spare.client() as admin, fleet_on(spare) as fleet:
        await replica(admin)
        worker = Worker(fleet)
        task = asyncio.create_task(worker.run())
        await asyncio.sleep(0)
        worker.stop()
        await asyncio.wait_for(task, 5)
        await replica(admin, of=None)


@pytest.mark.fault("F46")
async def test_a_worker_waits_while_its_password_is_refused(
    spare: ServerHandle, caplog: pytest.LogCaptureFixture
) -> None:
    """Calls fail at once with one error; the worker logs once and goes on with the password."""
    async with spare.client() as admin:
        await rotate(admin, SECRET)
        async with fleet_on(spare, f"app:{SECRET}") as fleet, working(fleet, lease_seconds=1):
            assert await (await fleet.submit("fine", 1)).output(timeout=30) == 2
            await rotate(admin, "another")
            for _ in range(3):
                with pytest.raises(StoreConfigurationError, match="credentials"):
                    await asyncio.wait_for(fleet.submit("fine", 1), 5)
            await wait_until(
                lambda: logged(caplog, 1, "refused the user name or password"), "the worker says so"
            )
            # By then each of its loops has failed several times.
            await asyncio.sleep(2)
            assert len(lines(caplog, "refused the user name or password")) == 1
            await rotate(admin, SECRET)
            assert await (await fleet.submit("fine", 2)).output(timeout=30) == 3


async def test_a_worker_waits_while_a_command_is_denied(
    spare: ServerHandle, caplog: pytest.LogCaptureFixture
) -> None:
    """A right that is taken away from a live worker does not end it."""
    async with spare.client() as admin:
        await rotate(admin, SECRET)
        async with fleet_on(spare, f"app:{SECRET}") as fleet, working(fleet, lease_seconds=1):
            assert await (await fleet.submit("fine", 1)).output(timeout=30) == 2
            await admin.execute_command("ACL", "SETUSER", "app", "-@all")
            with pytest.raises(StoreConfigurationError, match="permit"):
                await fleet.submit("fine", 1)
            await wait_until(lambda: logged(caplog, 1, "permit"), "the worker says so")
            await admin.execute_command("ACL", "SETUSER", "app", "+@all")
            assert await (await fleet.submit("fine", 2)).output(timeout=30) == 3


@pytest.mark.fault("F46")
async def test_an_end_is_written_once_the_password_works_again(spare: ServerHandle) -> None:
    """An execution that ends while the credentials are refused is not executed again."""
    begun, go_on = asyncio.Event(), asyncio.Event()
    async with spare.client() as admin:
        await rotate(admin, SECRET)
        async with fleet_on(spare, f"app:{SECRET}") as fleet:

            @fleet.agent
            async def slow() -> int:
                begun.set()
                await go_on.wait()
                return 1

            async with working(fleet, lease_seconds=60) as worker:
                handle = await fleet.submit(slow)
                await begun.wait()
                await rotate(admin, "another")
                go_on.set()
                await asyncio.sleep(0.5)
                assert worker.held == [handle.run_id]
                await rotate(admin, SECRET)
                assert await handle.output(timeout=30) == 1
            assert (await handle.snapshot()).attempt == 1


async def test_a_worker_ends_when_its_first_credentials_are_refused(spare: ServerHandle) -> None:
    """A wrong password at the start is a mistake to report, not something to wait for."""
    async with spare.client() as admin:
        await rotate(admin, SECRET)
        async with fleet_on(spare, "app:wrong") as fleet:
            with pytest.raises(StoreConfigurationError, match="credentials"):
                await asyncio.wait_for(Worker(fleet).run(), 5)
