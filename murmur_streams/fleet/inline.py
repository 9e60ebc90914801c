"""Executes an agent in the caller's process, without a server or a worker: for unit tests."""

from __future__ import annotations

import asyncio
import functools
import inspect
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Generic, TypedDict, TypeVar, cast

from pydantic import JsonValue

from murmur_streams.core.exception_text import describe_error, error_message, error_type_name
from murmur_streams.core.json_values import decode_json, encode_json
from murmur_streams.core.model.errors import RunFailedError
from murmur_streams.core.model.events import RunEvent, RunEventType
from murmur_streams.core.model.limits import Limits
from murmur_streams.core.model.result_codec import decode_result, encode_result
from murmur_streams.core.model.results import AgentResult
from murmur_streams.core.model.states import RunProgress, RunState
from murmur_streams.core.model.work import Claim
from murmur_streams.fleet.agents import Agent
from murmur_streams.fleet.context import RunContext
from murmur_streams.fleet.policy import checked_count
from murmur_streams.stores.local.memory.store import InMemoryRunStore
from murmur_streams.threads import call_in_thread

WORKER = "inline"

T = TypeVar("T")


class InlineOptions(TypedDict, total=False):
    """The keywords of ``Fleet.run_inline``; see there."""

    attempt: int
    last_checkpoint: JsonValue


@dataclass(frozen=True, slots=True)
class InlineRun(Generic[T]):
    """What an agent did in one execution."""

    result: AgentResult[T]
    """Its output, or the exception that it raised."""
    events: tuple[RunEvent, ...]
    """What it told, in order, and the closing event, as a subscriber would have read them."""
    state: RunState
    """``completed`` or ``failed``."""
    progress: RunProgress | None
    """The counters at the end; None when it told none."""
    checkpoint: JsonValue = None
    """The last checkpoint; None when there is none."""

    @property
    def output(self) -> T:
        """What the agent returned, as a handle reads it; RunFailedError when it raised.

        The agent's own exception is the error's ``__cause__``.
        """
        error = self.result.error
        if error is None:
            return cast("T", self.result.output)
        raise RunFailedError(
            self.result.task_id, error_message(error), error_type_name(error)
        ) from error


async def run_inline(
    agent: Agent, given: object, *, attempt: int = 1, last_checkpoint: JsonValue = None
) -> InlineRun[Any]:
    """Execute an agent once; arguments and errors as ``Fleet.run_inline``."""
    checked_count("attempt", attempt, least=1)
    encoded = agent.encode_input(given)
    async with _InlineStore() as store:
        run_id = store.new_run_id()
        await store.create(run_id, agent.name, input=encoded)
        await store.set_state(run_id, RunState.RUNNING)
        if last_checkpoint is not None:
            await store.checkpoint(run_id, last_checkpoint)
        claim = Claim(
            run_id=run_id,
            target=agent.name,
            attempt=attempt,
            token="",
            version=2,
            input_json=None if encoded is None else encode_json(encoded, "the input"),
            checkpoint_json=store.checkpoint_json,
        )
        context = RunContext(cast("Any", store), claim, WORKER, asyncio.get_running_loop())
        result = await _executed(agent, claim, context)
        await _end(store, result)
        return await _told(store, _as_read(agent, result))


def _as_read(agent: Agent, result: AgentResult[Any]) -> AgentResult[Any]:
    """A result as a handle reads it: the output through its JSON, and as the declared type."""
    if result.error is not None:
        return result
    stored = _as_stored(agent, result.task_id, result.output)
    return result.model_copy(update={"output": agent.decode_output(cast("object", stored.output))})


class _InlineStore(InMemoryRunStore):
    """The runs' own rules, for one run that no worker can take over: its claim needs no proof."""

    checkpoint_json: str | None = None

    @property
    def limits(self) -> Limits:
        """The sizes that it takes."""
        return self._limits

    async def append(
        self,
        run_id: str,
        *events: RunEvent,
        expected_version: int | None = None,
        claim: str | None = None,
    ) -> int:
        del claim
        return await super().append(run_id, *events, expected_version=expected_version)

    async def update_progress(
        self, run_id: str, progress: RunProgress, *, claim: str | None = None
    ) -> None:
        del claim
        await super().update_progress(run_id, progress)

    async def checkpoint(self, run_id: str, value: JsonValue, claim: str | None = None) -> None:
        """Keep a value, checked as every store does it."""
        del run_id, claim
        text = encode_json(value, "the checkpoint")
        self.checkpoint_json = self._limits.checkpoint(text).text


async def _executed(agent: Agent, claim: Claim, context: RunContext) -> AgentResult[Any]:
    task = asyncio.current_task()
    output: object = None
    failure: BaseException | None = None
    try:
        output = await _call(agent, claim, context)
        await context.flush()
        _as_stored(agent, claim.run_id, output)
    except BaseException as error:  # an agent may raise anything
        # So does Ctrl-C end the caller: asyncio cancels the task that it runs first of all.
        if _is_ended_from_outside(task):
            raise
        failure = error
    context.end()
    await context.settle()
    return AgentResult[Any](
        output=output if failure is None else None,
        error=failure,
        agent_name=agent.name,
        task_id=claim.run_id,
    )


async def _call(agent: Agent, claim: Claim, context: RunContext) -> object:
    arguments = agent.arguments(agent.decode_input(claim.input_json), context)
    if agent.is_async:
        output = await agent.function(**arguments)
    else:
        call = functools.partial(agent.function, **arguments)
        output = await call_in_thread(f"run {claim.run_id}", call)
    if inspect.isawaitable(output):
        output = await output
    return agent.encode_output(output)


def _as_stored(agent: Agent, run_id: str, output: object) -> AgentResult[Any]:
    """A result as it comes back from a store; InvalidInputError when none would take it."""
    result = AgentResult[Any](output=output, agent_name=agent.name, task_id=run_id)
    text = Limits().result(encode_result(result)).text
    return cast("AgentResult[Any]", decode_result(text))


def _is_ended_from_outside(task: asyncio.Task[Any] | None) -> bool:
    """Whether a BaseException in this task's code cancels or closes the task.

    Otherwise the agent has raised it.
    """
    try:
        running = asyncio.current_task()
    except RuntimeError:
        # No loop runs: the task's coroutine is being closed.
        return True
    return task is None or task is not running or task.cancelling() > 0


async def _end(store: InMemoryRunStore, result: AgentResult[Any]) -> None:
    error = None if result.error is None else describe_error(result.error)
    event = RunEvent(
        type=RunEventType.AGENT_FAILED if error else RunEventType.AGENT_COMPLETED,
        run_id=result.task_id,
        agent=result.agent_name,
        task_id=result.task_id,
        error=error,
    )
    state = RunState.FAILED if error else RunState.COMPLETED
    await store.finish(result.task_id, state, result=result, event=event, error=error)


async def _told(store: _InlineStore, result: AgentResult[Any]) -> InlineRun[Any]:
    run_id = result.task_id
    async with aclosing(store.stream(run_id)) as stream:
        events = tuple([event async for event in stream])
    status = await store.get_status(run_id)
    kept = None if store.checkpoint_json is None else decode_json(store.checkpoint_json)
    return InlineRun(result, events, status.state, status.progress, kept)
