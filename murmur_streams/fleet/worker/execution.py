"""One execution of one run: decode, call the agent, end the run."""

from __future__ import annotations

import asyncio
import functools
import logging
import time

from murmur_streams.core.errors import (
    LeaseLostError,
    MurmurError,
    OutcomeUnknownError,
    RunNotFoundError,
    RunTerminatedError,
    StoreUnavailableError,
)
from murmur_streams.core.events import RunEvent, RunEventType
from murmur_streams.core.result_codec import error_message, error_type_name
from murmur_streams.core.results import AgentResult, ResultMetadata, RunResult
from murmur_streams.core.states import RunState
from murmur_streams.fleet.agents import Agent
from murmur_streams.fleet.context import RunContext
from murmur_streams.fleet.worker.threads import call_in_thread
from murmur_streams.stores.redis.queue import Claim
from murmur_streams.stores.redis.store import RedisRunStore

logger = logging.getLogger("murmur_streams.worker")

BACKEND = "murmur-streams"


class Execution:
    """Executes a claimed run and ends it, unless the claim is lost first."""

    def __init__(
        self, store: RedisRunStore, agent: Agent, claim: Claim, worker: str
    ) -> None:
        self.claim = claim
        self._store = store
        self._agent = agent
        self._worker = worker
        self._began = time.monotonic()

    async def run(self) -> None:
        """Execute to the end. Cancelled: the run is left as it is, for its holder to hand back."""
        try:
            output = await self._call()
        except (LeaseLostError, RunTerminatedError, RunNotFoundError) as error:
            self._give_up(error)
        except (Exception, SystemExit) as error:
            logger.info("run %s failed: %r", self.claim.run_id, error)
            await self._end_failed(error)
        else:
            await self._end_completed(output)

    async def _call(self) -> object:
        loop = asyncio.get_running_loop()
        context = RunContext(self._store, self.claim, self._worker, loop)
        value = self._agent.decode_input(self.claim.input_json)
        arguments = self._agent.arguments(value, context)
        if self._agent.is_async:
            output = await self._agent.function(**arguments)
        else:
            call = functools.partial(self._agent.function, **arguments)
            output = await call_in_thread(f"run {self.claim.run_id}", call)
        await context.flush()
        return self._agent.encode_output(output)

    async def _end_completed(self, output: object) -> None:
        result = self._result(output, None)
        try:
            await self._end(RunState.COMPLETED, result, RunEventType.AGENT_COMPLETED, None)
        except (LeaseLostError, RunTerminatedError, RunNotFoundError) as error:
            self._give_up(error)
        except (OutcomeUnknownError, StoreUnavailableError) as error:
            # Were it ended, it stays so; were it not, its lease runs out and it is done again.
            logger.warning("run %s: %s", self.claim.run_id, error)
        except MurmurError as error:
            # The result is too large, or no JSON: that is the run's failure, not the worker's.
            await self._end_failed(error)

    async def _end_failed(self, error: BaseException) -> None:
        message = f"{error_type_name(error)}: {error_message(error)}"
        try:
            result = self._result(None, error)
            await self._end(RunState.FAILED, result, RunEventType.AGENT_FAILED, message)
        except (LeaseLostError, RunTerminatedError, RunNotFoundError) as lost:
            self._give_up(lost)
        except MurmurError as unwritten:
            logger.warning("run %s: %s", self.claim.run_id, unwritten)

    async def _end(
        self, state: RunState, result: RunResult, event_type: RunEventType, error: str | None
    ) -> None:
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

    def _give_up(self, error: MurmurError) -> None:
        logger.info("run %s is no longer ours: %s", self.claim.run_id, error)
