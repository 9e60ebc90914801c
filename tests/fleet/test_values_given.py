"""The value at the call is written, even if its owner changes it afterwards."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
from pydantic import JsonValue, ValidationError

from murmur_streams import Fleet, RunContext
from murmur_streams.core.model.errors import (
    InvalidEventError,
    InvalidInputError,
    InvalidPayloadError,
    LeaseLostError,
    PayloadTooLargeError,
)
from murmur_streams.core.model.events import RunEvent
from murmur_streams.core.model.limits import Limits
from tests.fleet.working import working
from tests.servers import Space

SEEN: list[list[int]] = [[0], [0, 1], [0, 1, 2]]


async def writes(run: RunContext) -> Any:
    """Writes a list that grows, in every way and without awaiting."""
    rows: list[Any] = []
    for number in range(3):
        rows.append(number)
        run.emit("rows", rows)
        run.output(rows)
        run.log("rows", rows=rows)
        run.checkpoint(rows)
    rows.append("after all")
    await asyncio.sleep(0)
    return None


def writes_in_thread(run: RunContext) -> Any:
    """The same in a thread."""
    rows: list[Any] = []
    for number in range(3):
        rows.append(number)
        run.emit("rows", rows)
        run.output(rows)
        run.log("rows", rows=rows)
        run.checkpoint(rows)
    rows.append("after all")
    assert run.last_checkpoint == SEEN[-1]


def check_written(events: list[RunEvent] | tuple[RunEvent, ...]) -> None:
    """Each list is there as it was at its call."""
    data = {
        kind: [each.data for each in events if each.type == kind]
        for kind in ("custom", "agent_output", "log")
    }
    assert data["custom"] == data["agent_output"] == SEEN
    assert data["log"] == [{"message": "rows", "rows": rows} for rows in SEEN]


@pytest.mark.parametrize("agent", [writes, writes_in_thread])
async def test_an_unawaited_write_keeps_the_value_of_its_call(fleet: Fleet, agent: Any) -> None:
    """A list that grows between writes is written as it was at each of them."""
    fleet.agent(agent)
    async with working(fleet):
        handle = await fleet.submit(agent)
        await handle.output(timeout=30)
        check_written([event async for event in handle.stream()])
    assert await (await fleet.store()).last_checkpoint(handle.run_id) == SEEN[-1]


@pytest.mark.parametrize("agent", [writes, writes_in_thread])
async def test_an_inline_run_keeps_the_values_of_its_calls(agent: Any) -> None:
    """Inline, the values are those of the calls too."""
    fleet = Fleet()
    fleet.agent(agent)
    done = await fleet.run_inline(agent)
    check_written(done.events)
    assert done.checkpoint == SEEN[-1]


async def test_the_last_checkpoint_is_a_new_value_each_time() -> None:
    """Neither the list that was given nor the one that was read changes what is read next."""
    fleet = Fleet()

    @fleet.agent
    async def keeps(run: RunContext) -> Any:
        first = cast("list[JsonValue]", run.last_checkpoint)
        first.append(1)
        assert run.last_checkpoint == [0]
        await run.checkpoint(first)
        first.append(2)
        assert run.last_checkpoint == [0, 1]
        cast("list[int]", run.last_checkpoint).append(3)
        return run.last_checkpoint

    done = await fleet.run_inline(keeps, last_checkpoint=[0])
    assert (done.output, done.checkpoint) == ([0, 1], [0, 1])


BAD: list[tuple[str, dict[str, Any], type[ValueError]]] = [
    ("emit", {"name": 5}, ValidationError),
    ("emit", {"name": "x", "data": object()}, InvalidEventError),
    ("emit", {"name": "a\udc80", "data": 1}, InvalidEventError),
    ("emit", {"name": "x", "data": "x" * 300_000}, PayloadTooLargeError),
    ("output", {"delta": {1: 2}}, InvalidEventError),
    ("log", {"message": "x", "field": float("nan")}, InvalidEventError),
    ("checkpoint", {"value": {"a": object()}}, InvalidPayloadError),
    ("checkpoint", {"value": "x" * (17 * 1024 * 1024)}, PayloadTooLargeError),
    ("progress", {"total": -1}, InvalidInputError),
]


@pytest.mark.parametrize(("method", "given", "error"), BAD, ids=range(len(BAD)))
async def test_a_bad_value_raises_at_the_call(
    method: str, given: dict[str, Any], error: type[ValueError]
) -> None:
    """A value that cannot be written raises where it is given, awaited or not."""
    fleet = Fleet()

    @fleet.agent
    async def gives(run: RunContext) -> str:
        try:
            getattr(run, method)(**given)
        except error:
            return "refused"
        return "taken"

    @fleet.agent
    def gives_in_thread(run: RunContext) -> str:
        try:
            getattr(run, method)(**given)
        except error:
            return "refused"
        return "taken"

    for agent in (gives, gives_in_thread):
        done = await fleet.run_inline(agent)
        assert done.output == "refused"
        assert [str(event.type) for event in done.events] == ["agent_completed"]


async def test_the_stores_own_limits_hold_at_the_call(space: Space) -> None:
    """A store with lower limits refuses at the call what is over them."""
    limits = Limits(max_event_bytes=500, max_result_bytes=500)
    async with Fleet(space.url, key_prefix=space.prefix, limits=limits) as fleet:

        @fleet.agent
        async def gives(run: RunContext) -> str:
            with pytest.raises(PayloadTooLargeError, match="over the limit of 500"):
                run.emit("x", "x" * 600)
            with pytest.raises(PayloadTooLargeError, match="over the limit of 500"):
                run.checkpoint("x" * 600)
            return "refused"

        async with working(fleet):
            assert await (await fleet.submit(gives)).output(timeout=30) == "refused"


@pytest.mark.parametrize("name", ["fine", "elsewhere"])
async def test_a_submission_takes_its_values_at_the_call(space: Space, name: str) -> None:
    """A value that changes while the store is opened is submitted as it was."""
    given: dict[str, Any] = {"rows": [0]}
    metadata: dict[str, Any] = {"tags": ["a"]}
    async with Fleet(space.url, key_prefix=space.prefix) as fleet:
        if name == "fine":

            @fleet.agent
            async def fine(value: Any) -> None: ...

        submitting = asyncio.create_task(fleet.submit(name, given, metadata=metadata))
        await asyncio.sleep(0)
        given["rows"].append(1)
        metadata["tags"].append("b")
        run = await (handle := await submitting).snapshot()
        assert run.metadata == {"tags": ["a"]}
        assert await (await fleet.store()).get_input(handle.run_id) == {"rows": [0]}


async def test_a_write_may_be_given_to_a_task_group() -> None:
    """A method returns a coroutine: asyncio's own functions take it, and see it fail."""
    fleet = Fleet()

    @fleet.agent
    async def groups(run: RunContext) -> str:
        async with asyncio.TaskGroup() as group:
            for number in range(3):
                group.create_task(run.emit("n", number))
        await asyncio.gather(run.log("a"), run.progress(total=1))
        await asyncio.wait_for(asyncio.create_task(run.checkpoint(1)), 30)
        run.emit("not awaited").close()
        return "done"

    @fleet.agent
    async def late(run: RunContext) -> str:
        run.end()
        with pytest.raises(LeaseLostError):
            await asyncio.create_task(run.emit("late"))
        return "refused"

    done = await fleet.run_inline(groups)
    kinds = [str(event.type) for event in done.events]
    assert (done.output, done.checkpoint) == ("done", 1)
    assert (kinds.count("custom"), kinds.count("log")) == (4, 1)
    assert (await fleet.run_inline(late)).output == "refused"
