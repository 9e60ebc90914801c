"""Submitted in one process, executed in another, followed from a third."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator

import pytest

from murmur_streams import Fleet
from murmur_streams.core.model.errors import (
    AgentNotRegisteredError,
    InvalidInputError,
    InvalidRunIdError,
    RunExistsError,
)
from murmur_streams.core.model.events import RunEventType
from murmur_streams.core.model.states import RunState
from murmur_streams.fleet import Agent
from tests.fleet import app
from tests.fleet.app import Job, Report
from tests.fleet.stage import Stage
from tests.servers import Space
from tests.warm import ROOT

FOLLOW = """
import asyncio, sys
from murmur_streams import Fleet

async def main():
    async with Fleet(sys.argv[1], key_prefix=sys.argv[2]) as fleet:
        handle = fleet.handle(sys.argv[3])
        async for event in handle.stream():
            print(event.type.value, event.data)
        print((await handle.output()).total)

asyncio.run(main())
"""


@pytest.fixture
async def typed(space: Space) -> AsyncIterator[Fleet]:
    """A fleet that knows the agents, as an application's own process does."""
    async with Fleet(space.url, key_prefix=space.prefix) as fleet:
        for agent in app.fleet.agents.values():
            fleet.agent(agent.function)
        yield fleet


async def test_a_run_goes_from_process_to_process(stage: Stage, typed: Fleet) -> None:
    """Submitted here, executed in a worker, streamed and read here."""
    worker = await stage.ready(stage.start())
    handle = await typed.submit(app.counts, Job(steps=3), metadata={"from": "a test"})
    events = [event async for event in handle.stream()]
    assert [(event.type, event.data) for event in events] == [
        (RunEventType.AGENT_STARTED, None),
        *((RunEventType.CUSTOM, step) for step in range(3)),
        (RunEventType.AGENT_COMPLETED, None),
    ]
    output = await handle.output(timeout=30)
    assert output == Report(total=3, pid=worker.pid)
    run = await handle.snapshot()
    assert (run.target, run.metadata, run.attempt) == ("counts", {"from": "a test"}, 1)
    result = await handle.result()
    assert (result.agent_name, result.task_id) == ("counts", handle.run_id)
    assert await stage.check([handle]) == [1]


async def test_any_process_may_follow_a_run_by_its_id(stage: Stage) -> None:
    """A third process needs only the server and the id."""
    gate = stage.gate()
    await stage.ready(stage.start())
    handle = await stage.fleet.submit("waits", {"gate": str(gate)})
    command = (sys.executable, "-W", "error", "-c", FOLLOW)
    follower = await asyncio.create_subprocess_exec(
        *command, stage.url, stage.prefix, handle.run_id, cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    assert follower.stdout is not None
    assert await follower.stdout.readline() == b"agent_started None\n"
    gate.touch()
    rest = await follower.stdout.read()
    assert rest == b"custom None\ncustom None\nagent_completed None\n1\n"
    assert await follower.wait() == 0


async def test_a_wait_that_is_over_leaves_the_run_alone(stage: Stage) -> None:
    """A timeout of result or output does not end the run."""
    gate = stage.gate()
    await stage.ready(stage.start())
    handle = await stage.fleet.submit("waits", {"gate": str(gate)})
    await stage.in_state(handle, RunState.RUNNING, attempt=1)
    for wait in (handle.result, handle.output):
        with pytest.raises(TimeoutError):
            await wait(timeout=0.05)
    assert (await handle.status()).state is RunState.RUNNING
    gate.touch()
    await handle.output(timeout=30)
    assert await stage.check([handle]) == [1]


async def test_a_fleet_without_agents_submits_to_any_name(stage: Stage) -> None:
    """Only a name outside the grammar is refused."""
    await stage.ready(stage.start())
    handle = await stage.fleet.submit("counts", {"steps": 2})
    output = await handle.output(timeout=30)
    assert output.total == 1
    with pytest.raises(InvalidInputError):
        await stage.fleet.submit("not a name")


@pytest.mark.parametrize(
    ("agent", "given", "run_id", "error"),
    [
        ("counts", {"steps": "many"}, None, InvalidInputError),
        ("counts", None, None, InvalidInputError),
        ("counts", Job(), "no/id", InvalidRunIdError),
        ("missing", None, None, AgentNotRegisteredError),
        (print, None, None, AgentNotRegisteredError),
    ],
)
async def test_a_refused_submission_writes_nothing(
    space: Space, typed: Fleet, agent: str, given: object, run_id: str, error: type[Exception]
) -> None:
    """A bad input, id or agent leaves the server as it was."""
    await typed.submit(app.counts, Job())
    before = space.dump_without_records()
    with pytest.raises(error):
        await typed.submit(agent, given, run_id=run_id)
    assert space.dump_without_records() == before


async def test_a_run_id_is_taken_once(typed: Fleet) -> None:
    """A second submission under the id raises RunExistsError."""
    await typed.submit(app.counts, Job(), run_id="mine")
    with pytest.raises(RunExistsError):
        await typed.submit(app.counts, Job(), run_id="mine")


async def test_many_runs_on_two_workers_all_end(stage: Stage) -> None:
    """Two hundred runs, twenty of which fill both workers."""
    for _ in range(2):
        await stage.ready(stage.start())
    gate = stage.gate()
    handles = [await stage.fleet.submit("waits", {"gate": str(gate)}) for _ in range(20)]
    for handle in handles:
        # One worker alone has room for ten.
        await stage.in_state(handle, RunState.RUNNING, attempt=1)
    handles += [await stage.fleet.submit("counts", {"steps": 2}) for _ in range(180)]
    gate.touch()
    pids = {(await handle.output(timeout=30)).pid for handle in handles}
    assert pids == {worker.pid for worker in stage.workers}
    assert await stage.check(handles) == [1] * 200


def test_an_agent_is_what_its_function_says(typed: Fleet) -> None:
    """It has the parameters, the kind and the docstring of its function."""
    agent = typed.agents["counts_blocking"]
    assert isinstance(agent, Agent)
    assert (agent.is_async, agent.input_name, agent.context_name) == (False, "job", "run")
    assert agent.doc == "The same in a thread."
