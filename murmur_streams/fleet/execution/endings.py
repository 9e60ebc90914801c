"""How an execution's end is written: with its claim, so that one that is over writes nothing."""

from __future__ import annotations

import logging
import random
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from types import TracebackType

from murmur_streams.core.exception_text import as_data, traceback_of
from murmur_streams.core.model.errors import (
    MurmurError,
    RemoteAgentError,
)
from murmur_streams.core.model.events import RunEvent, RunEventType
from murmur_streams.core.model.results import AgentResult, ResultMetadata, RunResult
from murmur_streams.core.model.states import RunState
from murmur_streams.core.model.work import Claim
from murmur_streams.fleet.agents import Agent
from murmur_streams.fleet.execution.end_writes import (
    ExecutionOutcome,
    Repeater,
    outcome_without_end,
)
from murmur_streams.fleet.logs import loggable, loggable_error, loggable_traceback
from murmur_streams.fleet.policy import (
    DEADLINE_EXCEEDED,
    FAILED,
    Backoff,
    Dead,
    Retry,
    decide_failure,
)
from murmur_streams.stores.work_store import WorkStore

logger = logging.getLogger("murmur_streams.worker")

BACKEND = "murmur-streams"
WORKER_STOPPED = "worker_stopped"
_OUR_FRAMES = re.compile(r"/murmur_streams/(fleet/execution/\w+|threads)\.py$")
"""The frames between a worker and the agent that it calls."""


class Endings:
    """Writes the end of one execution; made as soon as its claim has come.

    While the server takes no writes, they are repeated, until the claim is over or ``hurry``.
    """

    def __init__(self, store: WorkStore, agent: Agent, claim: Claim) -> None:
        self._store = store
        self._agent = agent
        self._claim = claim
        self._began = time.monotonic()
        self._repeater = Repeater(f"run {claim.run_id}", store.recover)
        self.cancel_told = False
        """Whether the run's cancel was heard of: then the store may end it otherwise than asked."""

    @property
    def deadline_left_seconds(self) -> float | None:
        """How long until the run's deadline; None without one. No clock of this host is asked."""
        left = self._claim.deadline_left_seconds
        return None if left is None else max(0.0, left - (time.monotonic() - self._began))

    def hurry(self) -> None:
        """Repeat no writes any more: the claim is over, or the worker stops."""
        self._repeater.hurry()

    async def complete(self, output: object) -> ExecutionOutcome:
        """End the run with its output; an output that cannot be stored is its failure."""
        try:
            result = self._result(output, None)
            return await self._repeater.write(
                lambda: self._end(RunState.COMPLETED, result, RunEventType.AGENT_COMPLETED)
            )
        except Exception as error:  # noqa: BLE001  # an output that no store takes
            outcome = self._unwritten(error)
            failure = error
        return await self.fail(failure) if outcome is None else outcome

    async def fail(self, error: BaseException, *, verdict: Dead | None = None) -> ExecutionOutcome:
        """Queue the run again or end it, as the agent's policy says; ``verdict`` overrules it."""
        told = as_data(error, _first_frame_of_agent(error))
        decision = verdict or self._decide(error)
        self._log(told, decision)
        if isinstance(decision, Retry):
            return await self._try(lambda: self._retry(decision, told))
        result = self._result(None, told)
        return await self._try(
            lambda: self._end(
                RunState.FAILED,
                result,
                RunEventType.AGENT_FAILED,
                error=str(told),
                dead=decision.reason,
            ),
            # A store's limits may be lower than those of an error's text.
            lambda: self._end(
                RunState.FAILED,
                error=f"{told.type_name} (its text could not be stored)",
                dead=decision.reason,
            ),
        )

    def _decide(self, error: BaseException) -> Retry | Dead:
        decide = partial(
            decide_failure,
            error,
            failures=self._claim.failures,
            excused=self._claim.excused,
            left_seconds=self.deadline_left_seconds,
            draw=random.random,
        )
        policy = self._agent.policy
        try:
            return decide(policy)
        except BaseException as broken:  # noqa: BLE001  # a Backoff of the user's own may raise anything
            logger.error(  # noqa: TRY400  # its traceback may hold what no log file takes
                "run %s: its agent's backoff cannot be used, and the waits of Backoff() are: %s",
                self._claim.run_id, loggable_error(broken),
            )  # fmt: skip
            return decide(replace(policy, backoff=Backoff()))

    async def exceed_deadline(self, error: BaseException) -> ExecutionOutcome:
        """End the run, however many retries it has left."""
        return await self.fail(error, verdict=Dead(DEADLINE_EXCEEDED))

    async def deliver_cancel(self) -> ExecutionOutcome | None:
        """Write that the handler was told; None when that is written."""
        claim = self._claim
        try:
            await self._repeater.write(
                lambda: self._store.deliver_cancel(claim.run_id, claim.token)
            )
        except MurmurError as error:
            return self._unwritten(error)
        return None

    async def cancel(self, stopped: str) -> ExecutionOutcome:
        """End the run cancelled; ``stopped`` says what ended its execution."""
        return await self._try(lambda: self._end(RunState.CANCELLED, stopped=stopped))

    async def hand_back(self) -> ExecutionOutcome:
        """Put the run back into its queue, as this worker stops."""
        claim = self._claim

        async def release() -> ExecutionOutcome:
            state = await self._store.release(claim.run_id, claim.token, WORKER_STOPPED)
            return (
                ExecutionOutcome.CANCELLED
                if state is RunState.CANCELLED
                else ExecutionOutcome.HANDED_BACK
            )

        return await self._try(release)

    async def _retry(self, decision: Retry, told: RemoteAgentError) -> ExecutionOutcome:
        state = await self._store.release(
            self._claim.run_id,
            self._claim.token,
            decision.reason,
            delay_seconds=decision.delay_seconds,
            error=str(told),
        )
        return (
            ExecutionOutcome.CANCELLED if state is RunState.CANCELLED else ExecutionOutcome.RETRIED
        )

    async def _end(
        self,
        state: RunState,
        result: RunResult | None = None,
        event_type: RunEventType | None = None,
        *,
        error: str | None = None,
        dead: str | None = None,
        stopped: str | None = None,
    ) -> ExecutionOutcome:
        claim = self._claim
        event = None
        if event_type is not None:
            event = RunEvent(
                type=event_type,
                run_id=claim.run_id,
                agent=claim.target,
                task_id=claim.run_id,
                error=error,
            )
        await self._store.finish(
            claim.run_id,
            state,
            result=result,
            event=event,
            error=error,
            claim=claim.token,
            dead=dead,
            stopped=stopped,
        )
        ended = await self._ended(state)
        logger.debug("run %s %s", claim.run_id, ended)
        return ExecutionOutcome(ended)

    async def _ended(self, asked: RunState) -> RunState:
        """How the run has ended: a cancel that was requested before overrules what was asked."""
        if not self.cancel_told:
            return asked
        try:
            return (await self._store.get_status(self._claim.run_id)).state
        except MurmurError:
            return asked

    async def _try(
        self,
        write: Callable[[], Awaitable[ExecutionOutcome]],
        instead: Callable[[], Awaitable[ExecutionOutcome]] | None = None,
    ) -> ExecutionOutcome:
        """Write an end; ``instead`` is a smaller one, for when the first is refused."""
        try:
            return await self._repeater.write(write)
        except Exception as error:  # noqa: BLE001  # a run without an end would be executed again
            outcome = self._unwritten(error)
            if outcome is not None:
                return outcome
            logger.error(  # noqa: TRY400  # its traceback may hold what no log file takes
                "run %s: its end was not written: %s", self._claim.run_id, loggable_traceback(error)
            )
        return ExecutionOutcome.LEFT if instead is None else await self._try(instead)

    def log_loss(self, error: BaseException) -> None:
        """Log that the claim is over."""
        shown = loggable_error(error)
        logger.info("run %s is no longer ours: %s", self._claim.run_id, shown)

    def log_left(self, error: BaseException) -> None:
        """Log that the run is executed again when its lease has run out."""
        shown = loggable_error(error)
        logger.warning("run %s is left to the next worker: %s", self._claim.run_id, shown)

    def _unwritten(self, error: BaseException) -> ExecutionOutcome | None:
        """What the error of a write means for the execution; None: the run itself has failed."""
        outcome = outcome_without_end(error, self._claim.run_id)
        if outcome is ExecutionOutcome.LOST:
            self.log_loss(error)
        elif outcome is ExecutionOutcome.LEFT:
            self.log_left(error)
        return outcome

    def _result(self, output: object, error: BaseException | None) -> RunResult:
        duration_ms = round((time.monotonic() - self._began) * 1000)
        return AgentResult[object](
            output=output,
            error=error,
            metadata=ResultMetadata(duration_ms=duration_ms, backend=BACKEND),
            agent_name=self._claim.target,
            task_id=self._claim.run_id,
        )

    def _log(self, told: RemoteAgentError, decision: Retry | Dead) -> None:
        claim = self._claim
        # The traceback as text: an exception's own may hold what no log file takes.
        shown = loggable((told.traceback or str(told)).rstrip())
        if isinstance(decision, Dead):
            logger.error(
                "run %s failed (%s) at attempt %d: %s",
                claim.run_id, decision.reason, claim.attempt, shown,
            )  # fmt: skip
        elif decision.reason == FAILED:
            logger.warning(
                "run %s failed at attempt %d, and is tried again in %.1f s: %s",
                claim.run_id, claim.attempt, decision.delay_seconds, shown,
            )  # fmt: skip
        else:
            logger.info("run %s: %s", claim.run_id, loggable(str(told)))


def _first_frame_of_agent(error: BaseException) -> TracebackType | None:
    """Where an error's traceback leaves this package for the agent's own code."""
    first = traceback_of(error)
    while first is not None and _is_ours(first):
        first = first.tb_next
    return first


def _is_ours(frame: TracebackType) -> bool:
    file = frame.tb_frame.f_code.co_filename.replace("\\", "/")
    return _OUR_FRAMES.search(file) is not None
