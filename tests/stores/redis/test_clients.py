"""A client of the caller's is used as it is, whatever its settings, and stays the caller's."""

from __future__ import annotations

from typing import Any

import pytest
from redis.asyncio import Redis

from murmur_streams.core.errors import StoreClosedError, StoreConfigurationError
from murmur_streams.core.events import RunEvent, RunEventType
from murmur_streams.core.results import AgentResult
from murmur_streams.core.states import RunProgress, RunState
from murmur_streams.stores.redis.store import RedisRunStore
from tests.servers import Space

SETTINGS: dict[str, dict[str, Any]] = {
    "bytes": {},
    "decoded": {"decode_responses": True},
    "RESP2": {"protocol": 2},
    "RESP3": {"protocol": 3},
    "RESP3 decoded": {"protocol": 3, "decode_responses": True},
    "timeouts": {"socket_timeout": 0.5, "socket_connect_timeout": 1.0},
    "latin-1": {"decode_responses": True, "encoding": "latin-1"},
    "one connection": {"max_connections": 1},
    "health checks": {"health_check_interval": 1},
}


@pytest.mark.parametrize("name", SETTINGS)
async def test_a_store_works_over_a_client_of_any_settings(space: Space, name: str) -> None:
    client = Redis.from_url(space.url, **SETTINGS[name])
    async with client, RedisRunStore(client=client, key_prefix=space.prefix) as store:
        await store.create("run", "t", input={"ключ": "☕"})
        await store.update_progress("run", RunProgress(total=1))
        event = RunEvent(type=RunEventType.LOG, run_id="run", data="naïve ☕")
        await store.append("run", event)
        result = AgentResult[str](output="☕", agent_name="t", task_id="1")
        await store.finish("run", RunState.COMPLETED, result=result)
        assert [event.data async for event in store.stream("run")] == ["naïve ☕"]
        assert await store.get_input("run") == {"ключ": "☕"}
        assert (await store.get_status("run")).progress == RunProgress(total=1)
        assert (await store.audit("run")).problems == ()


async def test_a_given_client_stays_open_when_the_store_is_closed(space: Space) -> None:
    async with Redis.from_url(space.url) as client:
        async with RedisRunStore(client=client, key_prefix=space.prefix) as store:
            assert store.client is client
        assert await client.ping()


async def test_a_given_client_and_a_url_are_not_taken_together(space: Space) -> None:
    async with Redis.from_url(space.url) as client:
        with pytest.raises(ValueError, match="exactly one"):
            RedisRunStore(space.url, client=client)


def test_neither_client_nor_url_is_refused() -> None:
    with pytest.raises(ValueError, match="exactly one"):
        RedisRunStore()


async def test_a_closed_store_says_so(space: Space) -> None:
    store = space.store()
    await store.create("run", "t")
    await store.close()
    with pytest.raises(StoreClosedError):
        await store.get_status("run")
    with pytest.raises(StoreClosedError):
        await store.push_event("run", RunEvent(type=RunEventType.LOG, run_id="run"))


async def test_a_store_that_was_never_used_closes(space: Space) -> None:
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
    space.admin.hset(space.keys.meta, field, value)
    store = space.store()
    with pytest.raises(StoreConfigurationError, match=match):
        await store.create("run", "t")
    await store.close()
    assert list(space.dump()) == [space.keys.meta]


async def test_two_prefixes_share_a_server_and_no_runs(space: Space) -> None:
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
