"""One execution of one run: decode, call the agent, end the run."""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
import time

from murmur_streams.core.errors import (
    LeaseLostError,
    MurmurError,
    RemoteAgentError,
    RunNotFoundError,
    RunTerminatedError,
)
from murmur_streams.core.events import RunEvent, RunEventType
from murmur_streams.core.result_codec import error_message, error_type_name
from murmur_streams.core.results import AgentResult, ResultMetadata, RunResult
from murmur_streams.core.states import RunState
from murmur_streams.fleet.agents import Agent
from murmur_streams.fleet.context import RunContext, is_the_stores
from murmur_streams.fleet.worker.tasks import begin_run
from murmur_streams.fleet.worker.threads import call_in_thread
from murmur_streams.stores.redis.queue import Claim
from murmur_streams.stores.redis.store import RedisRunStore

logger = logging.getLogger("murmur_streams.worker")

BACKEND = "murmur-streams"


class Execution:
    """Executes a claimed run and ends it, unless the claim is lost first."""

    def __init__(self, store: RedisRunStore, agent: Agent, claim: Claim, worker: str) -> None:
        self.claim = claim
        self._store = store
        self._agent = agent
        self._worker = worker
        self._began = time.monotonic()
        self._is_ending = False
        self._cancelled_by_worker = False
        self._task: asyncio.Task[None] | None = None
        self._output: object = None
        self._error: BaseException | None = asyncio.CancelledError()
        """None once the agent has returned; a task may be cancelled before its first step."""

    @property
    def is_ending(self) -> bool:
        """True once its last write is under way: cancelling would only hide the outcome."""
        return self._is_ending

    def cancel(self) -> None:
        """Cancel the agent: whatever it makes of that, its run is not ended.

        An agent that has come to its end already is past that: its outcome stands.
        """
        if self._task is not None and self._task.done():
            return
        self._cancelled_by_worker = True
        if self._task is not None:
            self._task.cancel()

    async def run(self) -> None:
        """Execute to the end. Cancelled: the run is left as it is, for its holder to hand back."""
        loop = asyncio.get_running_loop()
        context = RunContext(self._store, self.claim, self._worker, loop)
        await self._execute(context)
        if self._error is None:
            try:
                await context.flush()
            except Exception as error:  # noqa: BLE001  # of a write that the agent left to us
                self._error = error
        if self._error is None:
            await self._end_completed(self._output)
        else:
            await self._fail(context, self._error)

    async def _execute(self, context: RunContext) -> None:
        # In a task of its own: an agent, and the timers it forgets, may cancel the task that
        # they run in, but must not cancel the writes that end the run.
        begin_run(self.claim.run_id)
        if not self._cancelled_by_worker:
            self._task = asyncio.create_task(self._work(context), name=f"run {self.claim.run_id}")
            try:
                await asyncio.wait([self._task])
            except asyncio.CancelledError:
                self.cancel()
                raise
        if self._cancelled_by_worker:
            # What a handler makes of its cancellation is no verdict on the run.
            raise asyncio.CancelledError

    async def _work(self, context: RunContext) -> None:
        try:
            self._output = await self._call(context)
        except BaseException as error:  # noqa: BLE001  # an agent may raise anything
            self._error = error
        else:
            self._error = None

    async def _call(self, context: RunContext) -> object:
        value = self._agent.decode_input(self.claim.input_json)
        arguments = self._agent.arguments(value, context)
        if self._agent.is_async:
            output = await self._agent.function(**arguments)
        else:
            call = functools.partial(self._agent.function, **arguments)
            output = await call_in_thread(f"run {self.claim.run_id}", call)
        if inspect.isawaitable(output):
            output = await output
        return self._agent.encode_output(output)

    async def _fail(self, context: RunContext, error: BaseException) -> None:
        if self._is_loss(error):
            logger.info("run %s is no longer ours: %s", self.claim.run_id, error)
        elif context.store_failed:
            # The run did not fail, the server did: when the lease has run out, it is done again.
            logger.warning("run %s is left to the next worker: %r", self.claim.run_id, error)
        else:
            logger.info("run %s failed: %s", self.claim.run_id, type(error).__name__)
            await context.settle()
            await self._end_failed(error)

    async def _end_completed(self, output: object) -> None:
        try:
            result = self._result(output, None)
            await self._end(RunState.COMPLETED, result, RunEventType.AGENT_COMPLETED, None)
        except Exception as error:  # noqa: BLE001  # an output's own code may raise anything
            if self._is_loss(error):
                logger.info("run %s is no longer ours: %s", self.claim.run_id, error)
            elif is_the_stores(error):
                # Were it ended, it stays so; were it not, its lease runs out and it is done again.
                logger.warning("run %s: %s", self.claim.run_id, error)
            else:
                # The result is too large, or no JSON: the run's failure, not the worker's.
                await self._end_failed(error)

    async def _end_failed(self, error: BaseException) -> None:
        told = _as_data(error)
        try:
            await self._end(
                RunState.FAILED, self._result(None, told), RunEventType.AGENT_FAILED, str(told)
            )
        except MurmurError as unwritten:
            logger.warning("run %s: its failure was not written: %s", self.claim.run_id, unwritten)

    async def _end(
        self, state: RunState, result: RunResult, event_type: RunEventType, error: str | None
    ) -> None:
        self._is_ending = True
        claim = self.claim
        event = RunEvent(
            type=event_type,
            run_id=claim.run_id,
            agent=claim.target,
            task_id=claim.run_id,
            error=error,
        )
        ended = await self._store.finish(
            claim.run_id, state, result=result, event=event, error=error, claim=claim.token
        )
        logger.debug("run %s %s (this call: %s)", claim.run_id, state, ended)

    def _result(self, output: object, error: BaseException | None) -> RunResult:
        duration_ms = round((time.monotonic() - self._began) * 1000)
        return AgentResult[object](
            output=output,
            error=error,
            metadata=ResultMetadata(duration_ms=duration_ms, backend=BACKEND),
            agent_name=self.claim.target,
            task_id=self.claim.run_id,
        )

    def _is_loss(self, error: BaseException) -> bool:
        # An agent may well look for other runs, and fail because one of those is gone.
        return (
            isinstance(error, (LeaseLostError, RunTerminatedError, RunNotFoundError))
            and error.run_id == self.claim.run_id
        )


def _as_data(error: BaseException) -> RemoteAgentError:
    """An exception of any make as text that every store takes."""
    try:
        message = error_message(error)
    except Exception:  # noqa: BLE001  # the exception's own __str__ failed
        message = "(its text cannot be read)"
    # A path that was read from the file system may hold what is not valid Unicode.
    return RemoteAgentError(
        error_type_name(error), message.encode("utf-8", "backslashreplace").decode()
    )
