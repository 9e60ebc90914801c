"""A server that is killed and comes back: with its data, or without."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from murmur_streams.core.model.errors import CursorResetError, RunNotFoundError, StoreRewoundError
from murmur_streams.core.model.states import RunState
from murmur_streams.embedded import server_status, stop_server
from murmur_streams.stores.open import open_store
from murmur_streams.stores.redis.store import RedisRunStore
from tests.stores.faults.conftest import CALL_SECONDS, StoreMaker
from tests.stores.faults.events import names_in_journal, names_in_stream, note
from tests.stores.faults.servers import spare_server
from tests.stores.faults.waiting import wait_for_subscribers, wait_until

KILLS = 4
RUNS = 3
SUBSCRIBERS = 5


@pytest.fixture
async def embedded(tmp_path: Path, nothing_is_left: None) -> AsyncIterator[RedisRunStore]:
    folder = tmp_path / "data"
    store = await asyncio.to_thread(open_store, f"embedded://{folder}", call_seconds=CALL_SECONDS)
    assert isinstance(store, RedisRunStore)
    yield store
    await store.close()
    await asyncio.to_thread(stop_server, folder)


@pytest.mark.fault("F9")
async def test_a_killed_embedded_server_keeps_acknowledged_writes(
    embedded: RedisRunStore, tmp_path: Path
) -> None:
    """Four kills under load: each acknowledged event is there once, for all subscribers."""
    acknowledged: dict[str, list[str]] = {f"run-{n}": [] for n in range(RUNS)}
    for run_id in acknowledged:
        await embedded.create(run_id, "work")
    deaths = 0

    async def write(run_id: str) -> None:
        while deaths < KILLS:
            name = f"event {len(acknowledged[run_id])}"
            version = await embedded.append(run_id, note(run_id, name))
            acknowledged[run_id].append(name)
            assert version == 1 + len(acknowledged[run_id])
        assert await embedded.finish(run_id, RunState.COMPLETED) is True

    async with asyncio.TaskGroup() as group:
        writers = [group.create_task(write(run_id)) for run_id in acknowledged]
        readers = {
            run_id: [
                group.create_task(names_in_stream(embedded, run_id)) for _ in range(SUBSCRIBERS)
            ]
            for run_id in acknowledged
        }
        for death in range(KILLS):
            written = 1 + sum(map(len, acknowledged.values()))
            await wait_until(
                lambda least=written + 10 * death: sum(map(len, acknowledged.values())) >= least,
                "writers go on",
            )
            server = await asyncio.to_thread(server_status, tmp_path / "data")
            assert server is not None
            os.kill(server.pid, signal.SIGKILL)
            deaths += 1
        await asyncio.gather(*writers)

    for run_id, names in acknowledged.items():
        assert await names_in_journal(embedded, run_id) == names
        assert [reader.result() for reader in readers[run_id]] == [names] * SUBSCRIBERS
        assert (await embedded.audit(run_id)).problems == ()


@pytest.mark.fault("F12")
async def test_an_emptied_server_ends_every_subscriber(
    tmp_path: Path, make_store: StoreMaker
) -> None:
    """Each subscriber gets an error, and none waits for ever."""
    async with spare_server(tmp_path / "spare") as server:
        store = make_store(server.url())
        await store.create("run", "work")
        await store.append("run", note("run", "a"))
        readers = [asyncio.create_task(names_in_stream(store, "run")) for _ in range(SUBSCRIBERS)]
        async with server.client() as client:
            await wait_for_subscribers(store, client, SUBSCRIBERS)
        await server.kill()
        await server.start()
        ends = await asyncio.gather(*readers, return_exceptions=True)
        assert {type(end) for end in ends} == {CursorResetError}
        for error in (StoreRewoundError, RunNotFoundError):
            with pytest.raises(error):
                await store.append("run", note("run", "b"))
        await store.create("run", "work")
        assert (await store.audit("run")).problems == ()
        async with server.client() as client:
            # The emptied key space is claimed again, so a store with other settings is refused.
            assert await client.hget(store._keys.meta, "partitions") == b"1"


@pytest.mark.fault("F12")
async def test_a_new_run_on_an_emptied_server_is_not_the_old_one(
    tmp_path: Path, make_store: StoreMaker
) -> None:
    """It has the same id, and a reader of the old run gets a reset."""
    async with spare_server(tmp_path / "spare") as server:
        store, other = make_store(server.url()), make_store(server.url())
        await store.create("run", "work")
        await store.append("run", note("run", "a"))
        reader = asyncio.create_task(names_in_stream(store, "run"))
        async with server.client() as client:
            await wait_for_subscribers(store, client, 1)
            await client.flushall()
        await other.create("run", "work")
        await other.append("run", note("run", "b"))
        with pytest.raises(CursorResetError):
            await reader
