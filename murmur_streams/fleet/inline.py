"""Executes an agent in the caller's process, without a server or a worker: for unit tests."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, Generic, TypedDict, TypeVar, cast

from pydantic import JsonValue

from murmur_streams.core.exception_text import error_message, error_type_name
from murmur_streams.core.json_values import encode_json
from murmur_streams.core.model.errors import RemoteAgentError, RunFailedError
from murmur_streams.core.model.events import RunEvent
from murmur_streams.core.model.results import AgentResult
from murmur_streams.core.model.states import RunProgress, RunState
from murmur_streams.core.model.work import Claim, TargetRule
from murmur_streams.fleet.agents import Agent
from murmur_streams.fleet.execution.end_writes import ExecutionOutcome
from murmur_streams.fleet.execution.endings import Endings
from murmur_streams.fleet.execution.execution import STOP_SECONDS, Execution
from murmur_streams.fleet.policy import NOT_RETRYABLE, Dead, Policy, Retry, check_count
from murmur_streams.stores.local.memory.store import InMemoryRunStore

WORKER = "inline"
_LEASE_SECONDS = 86_400.0
"""Longer than any test: no other worker has access to the store."""

T = TypeVar("T")


class InlineOptions(TypedDict, total=False):
    """The keywords of ``Fleet.run_inline``; see there."""

    attempt: int
    last_checkpoint: JsonValue


@dataclass(frozen=True, slots=True)
class InlineRun(Generic[T]):
    """The result of one execution of an agent, and everything that the agent wrote."""

    result: AgentResult[T]
    """Its output, or the exception that it raised."""
    events: tuple[RunEvent, ...]
    """The events that it wrote, in order, and the closing event, as a subscriber reads them."""
    state: RunState
    """``completed`` or ``failed``."""
    progress: RunProgress | None
    """The counters at the end; None when the agent set none."""
    checkpoint: JsonValue = None
    """The last checkpoint; None when there is none."""

    @property
    def output(self) -> T:
        """The agent's return value, as a handle reads it; RunFailedError when the agent raised.

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
    check_count("attempt", attempt, least=1)
    agent = replace(agent, policy=Policy())
    encoded = agent.encode_input(given)
    async with InMemoryRunStore() as store:
        claim = await _claimed(store, agent.name, encoded)
        checkpoint = None
        if last_checkpoint is not None:
            checkpoint = encode_json(last_checkpoint, "the checkpoint")
            await store.checkpoint(claim.run_id, last_checkpoint, claim.token)
        seen = replace(claim, attempt=attempt, checkpoint_json=checkpoint)
        endings = _InlineEndings(store, agent, seen)
        await _executed(Execution(store, agent, seen, WORKER, endings))
        return await _inline_run(store, agent, claim, endings.error)


async def _claimed(store: InMemoryRunStore, target: str, encoded: JsonValue) -> Claim:
    """Submit the run and claim it, as a worker does."""
    await store.submit(store.new_run_id(), target, input=encoded)
    queue = store.queue(_LEASE_SECONDS)
    (claim,) = (await queue.claim(WORKER, [TargetRule(target)], 1)).claims
    return claim


async def _executed(execution: Execution) -> None:
    try:
        # In a task of its own, so that what the caller does afterwards is not taken as a part of
        # this execution.
        await execution.start()
    except asyncio.CancelledError:
        # The caller is cancelled, and the agent with it: let the agent end first.
        if (handler := execution.left_behind) is not None:
            await asyncio.wait([handler], timeout=STOP_SECONDS)
        raise
    finally:
        execution.close()


class _InlineEndings(Endings):
    """Never tries again, and keeps the agent's own exception for the caller."""

    error: BaseException | None = None

    async def fail(self, error: BaseException, *, as_dead: Dead | None = None) -> ExecutionOutcome:
        del as_dead
        self.error = error
        return await super().fail(error, as_dead=Dead(NOT_RETRYABLE))

    def _log(self, failure: RemoteAgentError, decision: Retry | Dead) -> None:
        """Log nothing: the caller has the exception."""


async def _inline_run(
    store: InMemoryRunStore, agent: Agent, claim: Claim, error: BaseException | None
) -> InlineRun[Any]:
    run_id = claim.run_id
    async with aclosing(store.stream(run_id)) as stream:
        events = tuple([event async for event in stream if (event.seq or 0) > claim.version])
    status = await store.get_status(run_id)
    result = cast("AgentResult[Any]", await store.get_result(run_id))
    output = None if error is not None else agent.decode_output(cast("object", result.output))
    result = result.model_copy(update={"output": output, "error": error})
    checkpoint = await store.last_checkpoint(run_id)
    return InlineRun(result, events, status.state, status.progress, checkpoint)
