"""Writes the end of an execution with its claim's fencing token."""

from __future__ import annotations

import logging
import random
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Any

from murmur_streams.core.exception_text import as_data, traceback_of
from murmur_streams.core.model.errors import MurmurError, RemoteAgentError
from murmur_streams.core.model.events import RunEvent, RunEventType
from murmur_streams.core.model.results import AgentResult, ResultMetadata, RunResult
from murmur_streams.core.model.states import RunState
from murmur_streams.core.model.work import Claim
from murmur_streams.fleet.agents import Agent
from murmur_streams.fleet.execution.end_writes import (
    EndWriter,
    ExecutionOutcome,
    outcome_without_end,
)
from murmur_streams.fleet.logs import loggable, loggable_error, loggable_traceback
from murmur_streams.fleet.policy import FAILED, Backoff, Dead, Retry, decide_failure
from murmur_streams.stores.work_store import WorkStore

logger = logging.getLogger("murmur_streams.worker")

BACKEND = "murmur-streams"
_AnyResult = AgentResult[object]
WORKER_STOPPED = "worker_stopped"
_OUR_FRAMES = re.compile(r"/murmur_streams/(fleet/execution/\w+|threads)\.py$")
"""The frames between a worker and the agent that it calls."""


class Endings:
    """Writes the end of one execution; made as soon as its claim has arrived.

    Every write carries the claim's token. The lease may expire and another worker may claim the run
    while the handler works: without the token, both would end the run, and the slower one would
    replace the result of the other. With it, the store rejects the write of the claim that is over.

    While the server rejects all writes, they are repeated until the claim is over or ``hurry``.
    """

    def __init__(self, store: WorkStore, agent: Agent, claim: Claim) -> None:
        self._store = store
        self._agent = agent
        self._claim = claim
        self._began = time.monotonic()
        self._writer = EndWriter(f"run {claim.run_id}", store.recover)
        self.cancel_requested = False
        """Whether a cancel of the run has arrived: then the store may end it as cancelled although
        another end is written."""

    @property
    def deadline_left_seconds(self) -> float | None:
        """How long until the run's deadline; None without one. Needs no clock in step."""
        left = self._claim.deadline_left_seconds
        return None if left is None else max(0.0, left - (time.monotonic() - self._began))

    def hurry(self) -> None:
        """Stop repeating writes: the claim is over, or the worker stops."""
        self._writer.hurry()

    async def complete(self, output: object) -> ExecutionOutcome:
        """End the run with its output; with an output that cannot be stored the run has failed."""
        try:
            result = self._result(output, None)
            return await self._writer.write(
                lambda: self._end(RunState.COMPLETED, result, RunEventType.AGENT_COMPLETED)
            )
        except Exception as error:  # noqa: BLE001  # an output that no store accepts
            return self._unwritten(error) or await self.fail(error)

    async def fail(self, error: BaseException, *, as_dead: Dead | None = None) -> ExecutionOutcome:
        """Queue the run again or end it, by ``as_dead`` or else by the agent's policy."""
        failure = as_data(error, _first_frame_of_agent(error))
        decision = as_dead or self._decide(error)
        self._log(failure, decision)
        if isinstance(decision, Retry):
            return await self._release(
                ExecutionOutcome.RETRIED,
                decision.reason,
                delay_seconds=decision.delay_seconds,
                error=str(failure),
            )
        result = self._result(None, failure)
        end = partial(self._end, RunState.FAILED, dead=decision.reason)
        return await self._try(
            partial(end, result, RunEventType.AGENT_FAILED, error=str(failure)),
            # A store's limits may be lower than those of an error's text.
            partial(end, error=f"{failure.type_name} (its text could not be stored)"),
        )

    def _decide(self, error: BaseException) -> Retry | Dead:
        decide = partial(
            decide_failure,
            error,
            earlier_failures=self._claim.failures,
            excused=self._claim.excused,
            left_seconds=self.deadline_left_seconds,
            draw=random.random,
        )
        policy = self._agent.policy
        try:
            return decide(policy)
        except BaseException as broken:  # noqa: BLE001  # a Backoff of the user's own may raise anything
            logger.error(  # noqa: TRY400  # its traceback may hold text that no log file accepts
                "run %s: its agent's backoff cannot be used, and the waits of Backoff() are: %s",
                self._claim.run_id, loggable_error(broken),
            )  # fmt: skip
            return decide(replace(policy, backoff=Backoff()))

    async def deliver_cancel(self) -> ExecutionOutcome | None:
        """Record that the cancel was delivered to the handler; None once that is written."""
        claim = self._claim
        try:
            await self._writer.write(lambda: self._store.deliver_cancel(claim.run_id, claim.token))
        except MurmurError as error:
            return self._unwritten(error)
        return None

    async def cancel(self, stopped: str) -> ExecutionOutcome:
        """End the run as cancelled; ``stopped`` records how its execution was stopped."""
        return await self._try(lambda: self._end(RunState.CANCELLED, stopped=stopped))

    async def hand_back(self) -> ExecutionOutcome:
        """Put the run back into its queue, because this worker stops."""
        return await self._release(ExecutionOutcome.HANDED_BACK, WORKER_STOPPED)

    async def _release(
        self, outcome: ExecutionOutcome, reason: str, **details: Any
    ) -> ExecutionOutcome:
        """Make the run pending again.

        The store ends a run as cancelled instead when a cancel was requested in the meantime: it
        decides that in the same step, so no other worker can start the run in between.
        """
        claim = self._claim

        async def release() -> ExecutionOutcome:
            state = await self._store.release(claim.run_id, claim.token, reason, **details)
            return ExecutionOutcome.CANCELLED if state is RunState.CANCELLED else outcome

        return await self._try(release)

    async def _end(
        self,
        state: RunState,
        result: RunResult | None = None,
        event_type: RunEventType | None = None,
        **details: str | None,
    ) -> ExecutionOutcome:
        """End the run; ``details`` are the ``error``, ``dead`` and ``stopped`` of ``finish``."""
        run_id, agent, token = self._claim.run_id, self._claim.target, self._claim.token
        event = None
        if event_type is not None:
            error = details.get("error")
            event = RunEvent(
                type=event_type, run_id=run_id, agent=agent, task_id=run_id, error=error
            )
        await self._store.finish(run_id, state, result=result, event=event, claim=token, **details)
        ended = await self._ended(state)
        logger.debug("run %s %s", run_id, ended)
        return ExecutionOutcome(ended)

    async def _ended(self, asked: RunState) -> RunState:
        """The state that the run has ended in.

        A cancel may be recorded after the handler has returned and before its end is written. The
        store then ends the run as cancelled, whatever this execution writes: the caller of cancel
        was promised that. So the state is read back once a cancel has arrived.
        """
        if not self.cancel_requested:
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
        """Write an end; ``instead`` is a smaller one, for when the first is rejected."""
        try:
            return await self._writer.write(write)
        except Exception as error:  # noqa: BLE001  # a run without an end would be executed again
            outcome = self._unwritten(error)
            if outcome is not None:
                return outcome
            logger.error(  # noqa: TRY400  # its traceback may hold text that no log file accepts
                "run %s: its end was not written: %s", self._claim.run_id, loggable_traceback(error)
            )
        return ExecutionOutcome.LEFT if instead is None else await self._try(instead)

    def _unwritten(self, error: BaseException) -> ExecutionOutcome | None:
        """The outcome after a write has failed; None: the run itself has failed."""
        outcome = outcome_without_end(error, self._claim.run_id)
        return None if outcome is None else self.without_end(outcome, error)

    def without_end(self, outcome: ExecutionOutcome, error: BaseException) -> ExecutionOutcome:
        """Log why this execution writes no end; returns the outcome."""
        run_id, shown = self._claim.run_id, loggable_error(error)
        if outcome is ExecutionOutcome.LOST:
            logger.info("run %s: its claim is over: %s", run_id, shown)
        else:
            logger.warning("run %s is left to the next worker: %s", run_id, shown)
        return outcome

    def _result(self, output: object, error: BaseException | None) -> RunResult:
        duration_ms = round((time.monotonic() - self._began) * 1000)
        return _AnyResult(
            output=output,
            error=error,
            metadata=ResultMetadata(duration_ms=duration_ms, backend=BACKEND),
            agent_name=self._claim.target,
            task_id=self._claim.run_id,
        )

    def _log(self, failure: RemoteAgentError, decision: Retry | Dead) -> None:
        claim = self._claim
        # As text, because the traceback itself may hold characters that no log file accepts.
        shown = loggable((failure.traceback or str(failure)).rstrip())
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
            logger.info("run %s: %s", claim.run_id, loggable(str(failure)))


def _first_frame_of_agent(error: BaseException) -> TracebackType | None:
    """The first frame of an error's traceback that is the agent's own code."""
    first = traceback_of(error)
    while first and _OUR_FRAMES.search(first.tb_frame.f_code.co_filename.replace("\\", "/")):
        first = first.tb_next
    return first
