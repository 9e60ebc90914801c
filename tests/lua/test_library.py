"""The library of functions on a real server: it loads, and no call leaves anything for the next."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Any

import pytest

from murmur_streams.core.model.commands import Append, Create, Finish, SetState
from murmur_streams.core.model.states import RunState
from murmur_streams.stores.redis.scripts import load_library, load_scripts
from tests.lua.batches import BATCHES
from tests.lua.sandbox import FUNCTION, SCRIPT, WAYS, caught_call
from tests.lua.scenarios import EVENT, OTHER, PAYLOAD, RUN, Script, Stage
from tests.servers import Space
from tests.stores.redis.hand import calls_by_hand
from tests.stores.redis.working import server_ms

LOOK = """
local function show(value)
  if type(value) ~= 'table' then return type(value) .. ' ' .. tostring(value) end
  local shown = {}
  for name, each in pairs(value) do shown[#shown + 1] = tostring(name) .. '=' .. show(each) end
  table.sort(shown)
  return '{' .. table.concat(shown, ',') .. '}'
end
"""
SHARED_NAMES = re.compile(r"^local (?!function)([\w, ]+) =", re.MULTILINE)

every_way = pytest.mark.parametrize("way", WAYS)
if_functions = pytest.mark.parametrize("way", [way for way in WAYS if way == FUNCTION])


@pytest.fixture
async def stage(space: Space) -> AsyncIterator[Stage]:
    """A stage on the test's server, which is emptied at the end: keys are damaged on it."""
    async with space.store(retry_seconds=0) as store:
        yield Stage(space, store)
    space.admin.flushall()


def execute(stage: Stage, way: str, script: Script) -> list[str]:
    """Call a script as a function of the library that stays loaded, or by its hash."""
    name, keys, args = script
    if way == SCRIPT:
        sha = stage.admin.script_load(load_scripts()[name].text)
        found = stage.admin.evalsha(sha, len(keys), *keys, *args)
    else:
        # Loading it again would begin with a new state, and hide what a call leaves.
        if not stage.admin.function_list(library=load_library().name):
            stage.admin.function_load(load_library().text)
        found = stage.admin.fcall(load_library().function(name), len(keys), *keys, *args)
    return [each.decode() for each in found]


async def prepared(stage: Stage, command: Any, run_id: str = RUN) -> Script:
    """The commit of one command."""
    calls = calls_by_hand(stage.hand(), stage.short)
    return await caught_call(stage, calls.execute(run_id, command))


async def test_a_store_uses_the_library_where_the_server_has_functions(stage: Stage) -> None:
    """Other servers get the scripts."""
    await stage.store.ping()
    loader, library = stage.store._server.nodes.all[0].loader, load_library()
    assert loader.uses_functions == (FUNCTION in WAYS)
    if loader.uses_functions:
        stage.admin.function_delete(library.name)
        loaded = stage.admin.function_load(library.text)
        assert loaded.decode() == library.name
        assert stage.admin.fcall(library.function("loaded"), 0) == b"OK"


def test_every_script_loads(space: Space) -> None:
    """Each server takes the scripts, under the hashes that the store calls them by."""
    admin: Any = space.admin
    for script in load_scripts().values():
        assert admin.script_load(script.text) == script.sha


@if_functions
@pytest.mark.parametrize("kind", BATCHES)
async def test_a_call_changes_nothing_that_the_library_shares(
    stage: Stage, way: str, kind: str
) -> None:
    """All tables and values of the chunk are the same after a commit of all commands."""
    own = load_library()
    name = f"{own.name}_look"
    chunk, _ = own.text.split("\nlocal function run_claim()")
    shared = {each for names in SHARED_NAMES.findall(chunk) for each in names.split(", ")}
    shared -= {"KEYS", "ARGV", "CALL"}
    text = own.text.replace(own.name, name) + (
        f"{LOOK}redis.register_function('{name}_look', function()\n"
        f"  return {{{', '.join(f'show({each})' for each in sorted(shared))}}}\nend)\n"
    )
    assert {"COMMANDS", "DENIED", "TERMINAL"} <= shared
    script = await BATCHES[kind](stage)
    stage.admin.function_load(text, replace=True)
    before = stage.admin.fcall(f"{name}_look", 0)
    found = stage.admin.fcall(f"{name}_commit", len(script[1]), *script[1], *script[2])
    assert found[0] == b"OK"
    assert stage.admin.fcall(f"{name}_look", 0) == before
    stage.admin.function_delete(name)


@every_way
async def test_the_end_of_the_feed_is_read_in_each_call(stage: Stage, way: str) -> None:
    """Another program's entry between two calls gets a number of its own."""
    await stage.submit()
    feed = stage.keys.feed(0)
    execute(stage, way, await prepared(stage, Append((EVENT,))))
    last = stage.admin.xrevrange(feed, count=1)[0][0].decode()
    ms, n = last.split("-")
    stage.admin.xadd(feed, {"run": "x"}, id=f"{ms}-{int(n) + 1}")
    assert execute(stage, way, await prepared(stage, Append((EVENT,))))[0] == "OK"
    numbers = [int(id_.split(b"-")[1]) for id_, _ in stage.admin.xrange(feed)]
    assert numbers == list(range(1, len(numbers) + 1))


@every_way
async def test_the_clock_is_read_in_each_call(stage: Stage, way: str) -> None:
    """A later call has a later time."""
    for run_id in (RUN, OTHER):
        script = await prepared(stage, Create("work", "e", PAYLOAD), run_id)
        earlier = server_ms(stage.space)
        while server_ms(stage.space) == earlier:
            pass
        assert execute(stage, way, script) == ["OK", "OK 1"]
        assert int(stage.admin.hget(stage.keys.run(run_id), "created_ms")) > earlier


@every_way
async def test_types_of_keys_are_checked_in_each_call(stage: Stage, way: str) -> None:
    """An index that was a sorted set in one call refuses the next one, before its first write."""
    await stage.submit()
    assert execute(stage, way, await prepared(stage, SetState(RunState.RUNNING)))[1] == "OK 2"
    index = stage.keys.index_state(RunState.COMPLETED, 0)
    stage.admin.set(index, "x")
    found = execute(stage, way, await prepared(stage, Finish(RunState.COMPLETED)))
    assert found[1].startswith("ERROR WRONGTYPE ")
    assert stage.admin.hget(stage.keys.run(RUN), "state") == b"running"


@every_way
async def test_each_call_looks_for_overdue_runs(stage: Stage, way: str) -> None:
    """One that found none does not keep the next from ending one."""
    await stage.submit(OTHER)
    assert execute(stage, way, await prepared(stage, Create("work", "e"), "first"))[1] == "OK 1"
    stage.make_overdue(OTHER)
    assert execute(stage, way, await prepared(stage, Create("work", "e"), "second"))[1] == "OK 1"
    assert stage.admin.hget(stage.keys.run(OTHER), "state") == b"failed"


@every_way
async def test_a_call_has_only_its_own_keys_and_arguments(stage: Stage, way: str) -> None:
    """After a call with many arguments, one with few and another prefix sees none of the first."""
    await stage.submit()
    many = Append(tuple([EVENT] * 50))
    assert execute(stage, way, await prepared(stage, many))[0] == "OK"
    name, keys, args = await prepared(stage, SetState(RunState.RUNNING))
    before = stage.admin.keys(f"{stage.space.prefix}:*")
    others = [key.replace(stage.space.prefix, "another") for key in keys]
    assert execute(stage, way, (name, others, args)) == ["OK", "NOT_FOUND"]
    assert stage.admin.keys("another:*") == [b"another:{0}:producer:" + str(args[0]).encode()]
    assert sorted(stage.admin.keys(f"{stage.space.prefix}:*")) == sorted(before)
