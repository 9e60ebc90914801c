"""RunHandle: one submitted run, from any process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any, Generic, TypeVar, cast

from murmur_streams.core.cursors import Cursor
from murmur_streams.core.entries import EntryType
from murmur_streams.core.errors import (
    RemoteAgentError,
    RunCancelledError,
    RunFailedError,
    RunNotFoundError,
)
from murmur_streams.core.events import RunEvent
from murmur_streams.core.result_codec import error_message, error_type_name
from murmur_streams.core.results import AgentResult
from murmur_streams.core.run import Run
from murmur_streams.core.states import RunState, RunStatus
from murmur_streams.fleet.agents import Agent
from murmur_streams.fleet.stores import StoreOfLoop

T = TypeVar("T")


class RunHandle(Generic[T]):
    """Polls and streams one run. Holds nothing but its id: make as many as you like."""

    def __init__(self, run_id: str, stores: StoreOfLoop, agent: Agent | None) -> None:
        self.run_id = run_id
        self._stores = stores
        self._agent = agent

    def __repr__(self) -> str:
        return f"RunHandle({self.run_id!r})"

    async def status(self) -> RunStatus:
        """State and progress; RunNotFoundError when it was deleted or has expired."""
        return await (await self._stores.get()).get_status(self.run_id)

    async def snapshot(self) -> Run:
        """Everything that is known of the run."""
        return await (await self._stores.get()).snapshot(self.run_id)

    async def stream(self, *, after: str | None = None) -> AsyncGenerator[RunEvent]:
        """Replay the run's events, follow live, end when it has ended.

        Args:
            after: the ``.id`` of the last event seen; None for the start.
        """
        store = await self._stores.get()
        async for event in store.stream(self.run_id, after=after):
            yield event

    async def result(self, timeout: float | None = None) -> AgentResult[T]:
        """Wait for the end, then read the result: an output, or an error as data.

        Args:
            timeout: seconds; None waits as long as it takes. TimeoutError leaves the run alone.
        """
        async with asyncio.timeout(timeout):
            await self._ended()
        store = await self._stores.get()
        result = await store.get_result(self.run_id)
        if isinstance(result, AgentResult):
            return cast("AgentResult[T]", self._typed(result))
        run = await store.snapshot(self.run_id)
        error = (
            RunCancelledError(self.run_id, run.error)
            if run.state is RunState.CANCELLED
            else RemoteAgentError("RunFailed", run.error or "")
            if run.state is RunState.FAILED
            else None
        )
        return AgentResult[Any](error=error, agent_name=run.target, task_id=self.run_id)

    async def output(self, timeout: float | None = None) -> T:
        """Wait for the end and return the output.

        Raises:
            RunFailedError, RunCancelledError: that is how it ended.
            TimeoutError: not ended within ``timeout`` seconds; the run goes on.
        """
        result = await self.result(timeout)
        error = result.error
        if error is None:
            return cast("T", result.output)
        if isinstance(error, RunCancelledError):
            raise error
        raise RunFailedError(self.run_id, error_message(error), error_type_name(error))

    async def _ended(self) -> None:
        store = await self._stores.get()
        run = await store.snapshot(self.run_id)
        if run.state.is_terminal:
            return
        here = str(Cursor(run.epoch, run.last_ms, run.version))
        async for entry in store.journal(self.run_id, after=here, follow=True):
            if entry.type == EntryType.DELETED:
                raise RunNotFoundError(self.run_id)
            if entry.type == EntryType.STATE and RunState(entry.fields["state"]).is_terminal:
                return

    def _typed(self, result: AgentResult[Any]) -> AgentResult[Any]:
        if self._agent is None or result.error is not None:
            return result
        output = self._agent.decode_output(cast("object", result.output))
        return result.model_copy(update={"output": output})
