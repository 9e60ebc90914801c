"""How an execution's end is written: with its claim, so that one that is over writes nothing."""

from __future__ import annotations

import logging
import random
import time
import traceback
from collections.abc import Awaitable, Callable
from enum import StrEnum
from types import TracebackType

from murmur_streams.core.errors import (
    DeadLetterNotFoundError,
    LeaseLostError,
    MurmurError,
    RemoteAgentError,
    RunDamagedError,
    RunNotFoundError,
    RunTerminatedError,
    StoreError,
)
from murmur_streams.core.events import RunEvent, RunEventType
from murmur_streams.core.result_codec import MAX_TRACEBACK_BYTES, error_message, error_type_name
from murmur_streams.core.results import AgentResult, ResultMetadata, RunResult
from murmur_streams.core.states import RunState
from murmur_streams.core.work import Claim
from murmur_streams.fleet.agents import Agent
from murmur_streams.fleet.logs import loggable
from murmur_streams.fleet.policy import DEADLINE_EXCEEDED, FAILED, Dead, Retry, decide_failure
from murmur_streams.fleet.worker.repeating import Repeater
from murmur_streams.stores.work_store import WorkStore

logger = logging.getLogger("murmur_streams.worker")

BACKEND = "murmur-streams"
WORKER_STOPPED = "worker_stopped"
_OUR_FILES = ("execution.py", "endings.py", "repeating.py", "threads.py", "tasks.py")


class Outcome(StrEnum):
    """What an execution came to."""

    COMPLETED = "completed"
    FAILED = "failed"
    RETRIED = "retried"
    CANCELLED = "cancelled"
    HANDED_BACK = "handed_back"
    LOST = "lost"
    """Another worker has the run, or it is gone: nothing was written."""
    LEFT = "left"
    """The store failed: the run is done again when its lease has run out."""


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

    async def complete(self, output: object) -> Outcome:
        """End the run with its output; an output that cannot be stored is its failure."""
        try:
            result = self._result(output, None)
            return await self._repeater.write(
                lambda: self._end(RunState.COMPLETED, result, RunEventType.AGENT_COMPLETED)
            )
        except Exception as error:  # noqa: BLE001  # an output's own code may raise anything
            outcome = self._unwritten(error)
            return await self.fail(error) if outcome is None else outcome

    async def fail(self, error: BaseException, *, verdict: Dead | None = None) -> Outcome:
        """Queue the run again or end it, as the agent's policy says; ``verdict`` overrules it."""
        told = as_data(error)
        decision = verdict or decide_failure(
            error,
            self._agent.policy,
            failures=self._claim.failures,
            excused=self._claim.excused,
            left_seconds=self.deadline_left_seconds,
            draw=random.random,
        )
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
            )
        )

    async def exceed_deadline(self, error: BaseException) -> Outcome:
        """End the run, however many retries it has left."""
        return await self.fail(error, verdict=Dead(DEADLINE_EXCEEDED))

    async def deliver_cancel(self) -> Outcome | None:
        """Write that the handler was told; None when that is written."""
        claim = self._claim
        try:
            await self._repeater.write(
                lambda: self._store.deliver_cancel(claim.run_id, claim.token)
            )
        except MurmurError as error:
            return self._unwritten(error)
        return None

    async def cancel(self, stopped: str) -> Outcome:
        """End the run cancelled; ``stopped`` says what ended its execution."""
        return await self._try(lambda: self._end(RunState.CANCELLED, stopped=stopped))

    async def hand_back(self) -> Outcome:
        """Put the run back into its queue, as this worker stops."""
        claim = self._claim

        async def release() -> Outcome:
            state = await self._store.release(claim.run_id, claim.token, WORKER_STOPPED)
            return Outcome.CANCELLED if state is RunState.CANCELLED else Outcome.HANDED_BACK

        return await self._try(release)

    async def _retry(self, decision: Retry, told: RemoteAgentError) -> Outcome:
        state = await self._store.release(
            self._claim.run_id,
            self._claim.token,
            decision.reason,
            delay_seconds=decision.delay_seconds,
            error=str(told),
        )
        return Outcome.CANCELLED if state is RunState.CANCELLED else Outcome.RETRIED

    async def _end(
        self,
        state: RunState,
        result: RunResult | None = None,
        event_type: RunEventType | None = None,
        *,
        error: str | None = None,
        dead: str | None = None,
        stopped: str | None = None,
    ) -> Outcome:
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
        return Outcome(ended)

    async def _ended(self, asked: RunState) -> RunState:
        """How the run has ended: a cancel that was requested before overrules what was asked."""
        if not self.cancel_told:
            return asked
        try:
            return (await self._store.get_status(self._claim.run_id)).state
        except MurmurError:
            return asked

    async def _try(self, write: Callable[[], Awaitable[Outcome]]) -> Outcome:
        try:
            return await self._repeater.write(write)
        except MurmurError as error:
            outcome = self._unwritten(error)
            if outcome is None:
                logger.exception("run %s: its end was not written", self._claim.run_id)
            return outcome or Outcome.LEFT

    def _unwritten(self, error: BaseException) -> Outcome | None:
        """What an error of a write means for the execution; None when it is the run's own."""
        if self.is_loss(error):
            logger.info("run %s is no longer ours: %s", self._claim.run_id, error)
            return Outcome.LOST
        if isinstance(error, StoreError) and not isinstance(error, RunDamagedError):
            # Were it written, it stays so; were it not, the lease runs out and it is done again.
            logger.warning("run %s is left to the next worker: %s", self._claim.run_id, error)
            return Outcome.LEFT
        return None

    def is_loss(self, error: BaseException) -> bool:
        """Whether an error says that the claim is over."""
        # An agent may well look for other runs, and fail because one of those is gone.
        return (
            isinstance(error, (LeaseLostError, RunTerminatedError, RunNotFoundError))
            and not isinstance(error, DeadLetterNotFoundError)
            and error.run_id == self._claim.run_id
        )

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


def as_data(error: BaseException) -> RemoteAgentError:
    """An exception of any make as text that every store takes."""
    if isinstance(error, RemoteAgentError):
        return error
    try:
        message = error_message(error)
    except Exception:  # noqa: BLE001  # the exception's own __str__ failed
        message = "(its text cannot be read)"
    # A path that was read from the file system may hold what is not valid Unicode.
    message = message.encode("utf-8", "backslashreplace").decode()
    return RemoteAgentError(error_type_name(error), message, _traceback(error))


def _traceback(error: BaseException) -> str:
    """The end of the traceback, from the agent's own code on."""
    first: TracebackType | None = error.__traceback__
    while first is not None and _is_ours(first):
        first = first.tb_next
    lines = traceback.format_exception(type(error), error, first)
    text = "".join(lines).encode("utf-8", "backslashreplace")
    return text[-MAX_TRACEBACK_BYTES:].decode("utf-8", "ignore")


def _is_ours(frame: TracebackType) -> bool:
    name = frame.tb_frame.f_code.co_filename.replace("\\", "/")
    return name.endswith(tuple(f"murmur_streams/fleet/worker/{file}" for file in _OUR_FILES))
