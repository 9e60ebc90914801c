"""A handle reads the end of a run, in each way that it may end."""

from __future__ import annotations

import asyncio

import pytest

from murmur_streams import Fleet
from murmur_streams.core.model.errors import MurmurError, RemoteAgentError, RunCancelledError
from murmur_streams.core.model.results import AgentResult, GroupResult
from murmur_streams.core.model.states import RunState
from tests.fleet.stage import wait_until
from tests.fleet.working import working


async def test_the_result_of_a_group_is_no_silent_none(fleet: Fleet) -> None:
    """A handle raises an error with advice instead."""
    handle = await fleet.submit("fine", 1)
    leaf = AgentResult[int](output=1, agent_name="leaf", task_id="t")
    store = await fleet.store()
    group = GroupResult(outputs={"leaf": leaf})
    await store.finish(handle.run_id, RunState.COMPLETED, result=group)
    for read in (handle.result, handle.output):
        with pytest.raises(MurmurError, match="result of a group"):
            await read(timeout=30)


async def test_a_cancelled_run_has_its_reason_as_error(fleet: Fleet) -> None:
    """The result holds a RunCancelledError."""
    handle = await fleet.submit("fine", 1)
    await handle.cancel(reason="not needed")
    result = await handle.result(timeout=30)
    assert (result.output, result.agent_name, result.task_id) == (None, "fine", handle.run_id)
    assert isinstance(result.error, RunCancelledError)
    assert result.error.reason == "not needed"


async def test_a_run_that_failed_without_a_result_has_a_reason(fleet: Fleet) -> None:
    """The error text of the run becomes a RemoteAgentError."""
    handle = await fleet.submit("fine", 1)
    await (await fleet.store()).finish(handle.run_id, RunState.FAILED, error="the disk is gone")
    result = await handle.result(timeout=30)
    assert isinstance(result.error, RemoteAgentError)
    assert result.error.message == "the disk is gone"


class Crew:
    """An object whose method is an agent."""

    async def greets(self, name: str) -> str:
        return f"Hello {name}"


async def test_a_bound_method_is_submitted_as_it_was_registered(fleet: Fleet) -> None:
    """The method of an object finds its agent."""
    crew = Crew()
    fleet.agent(crew.greets)
    async with working(fleet):
        handle = await fleet.submit(crew.greets, "Ada")
        assert await handle.output(timeout=30) == "Hello Ada"


@pytest.mark.parametrize(
    ("seen", "text"),
    [
        ([RunState.PENDING], "is still pending after 0.01 s"),
        ([RunState.PENDING, RunState.RUNNING], "is still running after 0.01 s"),
        ([], "could not be asked for its state after 0.01 s"),
    ],
)
async def test_a_wait_that_was_too_short_names_the_last_state(
    monkeypatch: pytest.MonkeyPatch, seen: list[RunState], text: str
) -> None:
    """The TimeoutError has the last state that arrived, if any."""
    handle = Fleet("redis://127.0.0.1:1").handle("r-1")

    async def ends_never(found: list[RunState]) -> None:
        found += seen
        await asyncio.Event().wait()

    monkeypatch.setattr(handle, "_ended", ends_never)
    for read in (handle.result, handle.output):
        with pytest.raises(TimeoutError, match=f"^run 'r-1' {text}$"):
            await read(timeout=0.01)


async def test_what_is_heard_while_waiting_is_the_state(fleet: Fleet) -> None:
    """Each change of state is noted while the handle waits for the end."""
    handle, store, seen = await fleet.submit("fine", 1), await fleet.store(), list[RunState]()
    waiting = asyncio.create_task(handle._ended(seen))
    for state in (RunState.RUNNING, RunState.PENDING, RunState.RUNNING):
        await wait_until(lambda: said(bool(seen)), "it has looked")
        await store.set_state(handle.run_id, state)
        await wait_until(lambda s=state: said(seen == [s]), f"it has heard of {state}")
    await store.finish(handle.run_id, RunState.FAILED)
    await waiting
    assert seen == [RunState.FAILED]


async def said(answer: bool) -> bool:
    return answer
