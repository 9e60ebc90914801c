"""In a commit of many runs only the command that has a reason to fail fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from redis.exceptions import RedisError

from murmur_streams.core.model.commands import Append, Create, SetState
from murmur_streams.core.model.states import RunState
from murmur_streams.stores.redis.connection.failures import ScriptError, code_of
from tests.lua.sandbox import WAYS, Sandbox, caught_call
from tests.lua.scenarios import EVENT, OTHER, PAYLOAD, RUN, Stage
from tests.servers import Space
from tests.stores.redis.hand import calls_by_hand

every_way = pytest.mark.parametrize("way", WAYS)


@pytest.fixture
async def box(space: Space, way: str) -> AsyncIterator[Sandbox]:
    """Before a commit that creates two runs, appends to one, and starts it."""
    async with space.store(retry_seconds=0) as store:
        stage = Stage(space, store)
        await stage.submit()
        calls = calls_by_hand(stage.hand(), stage.short)
        script = await caught_call(
            stage,
            asyncio.gather(
                calls.execute("first", Create("work", "e", PAYLOAD)),
                calls.execute(OTHER, Create("play", "e", PAYLOAD)),
                calls.execute(RUN, Append((EVENT,))),
                calls.execute(RUN, SetState(RunState.RUNNING)),
            ),
        )
        found = Sandbox(space, script, way)
        yield found
        found.close()
    space.admin.flushall()


def codes(answers: list[str]) -> list[str]:
    """Of each answer its first word, or the code of its error."""
    errors = [ScriptError(each[6:]) for each in answers if each.startswith("ERROR ")]
    assert all(code_of(error) for error in errors)
    return [
        code_of(ScriptError(each[6:])) if each.startswith("ERROR ") else each.split(" ")[0]
        for each in answers
    ]


@every_way
def test_a_missing_right_refuses_the_commands_that_need_it(box: Sandbox) -> None:
    """Without ZADD no run is created or started; events are taken in the same call."""
    box.permit("-zadd")
    assert codes(box.send()) == ["OK", "NOPERM", "NOPERM", "OK", "NOPERM"]


@every_way
def test_an_index_of_a_wrong_type_refuses_its_own_target(box: Sandbox) -> None:
    """Runs of other targets are created in the same call."""
    box.space.admin.set(box.space.keys.index_target("play", 0), "x")
    assert codes(box.send()) == ["OK", "OK", "WRONGTYPE", "OK", "OK"]


@every_way
def test_a_damaged_run_refuses_its_own_commands(box: Sandbox) -> None:
    """Other runs are created in the same call."""
    box.space.admin.hset(box.space.keys.run(RUN), "version", "x")
    assert codes(box.send()) == ["OK", "OK", "OK", "DAMAGED", "DAMAGED"]


@every_way
@pytest.mark.parametrize("key", ["feed", "producer"])
def test_a_shared_key_of_a_wrong_type_refuses_the_call(box: Sandbox, key: str) -> None:
    """Every command needs the feed and the record: nothing at all is written."""
    keys = box.space.keys
    name = keys.feed(0) if key == "feed" else keys.producer(str(box.args[0]), 0)
    box.replace(name)
    before = box.dump()
    with pytest.raises(RedisError) as refused:
        box.send()
    assert code_of(refused.value) == "WRONGTYPE"
    assert box.dump() == before


@every_way
async def test_one_of_two_creates_of_an_id_in_a_call_makes_the_run(space: Space, way: str) -> None:
    """New ids are looked up together, before the first of the two has made the run."""
    async with space.store(retry_seconds=0) as store:
        stage = Stage(space, store)
        calls = calls_by_hand(stage.hand(), stage.short)
        creates = (
            calls.execute(run_id, Create("work", "e", PAYLOAD)) for run_id in (RUN, OTHER, RUN)
        )
        box = Sandbox(space, await caught_call(stage, asyncio.gather(*creates)), way)
    # The first command is of the helper that catches the call.
    assert codes(box.send())[1:] == ["OK", "OK", "EXISTS"]
    box.close()
    space.admin.flushall()
