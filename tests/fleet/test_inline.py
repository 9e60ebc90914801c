"""fleet.run_inline: one execution of an agent, by a worker's rules and without one."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass
from typing import Any

import pytest
from pydantic import BaseModel

from murmur_streams import Fleet, RunContext
from murmur_streams.core.model.errors import (
    AgentNotRegisteredError,
    InvalidInputError,
    InvalidPayloadError,
    LeaseLostError,
    RunFailedError,
)
from murmur_streams.core.model.events import RunEventType
from murmur_streams.core.model.states import RunProgress, RunState
from murmur_streams.fleet.current import current_execution


class Question(BaseModel):
    text: str


@dataclass
class Answer:
    parts: tuple[str, ...]


fleet = Fleet("redis://127.0.0.1:1")
"""No server is there: whoever asked for one would fail."""


@fleet.agent
async def answers(question: Question, run: RunContext) -> Answer:
    await run.emit("asked", question.text)
    run.output("a piece")
    run.progress(total=1, completed=1)
    await run.checkpoint(question.text)
    assert run.cancelled is False
    return Answer(tuple(question.text.split()))


@fleet.agent
def in_a_thread(question: Question, run: RunContext) -> str:
    run.emit("asked", question.text)
    return threading.current_thread().name


@fleet.agent
async def breaks(run: RunContext) -> None:
    await run.log("now")
    raise ValueError("broken")


async def test_it_has_all_that_a_run_has() -> None:
    """Events, progress, checkpoint and output are those of a run that a worker executes."""
    done = await fleet.run_inline(answers, {"text": "why not"})
    assert done.output == Answer(("why", "not"))
    assert done.result.output == done.output
    assert (done.state, done.progress) == (
        RunState.COMPLETED,
        RunProgress(total=1, completed=1),
    )
    assert done.checkpoint == "why not"
    assert [(event.type, event.data) for event in done.events] == [
        (RunEventType.CUSTOM, "why not"),
        (RunEventType.AGENT_OUTPUT, "a piece"),
        (RunEventType.AGENT_COMPLETED, None),
    ]


async def test_a_plain_function_runs_in_a_thread() -> None:
    """A def agent does not block the event loop."""
    done = await fleet.run_inline("in_a_thread", Question(text="a"))
    assert done.output.startswith("run ")
    assert done.events[0].data == "a"


async def test_what_it_raises_is_its_result_with_the_exception_itself() -> None:
    """The original exception is the cause of the RunFailedError."""
    done = await fleet.run_inline(breaks)
    assert isinstance(done.result.error, ValueError)
    assert (done.state, done.progress, done.checkpoint) == (RunState.FAILED, None, None)
    assert done.events[-1].error == "ValueError: broken"
    with pytest.raises(RunFailedError, match="broken") as caught:
        _ = done.output
    assert caught.value.__cause__ is done.result.error
    assert caught.value.error_type == "ValueError"


async def test_an_input_that_does_not_fit_is_refused_before_anything() -> None:
    """So is an unknown agent."""
    with pytest.raises(InvalidInputError, match="text"):
        await fleet.run_inline(answers, {"words": 1})
    with pytest.raises(AgentNotRegisteredError):
        await fleet.run_inline("nobody")
    with pytest.raises(AgentNotRegisteredError):
        await Fleet().run_inline("nobody")


async def test_a_second_attempt_sees_the_firsts_checkpoint() -> None:
    """Attempt and checkpoint are given by the caller."""
    seen: list[Any] = []
    local = Fleet()

    @local.agent
    async def resumes(run: RunContext) -> None:
        seen.append((run.attempt, run.last_checkpoint))
        await run.checkpoint({"page": 8})
        seen.append(run.last_checkpoint)

    done = await local.run_inline(resumes, attempt=2, last_checkpoint={"page": 7})
    assert seen == [(2, {"page": 7}), {"page": 8}]
    assert done.checkpoint == {"page": 8}


async def test_what_no_run_could_store_fails_here_too() -> None:
    """An output that is not JSON, or an event that is too large."""
    local = Fleet()

    @local.agent
    async def no_json() -> Any:
        return object()

    @local.agent
    async def no_event(run: RunContext) -> None:
        run.emit("much", "x" * 300_000)

    for agent in (no_json, no_event):
        done = await local.run_inline(agent)
        assert isinstance(done.result.error, InvalidInputError)
        assert done.state is RunState.FAILED
    assert isinstance((await local.run_inline(no_json)).result.error, InvalidPayloadError)


async def test_an_output_of_another_type_fails_the_run() -> None:
    """An output that does not fit its declared type is the agent's failure, as on a worker."""
    local = Fleet()

    @local.agent
    async def lies() -> int:
        return "two"  # pyright: ignore[reportReturnType]

    ran = await local.run_inline(lies)
    assert ran.state is RunState.FAILED
    assert isinstance(ran.result.error, InvalidPayloadError)
    assert "the output of agent 'lies' does not fit" in str(ran.result.error)


async def test_a_context_that_outlives_its_run_writes_nothing_more() -> None:
    """Its next write raises LeaseLostError."""
    contexts: list[RunContext] = []
    local = Fleet()

    @local.agent
    async def leaks(run: RunContext) -> None:
        contexts.append(run)

    await local.run_inline(leaks)
    with pytest.raises(LeaseLostError):
        await contexts[0].emit("late")


async def test_an_agent_that_ends_the_interpreter_has_failed() -> None:
    """SystemExit and a self-made cancellation are failures of the run."""
    local = Fleet()

    @local.agent
    async def ends() -> None:
        raise SystemExit(3)

    @local.agent
    async def cancels_itself() -> None:
        raise asyncio.CancelledError

    for agent in (ends, cancels_itself):
        assert (await local.run_inline(agent)).state is RunState.FAILED


async def test_who_is_cancelled_while_the_agent_works_stops_waiting() -> None:
    """The caller gets CancelledError."""
    local, begun = Fleet(), asyncio.Event()

    @local.agent
    async def waits() -> None:
        begun.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(local.run_inline(waits))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_afterwards_the_caller_is_in_no_execution() -> None:
    """The caller's later log records and tasks do not count as a part of the run."""
    await fleet.run_inline(answers, Question(text="why"))
    assert current_execution() is None


def test_without_an_event_loop_it_is_the_same() -> None:
    """fleet.sync.run_inline returns the same outcome."""
    done = fleet.sync.run_inline(answers, Question(text="why"))
    assert done.output == Answer(("why",))
    assert fleet.sync.run_inline("breaks").state is RunState.FAILED
