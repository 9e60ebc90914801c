"""A damaged run over HTTP raises RunDamagedError, as the fleet's own handle does."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from murmur_streams import Fleet, RunEvent, RunEventType
from murmur_streams.client import AsyncClient, Client
from murmur_streams.core.model.errors import RunDamagedError
from murmur_streams.stores.redis.store import redis_only
from tests.client.conftest import PATIENCE_SECONDS
from tests.client.pods import Pod
from tests.server.test_damaged_runs import damage_last_event
from tests.servers import Space


@pytest.fixture
async def damaged(client: AsyncClient, fleet: Fleet, space: Space) -> str:
    """A run whose state cannot be read."""
    run_id = (await client.submit("counts", 1)).run_id
    space.admin.hset(redis_only(await fleet.store())._keys.run(run_id), "state", "nonsense")
    return run_id


def calls_of(handle: Any) -> list[Any]:
    """The reading calls of a handle."""
    return [
        *(handle.status, handle.snapshot, handle.events, handle.journal, handle.cancel),
        *(handle.delete, lambda: handle.result(0.2), lambda: handle.output(0.2)),
        *(lambda: handle.events(wait=5), lambda: handle.last_entries(1)),
    ]


async def test_every_call_raises_it(
    client: AsyncClient, space: Space, damaged: str, fleet: Fleet
) -> None:
    """The error has the run's id, what the server said, and whether a rebuild can help."""
    handle = client.handle(damaged)
    for call in calls_of(handle):
        with pytest.raises(RunDamagedError, match="murmur-streams rebuild") as caught:
            await call()
        assert (caught.value.run_id, caught.value.can_rebuild) == (damaged, True)
    with pytest.raises(RunDamagedError):
        await asyncio.wait_for(anext(handle.stream()), PATIENCE_SECONDS)
    with pytest.raises(RunDamagedError):
        await asyncio.wait_for(anext(client.stream_many([damaged])), PATIENCE_SECONDS)
    clean(space)


async def test_the_sync_client_raises_it(pod: Pod, space: Space, damaged: str) -> None:
    """Both clients raise the same class, for streams at once and not after retries."""

    def ask() -> None:
        with Client(pod.url) as client:
            handle = client.handle(damaged)
            for call in calls_of(handle):
                with pytest.raises(RunDamagedError):
                    call()
            with pytest.raises(RunDamagedError):
                next(handle.stream())

    await asyncio.wait_for(asyncio.to_thread(ask), PATIENCE_SECONDS)
    clean(space)


@pytest.mark.parametrize("many", [False, True], ids=["one", "many"])
async def test_damage_in_mid_stream_raises_it(
    client: AsyncClient, fleet: Fleet, space: Space, many: bool
) -> None:
    """The events before the damage arrive, each once; then the error does."""
    store = await fleet.store()
    run_id = (await client.submit("counts", 1)).run_id
    for name in ("good", "bad"):
        event = RunEvent(type=RunEventType.CUSTOM, run_id=run_id, name=name, data=1)
        await store.append(run_id, event)
    damage_last_event(space, redis_only(store)._keys, run_id)
    stream = client.stream_many([run_id]) if many else client.handle(run_id).stream()
    assert (await anext(stream)).name == "good"
    with pytest.raises(RunDamagedError, match="import it from an export") as caught:
        await asyncio.wait_for(anext(stream), PATIENCE_SECONDS)
    assert (caught.value.run_id, caught.value.can_rebuild) == (run_id, False)
    clean(space)


def clean(space: Space) -> None:
    """Leave nothing behind that the audit of keys would have to explain."""
    for key in space.admin.scan_iter(f"{space.prefix}*"):
        space.admin.delete(key)
