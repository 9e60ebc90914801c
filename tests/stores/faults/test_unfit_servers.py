"""A server that cannot keep the promises is refused; one that cannot write says why."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import pytest
from redis.asyncio import Redis

from murmur_streams.core.model.errors import (
    StoreConfigurationError,
    StoreFullError,
    StoreReadOnlyError,
)
from murmur_streams.core.model.states import RunState
from murmur_streams.stores.redis.store import RedisRunStore
from murmur_streams.testing.faults import FaultProxy, ServerHandle
from tests.stores.faults.conftest import StoreMaker
from tests.stores.faults.events import names_in_journal, note
from tests.stores.faults.refusals import opening, refusal
from tests.stores.faults.servers import spare_server
from tests.stores.faults.waiting import wait_until


@pytest.mark.fault("F20")
async def test_a_full_server_refuses_writes_whole(
    spare: ServerHandle, make_store: StoreMaker
) -> None:
    """Nothing is half-written."""
    async with spare.client() as admin:
        store = make_store(spare.url())
        await store.create("run", "work")
        await admin.config_set("maxmemory", 1)
        calls = (
            store.append("run", note("run", "a")),
            store.create("other", "work", input=1),
            opening(make_store(spare.url(), key_prefix="another")),
        )
        for call in calls:
            text = await refusal(call, StoreFullError)
            assert "memory" in text
        assert (await store.get_status("run")).state is RunState.PENDING
        # A program that only reads can open it all the same.
        reader = make_store(spare.url())
        assert (await reader.get_status("run")).state is RunState.PENDING
        await admin.config_set("maxmemory", 0)
        assert await store.append("run", note("run", "b")) == 2
        assert (await store.audit("run")).problems == ()
        assert sorted(await admin.keys("*other*")) == []


@pytest.mark.skipif(sys.platform != "linux", reason="limits of another process are Linux's")
@pytest.mark.fault("F24")
async def test_a_full_disk_refuses_writes_and_allows_reads(
    tmp_path: Path, make_store: StoreMaker, nothing_is_left: None
) -> None:
    """Writes work again once there is space."""
    async with spare_server(tmp_path / "spare", "appendonly", "yes", "logfile", "") as server:
        store = make_store(server.url())
        await store.create("run", "work")
        # A file that may not grow is a full disk, without the need for one.
        pid = server.pid
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
        acknowledged: list[str] = []

        async def fill() -> None:
            for number in range(1000):
                await store.append("run", note("run", str(number)))
                acknowledged.append(str(number))

        text = await refusal(fill(), StoreReadOnlyError)
        assert "disk" in text
        assert await names_in_journal(store, "run") == acknowledged
        unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, unlimited)

        async def writes_again() -> bool:
            try:
                await store.append("run", note("run", "after"))
            except StoreReadOnlyError:
                return False
            return True

        await wait_until(writes_again, "the server writes again")
        assert await names_in_journal(store, "run") == [*acknowledged, "after"]
        assert (await store.audit("run")).problems == ()


@pytest.mark.parametrize("version", ["6.0.16", "5.0.3", "2.8"])
async def test_a_server_that_is_too_old_is_refused(
    version: str, proxy: FaultProxy, store: RedisRunStore
) -> None:
    """The error names its version and the oldest supported one."""
    info = f"# Server\r\nredis_version:{version}\r\nrole:master\r\n".encode()
    proxy.answer = lambda parts: (
        b"$%d\r\n%s\r\n" % (len(info), info) if parts[0] == b"INFO" else None
    )
    text = await refusal(opening(store), StoreConfigurationError)
    assert version in text
    assert "6.2" in text


@pytest.mark.parametrize(
    ("field", "value", "reported"),
    [
        ("partitions", "16", "partitions=16"),
        ("schema_version", "2", "schema version 2"),
        ("schema_version", "new", "not of murmur-streams"),
    ],
)
@pytest.mark.fault("F44")
async def test_a_key_space_of_another_kind_is_refused(
    field: str, value: str, reported: str, admin: Redis, straight: RedisRunStore
) -> None:
    """Another number of partitions or a newer schema: the error has it, nothing is written."""
    await admin.hset(straight._keys.meta, field, value)
    text = await refusal(straight.create("run", "work"), StoreConfigurationError)
    assert reported in text
    assert await admin.keys(f"{straight._keys.prefix}:*") == [straight._keys.meta]
    await admin.delete(straight._keys.meta)


async def test_a_meta_key_of_another_program_is_refused(
    admin: Redis, straight: RedisRunStore
) -> None:
    """A key of another type under our name raises StoreConfigurationError."""
    await admin.set(straight._keys.meta, "mine")
    text = await refusal(straight.create("run", "work"), StoreConfigurationError)
    assert "not of murmur-streams" in text
    await admin.delete(straight._keys.meta)


async def test_a_node_of_a_cluster_is_refused(
    tmp_path: Path, make_store: StoreMaker, nothing_is_left: None
) -> None:
    """It would take the runs of its slots, and no program would see the others."""
    async with spare_server(tmp_path / "node", "cluster-enabled", "yes") as node:
        async with node.client() as admin:
            await admin.execute_command("CLUSTER", "ADDSLOTS", *range(16_384))
        text = await refusal(opening(make_store(node.url())), StoreConfigurationError)
        assert "redis+cluster://" in text
        async with node.client() as admin:
            assert await admin.keys("*") == []
