"""One execution of one run: calls the agent, enforces its limits, and writes how it ended."""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
from enum import Enum, auto

from murmur_streams.core.model.work import Claim
from murmur_streams.core.rules.executions import DEADLINE_EXCEEDED, DEADLINE_TEXT
from murmur_streams.fleet.agents import Agent
from murmur_streams.fleet.context import RunContext
from murmur_streams.fleet.current import Awaited, CurrentExecution, enter_execution, enter_trace
from murmur_streams.fleet.execution.end_writes import ExecutionOutcome
from murmur_streams.fleet.execution.endings import Endings
from murmur_streams.fleet.execution.tasks import leave_behind, log_running_tasks
from murmur_streams.fleet.policy import NOT_RETRYABLE, Dead
from murmur_streams.stores.work_store import WorkStore
from murmur_streams.threads import call_in_thread

logger = logging.getLogger("murmur_streams.worker")

STOP_SECONDS = 1.0
"""How long a handler may take to end when its worker stops."""


class Verdict(Enum):
    """A reason from outside to stop an execution. How the handler itself ends is not a verdict."""

    CANCELLED = auto()
    TIMED_OUT = auto()
    DEADLINE = auto()
    HANDED_BACK = auto()
    LOST = auto()


class Execution:
    """Executes a claimed run and writes its end, unless the claim is lost first.

    The first verdict counts; only the loss of the claim overrules it. On a verdict the handler is
    cancelled and gets its grace time. When it has not ended by then, it is left behind: its writes
    are rejected, and neither the worker nor ``asyncio.run`` waits for it.
    """

    def __init__(
        self,
        store: WorkStore,
        agent: Agent,
        claim: Claim,
        worker: str,
        endings: Endings | None = None,
    ) -> None:
        loop = asyncio.get_running_loop()
        self.claim = claim
        self.agent = agent
        self._endings = endings or Endings(store, agent, claim)
        self._context = RunContext(store, claim, worker, loop)
        self._verdict: Verdict | None = None
        self._loop = loop
        self._woken: asyncio.Future[None] = loop.create_future()
        """Done when a verdict has arrived or the handler has ended, while ``run`` waits for it."""
        self._hurried: asyncio.Future[None] = loop.create_future()
        self._handler: asyncio.Task[None] | None = None
        self._in_thread = False
        self._is_ending = False
        self._input_is_wrong = False
        self._current = CurrentExecution(claim.run_id, claim.attempt)
        self._left_behind = False
        self._output: object = None
        self._error: BaseException | None = asyncio.CancelledError()
        """None once the agent has returned. Before that a CancelledError: a task that is cancelled
        before its first step never sets it."""

    @property
    def holds(self) -> bool:
        """Whether its claim needs heartbeats."""
        return self._verdict is not Verdict.LOST

    @property
    def awaited(self) -> list[Awaited]:
        """The runs that its handler waits for."""
        return list(self._current.awaited)

    @property
    def left_behind(self) -> asyncio.Task[None] | None:
        """The handler's task, when it did not end in its grace time and has not since."""
        return self._running() if self._left_behind else None

    def close(self) -> None:
        """Reject every further write of the agent's code."""
        self._context.end()

    def stop(self, verdict: Verdict) -> bool:
        """Cancel the handler. True when this verdict now counts."""
        if verdict is Verdict.CANCELLED:
            self._endings.cancel_requested = True
        is_over = self._is_ending or (self._handler is not None and self._handler.done())
        if is_over or self._verdict is not None:
            if verdict in {Verdict.LOST, Verdict.HANDED_BACK}:
                self._endings.hurry()
            if is_over:
                return False
            return self._stop_again(verdict)
        self._verdict = verdict
        self._context.cancel()
        if self._handler is not None and not self._in_thread:
            self._handler.cancel()
        self._wake()
        return True

    def _stop_again(self, verdict: Verdict) -> bool:
        if verdict is Verdict.LOST and self._verdict is not Verdict.LOST:
            self._verdict = verdict
            return True
        if verdict is Verdict.HANDED_BACK and not self._hurried.done():
            self._hurried.set_result(None)
        return False

    def start(self) -> asyncio.Task[ExecutionOutcome]:
        """Execute the run in tasks of its own; cancelled, the returned one writes nothing.

        The handler has a task of its own: an agent, or a timer that it has started, may cancel the
        task it runs in. In the task of ``_run`` that would cancel the write that ends the run, and
        the run would be executed again when its lease has run out.
        """
        name = f"run {self.claim.run_id}"
        if self._verdict is None:
            # Before ``_run``, whose first step then finds a handler that never waits at its end.
            self._handler = asyncio.create_task(self._work(), name=name)
        return asyncio.create_task(self._run(), name=name)

    async def _run(self) -> ExecutionOutcome:
        enter_execution(self._current)
        delivery = None
        try:
            await self._execute()
            if self._verdict is Verdict.CANCELLED:
                delivery = asyncio.create_task(self._endings.deliver_cancel())
            await self._grant_grace()
            if delivery is not None and (lost := await delivery) is not None:
                return lost
        except asyncio.CancelledError:
            if delivery is not None:
                delivery.cancel()
            self._leave()
            raise
        outcome = await self._conclude()
        log_running_tasks(self._current, self._context.unfinished)
        return outcome

    async def _execute(self) -> None:
        """Wait until the handler has ended, its time is over, or a verdict arrives."""
        if (handler := self._running()) is None or self._verdict is not None:
            return
        handler.add_done_callback(self._wake)
        seconds, verdict = self._limit()
        timer = None if seconds is None else self._loop.call_later(seconds, self._wake)
        try:
            await self._woken
        finally:
            if timer is not None:
                timer.cancel()
        if not handler.done() and self._verdict is None:
            self.stop(verdict)

    def _wake(self, _: object = None) -> None:
        if not self._woken.done():
            self._woken.set_result(None)

    def _limit(self) -> tuple[float | None, Verdict]:
        """How long the handler may take, and the verdict when it takes longer."""
        timeout, left = self.agent.policy.timeout, self._endings.deadline_left_seconds
        if left is None:
            return timeout, Verdict.TIMED_OUT
        if timeout is not None and timeout < left:
            return timeout, Verdict.TIMED_OUT
        return left, Verdict.DEADLINE

    async def _grant_grace(self) -> None:
        handler = self._running()
        if handler is None or self._verdict is None:
            return
        seconds = self.agent.policy.cancel_grace_seconds
        if self._verdict is Verdict.HANDED_BACK:
            seconds = min(seconds, STOP_SECONDS)
        if self._verdict is Verdict.LOST and self._in_thread:
            # Its writes are rejected, and a thread cannot be interrupted.
            seconds = 0.0
        await asyncio.wait(
            (handler, self._hurried), timeout=seconds, return_when=asyncio.FIRST_COMPLETED
        )
        if handler.done():
            return
        self._leave()
        if self.holds:
            logger.warning(
                "run %s: its handler was cancelled, did not end within its grace time, and is "
                "left behind",
                self.claim.run_id,
            )

    def _leave(self) -> None:
        """Stop waiting for the handler, if it has not ended."""
        self._context.end()
        if (handler := self._running()) is None:
            return
        self._left_behind = True
        # A second time: many handlers swallow one cancellation. A task that waits for the thread
        # of a ``def`` agent ends by this.
        handler.cancel()
        if not self._in_thread:
            leave_behind(handler)

    def _running(self) -> asyncio.Task[None] | None:
        """The handler's task; None before it has begun, and when it has ended."""
        return None if self._handler is None or self._handler.done() else self._handler

    async def _conclude(self) -> ExecutionOutcome:
        """Write the end."""
        if self._verdict is None and self._error is None:
            try:
                await self._context.flush()
            except Exception as error:  # noqa: BLE001  # of a write that the agent did not await
                self._error = error
        else:
            await self._context.settle()
        self._is_ending = True
        match self._verdict:
            case None:
                return await self._end_as_handled()
            case Verdict.LOST:
                return ExecutionOutcome.LOST
            case Verdict.CANCELLED:
                return await self._endings.cancel("grace" if self._left_behind else "handler")
            case Verdict.HANDED_BACK:
                return await self._endings.hand_back()
            case Verdict.TIMED_OUT:
                seconds = self.agent.policy.timeout or 0
                error = self._overtime(f"this attempt took longer than {seconds:g} s")
                return await self._endings.fail(error)
            case Verdict.DEADLINE:
                error = self._overtime(DEADLINE_TEXT)
                # A run past its deadline is not tried again, even if it has retries left.
                return await self._endings.fail(error, as_dead=Dead(DEADLINE_EXCEEDED))

    def _overtime(self, message: str) -> TimeoutError:
        error = TimeoutError(message)
        if self._handler is not None and self._handler.done():
            # The context and not the cause: it shows where the handler was when it was cancelled,
            # but what a handler raises after a verdict must not decide about retries.
            error.__context__ = self._error
        return error

    async def _end_as_handled(self) -> ExecutionOutcome:
        error = self._error
        if error is None:
            return await self._endings.complete(self._output)
        if self._context.claim_lost:
            return self._endings.without_end(ExecutionOutcome.LOST, error)
        if self._context.store_failed:
            # The server failed and not the run: it is executed again when its lease has run out.
            return self._endings.without_end(ExecutionOutcome.LEFT, error)
        # An input that does not fit the agent's type will not fit at the next attempt either.
        as_dead = Dead(NOT_RETRYABLE) if self._input_is_wrong else None
        return await self._endings.fail(error, as_dead=as_dead)

    async def _work(self) -> None:
        enter_execution(self._current)
        try:
            enter_trace(self.claim.trace)
            self._output = await self._call()
        except BaseException as error:  # noqa: BLE001  # an agent may raise anything
            self._error = error
        else:
            self._error = None

    async def _call(self) -> object:
        self._input_is_wrong = True
        value = self.agent.decode_input(self.claim.input_json)
        self._input_is_wrong = False
        arguments = self.agent.arguments(value, self._context)
        if self.agent.is_async:
            output = await self.agent.function(**arguments)
        else:
            output = await self._call_blocking(functools.partial(self.agent.function, **arguments))
        if inspect.isawaitable(output):
            output = await output
        # Here and not where the end is written: a type's serialiser is the user's code and may
        # raise anything, and a SystemExit in the task that writes the end would end the worker.
        return self.agent.encode_output(output)

    async def _call_blocking(self, call: functools.partial[object]) -> object:
        self._in_thread = True
        try:
            output = await call_in_thread(f"run {self.claim.run_id}", call)
        finally:
            self._in_thread = False
        if self._verdict is not None:
            if inspect.iscoroutine(output):
                output.close()
            raise asyncio.CancelledError
        return output
