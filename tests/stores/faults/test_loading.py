"""The library of functions: loaded once, noted daily, removed when no program uses it any more.

A server without functions gets scripts; there these tests show that nothing else happens.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest
from redis.asyncio import Redis

from murmur_streams.core.model.states import RunState
from murmur_streams.core.model.work import Beat, TargetRule
from murmur_streams.stores.redis import loading
from murmur_streams.stores.redis.connection import checks
from murmur_streams.stores.redis.loading import STAMP_MS, UNUSED_MS
from murmur_streams.stores.redis.scripts import load_library
from murmur_streams.stores.redis.store import RedisRunStore
from murmur_streams.testing.faults import ServerHandle
from tests.servers import forget_scripts
from tests.stores.faults.conftest import StoreMaker
from tests.stores.faults.events import names_in_journal, note
from tests.stores.faults.refusals import SECRET, limited
from tests.stores.faults.servers import blocking, has_functions
from tests.stores.faults.waiting import wait_until

OWN = f"library:{load_library().name}"
OTHER = "murmur_0123456789abcdef"
"""The library of another version."""
FOREIGN = "orders"
"""The library of another program."""
DAY_MS = 24 * 3600 * 1000


async def libraries(admin: Redis) -> set[str]:
    """The names of the server's libraries; none without functions."""
    if not await has_functions(admin):
        return set()
    found: Any = await admin.function_list()
    # Each is a flat list of names and values: "library_name", the name, ...
    return {each[each.index(b"library_name") + 1].decode() for each in found}


async def own(admin: Redis) -> set[str]:
    """What ``libraries`` must be when this version has loaded its library."""
    return {load_library().name} if await has_functions(admin) else set()


async def stamps(admin: Redis, store: RedisRunStore) -> dict[str, int]:
    """When the libraries were noted as used, Unix milliseconds."""
    stored: Any = await admin.hgetall(store._keys.meta)
    return {
        field.decode(): int(value)
        for field, value in stored.items()
        if field.startswith(b"library:")
    }


async def load(admin: Redis, *names: str) -> None:
    for name in names:
        await admin.function_load(
            f"#!lua name={name}\nredis.register_function('{name}_f', function() return 1 end)\n"
        )


def now_ms() -> int:
    return time.time_ns() // 1_000_000


async def test_programs_that_start_together_load_one_library(
    spare: ServerHandle, make_store: StoreMaker
) -> None:
    """All of them may find none; one load succeeds, and every program calls its functions."""
    async with spare.client() as admin:
        stores = [make_store(spare.url()) for _ in range(8)]
        await asyncio.gather(*(store.create(f"run-{n}", "work") for n, store in enumerate(stores)))
        assert await libraries(admin) == await own(admin)
        uses = {store._server.nodes.all[0].loader.uses_functions for store in stores}
        assert uses == {await has_functions(admin)}


async def test_a_library_that_is_there_is_not_sent_again(
    spare: ServerHandle, make_store: StoreMaker
) -> None:
    """The second program finds the functions, and so does each new connection."""
    async with spare.client() as admin:
        await make_store(spare.url()).create("run", "work")
        await admin.config_resetstat()
        store = make_store(spare.url())
        for number in range(3):
            assert await store.append("run", note("run", str(number))) == number + 2
            await admin.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        info: dict[str, Any] = await admin.info("commandstats")
        assert "cmdstat_function|load" not in info
        # On a server without functions, each new connection loads the scripts.
        loads = {name for name in info if name.startswith("cmdstat_script")}
        assert bool(loads) != await has_functions(admin)


async def test_a_full_server_without_the_library_is_called_by_scripts(
    spare: ServerHandle, make_store: StoreMaker
) -> None:
    """It takes no library; an operator's program must be able to free memory nevertheless."""
    async with spare.client() as admin:
        await make_store(spare.url()).create("run", "work")
        await blocking(spare, forget_scripts)
        await admin.config_set("maxmemory", 1)
        store = make_store(spare.url())
        assert await store.delete("run", force=True)
        assert not store._server.nodes.all[0].loader.uses_functions
        await admin.config_set("maxmemory", 0)
        assert await libraries(admin) == set()


async def test_a_full_server_with_the_library_goes_on_with_it(
    spare: ServerHandle, make_store: StoreMaker
) -> None:
    """A program that starts while memory is full finds the functions that others loaded."""
    async with spare.client() as admin:
        await make_store(spare.url()).create("run", "work")
        await admin.config_set("maxmemory", 1)
        store = make_store(spare.url())
        assert await store.delete("run", force=True)
        assert store._server.nodes.all[0].loader.uses_functions is await has_functions(admin)
        await admin.config_set("maxmemory", 0)


async def claim(store: RedisRunStore) -> None:
    (taken,) = (await store.queue(60).claim("w", [TargetRule("work")], 1)).claims
    assert taken.run_id == "waits"


async def heartbeat(store: RedisRunStore) -> None:
    (taken,) = (await store.queue(60).claim("w", [TargetRule("work")], 1)).claims
    await blocking_flush(store)
    assert await store.queue(60).heartbeat([Beat(taken)]) == []


async def tend(store: RedisRunStore) -> None:
    await store.queue(60).tend("w", ["work"], 1.0)


async def blocking_flush(store: RedisRunStore) -> None:
    client: Any = store.client
    await client.execute_command("SCRIPT", "FLUSH")
    if store._server.nodes.all[0].loader.uses_functions:
        await client.execute_command("FUNCTION", "FLUSH")


CALLS: dict[str, Callable[[RedisRunStore], Awaitable[object]]] = {
    "append": lambda store: store.append("waits", note("waits", "a")),
    "finish": lambda store: store.finish("waits", RunState.COMPLETED),
    "create": lambda store: store.create("new", "work"),
    "claim": claim,
    "heartbeat": heartbeat,
    "tend": tend,
    "sweep": lambda store: store.sweep(),
    "pause": lambda store: store.pause("other"),
    "ping": lambda store: store._server.ping(),
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.fault("F13")
async def test_a_library_that_is_removed_is_loaded_again(
    name: str, spare: ServerHandle, make_store: StoreMaker
) -> None:
    """FUNCTION FLUSH, or the removal by a program with another key prefix, is not noticed."""
    async with spare.client() as admin:
        store = make_store(spare.url())
        await store.submit("waits", "work")
        await blocking(spare, forget_scripts)
        await CALLS[name](store)
        assert await libraries(admin) == await own(admin)
        assert (await store.audit("waits")).problems == ()


async def test_the_use_of_the_library_is_noted_once_a_day(
    spare: ServerHandle, make_store: StoreMaker
) -> None:
    """A program that starts on the same day changes nothing."""
    async with spare.client() as admin:
        store = make_store(spare.url())
        await store.create("run", "work")
        if not await has_functions(admin):
            assert await stamps(admin, store) == {}
            return
        ((name, first),) = (await stamps(admin, store)).items()
        assert (name, 0 <= now_ms() - first < 60_000) == (OWN, True)
        yesterday = now_ms() - STAMP_MS
        for stamp, changes in ((yesterday + 60_000, False), (yesterday, True)):
            await admin.hset(store._keys.meta, OWN, str(stamp))
            await make_store(spare.url()).list_runs()
            assert (await stamps(admin, store) != {OWN: stamp}) is changes


@pytest.mark.parametrize("rights", [["+@all"], ["+@all", "-info"]])
async def test_a_program_that_runs_for_days_notes_it_each_day(
    rights: list[str],
    spare: ServerHandle,
    make_store: StoreMaker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The watch of the server does it, also where INFO is not permitted."""
    monkeypatch.setattr(checks, "LOOK_SECONDS", 0.02)
    async with spare.client() as admin:
        await limited(admin, *rights)
        store = make_store(spare.url(f"limited:{SECRET}"))
        await store.create("run", "work")
        if not await has_functions(admin):
            return
        meta = store._keys.meta
        await admin.hset(meta, OWN, "1")
        # Its day is not over, so it does not look at the stamps.
        assert not store._server.nodes.all[0].loader.is_stamp_due(now_ms())
        store._server.nodes.all[0].loader._stamped_ms -= STAMP_MS

        async def is_noted() -> bool:
            return (await stamps(admin, store))[OWN] > 1

        await wait_until(is_noted, "the use is noted")
        loader = store._server.nodes.all[0].loader
        await wait_until(lambda: not loader.is_stamp_due(now_ms()), "it waits for the next day")


@dataclass
class Aged:
    """Libraries of others on a server, and whether they must be there after a start."""

    days: float | None
    """Since the last stamp; None: it has none."""
    stays: bool


@pytest.mark.parametrize("aged", [Aged(6.9, True), Aged(None, True), Aged(7.1, False)])
async def test_a_library_that_no_program_uses_is_removed(
    aged: Aged, spare: ServerHandle, make_store: StoreMaker
) -> None:
    """After seven days without a stamp; what has no stamp at all is not ours to remove."""
    async with spare.client() as admin:
        store = make_store(spare.url())
        if not await has_functions(admin):
            await store.create("run", "work")
            return
        await load(admin, OTHER, FOREIGN)
        if aged.days is not None:
            stamp = now_ms() - round(aged.days * DAY_MS)
            await admin.hset(store._keys.meta, f"library:{OTHER}", str(stamp))
        await store.create("run", "work")
        remaining = {load_library().name, FOREIGN, *([OTHER] if aged.stays else [])}
        assert await libraries(admin) == remaining
        has_stamp = aged.stays and aged.days is not None
        assert (f"library:{OTHER}" in await stamps(admin, store)) is has_stamp


async def test_a_stamp_whose_library_is_gone_is_removed(
    spare: ServerHandle, make_store: StoreMaker
) -> None:
    """After FUNCTION FLUSH the stamps of earlier versions do not stay for ever."""
    async with spare.client() as admin:
        store = make_store(spare.url())
        await admin.hset(store._keys.meta, f"library:{OTHER}", str(now_ms() - UNUSED_MS))
        await store.create("run", "work")
        if await has_functions(admin):
            assert set(await stamps(admin, store)) == {OWN}


async def test_who_may_not_remove_a_library_leaves_its_stamp(
    spare: ServerHandle, make_store: StoreMaker
) -> None:
    """A program whose user has the right removes it later."""
    async with spare.client() as admin:
        if not await has_functions(admin):
            return
        await limited(admin, "+@all", "-function|delete")
        store = make_store(spare.url(f"limited:{SECRET}"))
        await load(admin, OTHER)
        await admin.hset(store._keys.meta, f"library:{OTHER}", str(now_ms() - UNUSED_MS))
        await store.create("run", "work")
        assert OTHER in await libraries(admin)
        assert set(await stamps(admin, store)) == {OWN, f"library:{OTHER}"}
        await make_store(spare.url()).list_runs()
        assert OTHER not in await libraries(admin)
        assert set(await stamps(admin, store)) == {OWN}


async def test_a_stamp_that_is_not_a_number_stops_nothing(
    spare: ServerHandle, make_store: StoreMaker
) -> None:
    """Another program wrote it by hand; the store works, and removes nothing."""
    async with spare.client() as admin:
        store = make_store(spare.url())
        await admin.hset(store._keys.meta, f"library:{OTHER}", "yesterday")
        await store.create("run", "work")
        assert await names_in_journal(store, "run") == []


@pytest.mark.fault("F44")
async def test_two_versions_of_the_library_serve_side_by_side(
    spare: ServerHandle, make_store: StoreMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Programs of two versions write to one run, and each calls the functions of its own."""
    async with spare.client() as admin:
        older = make_store(spare.url())
        await older.create("run", "work")
        library = load_library()
        another = type(library)(OTHER, library.text.replace(library.name, OTHER))
        newer = make_store(spare.url())
        with monkeypatch.context() as patch:
            patch.setattr(loading, "load_library", lambda **_: another)
            await newer.append("run", note("run", "newer"))
        await older.append("run", note("run", "older"))
        assert await names_in_journal(older, "run") == ["newer", "older"]
        both = {library.name, OTHER} if await has_functions(admin) else set[str]()
        assert await libraries(admin) == both
        assert (await older.audit("run")).problems == ()
