"""What a handle reads of a run that ended in any way."""

from __future__ import annotations

import pytest

from murmur_streams import Fleet
from murmur_streams.core.errors import MurmurError, RemoteAgentError, RunCancelledError
from murmur_streams.core.results import AgentResult, GroupResult
from murmur_streams.core.states import RunState
from tests.fleet.working import working


async def test_the_result_of_a_group_is_no_silent_none(fleet: Fleet) -> None:
    handle = await fleet.submit("fine", 1)
    leaf = AgentResult[int](output=1, agent_name="leaf", task_id="t")
    store = await fleet.store()
    group = GroupResult(outputs={"leaf": leaf})
    await store.finish(handle.run_id, RunState.COMPLETED, result=group)
    for read in (handle.result, handle.output):
        with pytest.raises(MurmurError, match="result of a group"):
            await read(timeout=30)


async def test_a_cancelled_run_has_its_reason_as_error(fleet: Fleet) -> None:
    handle = await fleet.submit("fine", 1)
    await handle.cancel(reason="not needed")
    result = await handle.result(timeout=30)
    assert (result.output, result.agent_name, result.task_id) == (None, "fine", handle.run_id)
    assert isinstance(result.error, RunCancelledError)
    assert result.error.reason == "not needed"


async def test_a_run_that_failed_without_a_result_tells_why(fleet: Fleet) -> None:
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
    crew = Crew()
    fleet.agent(crew.greets)
    async with working(fleet):
        handle = await fleet.submit(crew.greets, "Ada")
        assert await handle.output(timeout=30) == "Hello Ada"
