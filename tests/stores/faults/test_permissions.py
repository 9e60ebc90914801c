"""What a user may not do is found before half of a script is written."""

from __future__ import annotations

import re

import pytest
from redis.asyncio import Redis

from murmur_streams.core.errors import (
    StoreConfigurationError,
)
from murmur_streams.core.results import AgentResult
from murmur_streams.core.states import RunState
from murmur_streams.stores.redis.checks import PROBES
from murmur_streams.stores.redis.scripts import load_scripts
from tests.stores.faults.conftest import StoreMaker
from tests.stores.faults.events import names_in_stream, note
from tests.stores.faults.refusals import SECRET, TRIED_AGAIN, limited, refusal
from tests.stores.faults.servers import SpareServer

PROBED = sorted({probe.split()[0] for probe in PROBES} | {"HSETNX"})


async def test_every_permission_that_is_missing_is_found_before_anything_is_written(
    spare: SpareServer, make_store: StoreMaker, log: pytest.LogCaptureFixture
) -> None:
    async with spare.client() as admin:
        for command in PROBED:
            await limited(admin, "+@all", f"-{command.lower()}")
            store = make_store(spare.url(f"limited:{SECRET}"))
            text = await refusal(store.create("run", "work"), StoreConfigurationError)
            assert re.search(rf"\b{command.lower()}\b", text)
            assert await admin.keys("*") == []
    assert TRIED_AGAIN not in log.text


async def test_keys_that_are_not_permitted_are_found_before_anything_is_written(
    spare: SpareServer, make_store: StoreMaker
) -> None:
    async with spare.client() as admin:
        await limited(admin, "resetkeys", "~other:*", "+@all")
        store = make_store(spare.url(f"limited:{SECRET}"))
        text = await refusal(store.create("run", "work"), StoreConfigurationError)
        assert f"~{store.keys.prefix}:*" in text
        assert await admin.keys("*") == []


async def test_scripts_that_may_not_be_loaded_are_told_at_once(
    spare: SpareServer, make_store: StoreMaker
) -> None:
    async with spare.client() as admin:
        await limited(admin, "+@all", "-script")
        store = make_store(spare.url(f"limited:{SECRET}"))
        text = await refusal(store.create("run", "work"), StoreConfigurationError)
        assert "permit" in text


async def test_the_permissions_that_are_checked_are_all_that_a_run_needs(
    spare: SpareServer, make_store: StoreMaker
) -> None:
    async with spare.client() as admin:
        granted = [f"+{command.lower()}" for command in PROBED]
        await limited(admin, "-@all", *granted, "+script|load")
        store = make_store(spare.url(f"limited:{SECRET}"))
        await store.submit("run", "work", input=1)
        await store.set_state("run", RunState.RUNNING)
        await store.append("run", note("run", "a"))
        result = AgentResult(output=1, agent_name="work", task_id="t")
        assert await store.finish("run", RunState.COMPLETED, result=result) is True
        assert await names_in_stream(store, "run") == ["a"]
        assert (await store.audit("run")).problems == ()
        assert await store.delete("run") is True
        assert await store.sweep() == 0


def test_every_command_of_every_script_is_checked_for_permission() -> None:
    called = {
        command
        for script in load_scripts().values()
        for command in re.findall(r"redis\.p?call\('([A-Z]+)'", script.text)
    }
    assert called - set(PROBED) == set()
    assert all("redis.call('" in script.text for script in load_scripts().values())


async def test_looking_for_permissions_changes_nothing(
    admin: Redis, make_store: StoreMaker
) -> None:
    key = "faults:nothing:probe"
    for probe in PROBES:
        await admin.execute_command("EVAL", _PCALL, 0, *probe.format(key=key).split())
    assert await admin.exists(key) == 0


_PCALL = "redis.pcall(unpack(ARGV)); return 1"


async def test_a_store_whose_settings_were_refused_works_once_they_are_mended(
    spare: SpareServer, make_store: StoreMaker
) -> None:
    async with spare.client() as admin:
        await limited(admin, "+@all", "-xadd")
        store = make_store(spare.url(f"limited:{SECRET}"))
        await refusal(store.create("run", "work"), StoreConfigurationError)
        await limited(admin, "+@all")
        await store.create("run", "work")
        assert (await store.audit("run")).problems == ()
