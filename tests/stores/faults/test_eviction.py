"""The server's eviction policy changes under a live store: it is noticed, and nothing stops."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from murmur_streams.core.model.errors import StoreConfigurationError
from murmur_streams.stores.redis.connection import checks
from murmur_streams.testing.faults import ServerHandle
from tests.stores.faults.conftest import StoreMaker
from tests.stores.faults.events import names_in_journal, note
from tests.stores.faults.refusals import SECRET, limited, opening, refusal
from tests.stores.faults.servers import spare_server
from tests.stores.faults.waiting import wait_until


@pytest.fixture
async def spare(tmp_path: Path, nothing_is_left: None) -> AsyncIterator[ServerHandle]:
    """A server about which there is nothing else to warn of."""
    async with spare_server(tmp_path / "spare", "appendonly", "yes") as server:
        yield server


@pytest.fixture
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "LOOK_SECONDS", 0.02)


def warnings(log: pytest.LogCaptureFixture) -> list[str]:
    """The lines about the policy."""
    return [
        record.getMessage()
        for record in log.records
        if record.levelno == logging.WARNING and "maxmemory-policy" in record.getMessage()
    ]


def test_the_policy_is_looked_at_once_a_minute() -> None:
    """A change is seen within a minute, and an idle program sends hardly more commands for it."""
    assert checks.LOOK_SECONDS == 60.0


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
async def test_a_policy_that_changes_is_noticed(
    policy: str,
    spare: ServerHandle,
    make_store: StoreMaker,
    log: pytest.LogCaptureFixture,
    looks_often: None,
) -> None:
    """One warning when the server begins to evict, one line when it ends; the store goes on."""
    async with spare.client() as admin:
        store = make_store(spare.url())
        await store.create("run", "work")
        assert (store.warning, warnings(log)) == (None, [])
        await admin.config_set("maxmemory-policy", policy)
        await wait_until(lambda: store.warning is not None, "the policy is noticed")
        assert policy in str(store.warning)
        assert "set maxmemory-policy noeviction" in str(store.warning)
        looks = await looked(admin)
        await wait_until(lambda: more_looks(admin, looks + 3), "it has looked again")
        assert warnings(log) == [str(store.warning)]
        assert await store.append("run", note("run", "a")) == 2
        # A connection that is made anew has the server checked again.
        await admin.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        assert await store.append("run", note("run", "b")) == 3
        await admin.config_set("maxmemory-policy", "noeviction")
        await wait_until(lambda: store.warning is None, "the policy is good again")
        assert len(warnings(log)) == 2
        assert "evicts nothing any more" in warnings(log)[1]
        assert await names_in_journal(store, "run") == ["a", "b"]


async def looked(admin: Redis) -> int:
    """How many INFO commands the server has answered."""
    found = await admin.info("commandstats")
    return int(found["cmdstat_info"]["calls"])


async def more_looks(admin: Redis, least: int) -> bool:
    return await looked(admin) > least


async def test_what_evicts_at_the_start_is_refused_or_noticed(
    spare: ServerHandle, make_store: StoreMaker, log: pytest.LogCaptureFixture
) -> None:
    """`allkeys-*` is refused before the first use; `volatile-*` is a warning from the start."""
    async with spare.client() as admin:
        for policy in ("allkeys-lru", "allkeys-random"):
            await admin.config_set("maxmemory-policy", policy)
            text = await refusal(opening(make_store(spare.url())), StoreConfigurationError)
            assert policy in text
        await admin.config_set("maxmemory-policy", "volatile-lru")
        store = make_store(spare.url())
        await store.list_runs()
        assert "volatile-lru" in str(store.warning)
        assert warnings(log) == [str(store.warning)]


async def test_a_user_without_the_right_to_look_is_left_alone(
    spare: ServerHandle, make_store: StoreMaker, log: pytest.LogCaptureFixture, looks_often: None
) -> None:
    """Without INFO nothing is known, nothing is logged, and the server's ACL log stays short."""
    async with spare.client() as admin:
        await limited(admin, "+@all", "-info")
        store = make_store(spare.url(f"limited:{SECRET}"))
        await store.create("run", "work")
        denied = len(await admin.acl_log())
        for number in range(20):
            await store.append("run", note("run", str(number)))
        assert (store.warning, warnings(log)) == (None, [])
        assert len(await admin.acl_log()) == denied
