"""RunHandle: one submitted run, from any process. DeadRuns: those that have failed finally."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

from murmur_streams.core.exception_text import error_message, error_traceback, error_type_name
from murmur_streams.core.model import errors
from murmur_streams.core.model.events import RunEvent, RunEventType
from murmur_streams.core.model.limits import check_seconds
from murmur_streams.core.model.results import AgentResult, GroupResult, RunResult
from murmur_streams.core.model.run import Run
from murmur_streams.core.model.states import RunState, RunStatus
from murmur_streams.core.rules import evolve
from murmur_streams.core.rules.evolve import Cancellation
from murmur_streams.core.rules.requests import DeadLetter, DeadLetterPage
from murmur_streams.fleet.agents import Agent
from murmur_streams.fleet.current import Awaited, awaiting, current_execution
from murmur_streams.fleet.stores import StoreOfLoop, UnservedTargets
from murmur_streams.stores.dead_letters import DeadLetterBox
from murmur_streams.stores.work_store import WorkStore

T = TypeVar("T")


@dataclass(eq=False, repr=False)
class RunHandle(Generic[T]):
    """Polls, streams and cancels one run. It holds nothing but the run's id."""

    run_id: str
    _stores: StoreOfLoop
    _agent: Agent | None
    _look: asyncio.Task[str | None] | None = None

    def __repr__(self) -> str:
        return f"RunHandle({self.run_id!r})"

    async def unserved(self, within_seconds: float) -> str | None:
        """A warning when no live worker serves the run's target; None when one does.

        Args:
            within_seconds: how long to wait for the check for workers, which the submission has
                begun; None when it takes longer.
        """
        if self._look is None:
            return None
        done, _ = await asyncio.wait([self._look], timeout=within_seconds)
        return self._look.result() if done and not self._look.cancelled() else None

    async def status(self) -> RunStatus:
        """State and progress; RunNotFoundError when it was deleted or has expired."""
        return await (await self._stores.get()).get_status(self.run_id)

    async def snapshot(self) -> Run:
        """Everything that the store knows about the run."""
        return await (await self._stores.get()).snapshot(self.run_id)

    async def stream(self, *, after: str | None = None) -> AsyncGenerator[RunEvent]:
        """Replay the run's events, follow live, end when it has ended.

        Args:
            after: the ``.id`` of the last event seen; None for the start.
        """
        store = await self._stores.get()
        target, state = "", RunState.PENDING
        if current_execution() is not None:
            run = await store.snapshot(self.run_id)
            target, state = run.target, run.state
        awaited = Awaited(self.run_id, target, state)
        async with aclosing(store.stream(self.run_id, after=after)) as events:
            while True:
                with awaiting(awaited):
                    event = await anext(events, None)
                if event is None:
                    return
                if event.type is RunEventType.AGENT_STARTED:
                    awaited.state = RunState.RUNNING
                yield event

    async def cancel(
        self, *, reason: str | None = None, wait: float | bool | None = False
    ) -> Cancellation:
        """Request that the run ends as cancelled, and return how far that has come.

        A pending run ends at once and never starts. For a running one, its worker cancels the
        handler within milliseconds, gives it the agent's grace time, and then ends the run even if
        the handler goes on. After the request the run cannot end in any other way. A run that has
        ended stays as it is. A second request changes nothing.

        Args:
            reason: a line for people, stored with the run.
            wait: False and None return at once; True waits until the run has ended; a number waits
                that many seconds at most. Nothing is raised when the run has not ended by then.

        Raises:
            RunNotFoundError: the run does not exist.
            InvalidInputError: the reason is not text, or ``wait`` is not a length of time.
        """
        if reason is not None and not isinstance(cast("object", reason), str):
            raise errors.InvalidInputError(f"reason is {reason!r}, but must be text")
        wait = False if wait is None else wait
        if not isinstance(wait, bool):
            check_seconds("wait", wait, least=0)
        store = await self._stores.get()
        run = await store.snapshot(self.run_id)
        if run.state.is_terminal:
            return await self._cancellation(store, evolve.recorded_cancellation(run), None)
        # The cursor is taken before the request: the request's own entry and all that follow it are
        # read from there. Taken after the request, it could already be behind the entry that ends
        # the run, and the caller would never learn when and how the cancel took effect.
        before = run.cursor
        state = await store.request_cancel(self.run_id, reason=reason)
        if not state.is_terminal and wait is not False:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if wait is True else wait):
                    await self._ended([])
        return await self._cancellation(store, evolve.recorded_cancellation(run), before)

    async def result(self, timeout: float | None = None) -> AgentResult[T]:
        """Wait for the end, then read the result: an output, or an error as data.

        A run that ended without a result, such as a cancelled one, gets one here: it holds a
        RunCancelledError, or a RemoteAgentError with the reason of the failure.

        Args:
            timeout: seconds; None waits as long as it takes.

        Raises:
            RunNotFoundError: the run does not exist.
            MurmurError: the run belongs to a group.
            InvalidInputError: timeout is not a length of time.
            TimeoutError: not ended within ``timeout`` seconds; the run goes on.
        """
        if timeout is not None:
            check_seconds("timeout", timeout, least=0)
        result = await self._ended_within(timeout)
        if isinstance(result, GroupResult):
            raise errors.MurmurError(
                f"run {self.run_id!r} left the result of a group, and a handle reads an agent's; "
                "read it with `await (await fleet.store()).get_result(run_id)`"
            )
        if result is not None:
            if self._agent is not None and result.error is None:
                output = self._agent.decode_output(cast("object", result.output))
                result = result.model_copy(update={"output": output})
            return cast("AgentResult[T]", result)
        run = await self.snapshot()
        return AgentResult[Any](
            error=run.error_without_result, agent_name=run.target, task_id=self.run_id
        )

    async def output(self, timeout: float | None = None) -> T:
        """Wait for the end and return the output.

        Raises:
            RunFailedError, RunCancelledError: the run failed or was cancelled.
            TimeoutError: not ended within ``timeout`` seconds; the run goes on.
        """
        result = await self.result(timeout)
        error = result.error
        if error is None:
            return cast("T", result.output)
        if isinstance(error, errors.RunCancelledError):
            raise error
        raise errors.RunFailedError(
            self.run_id, error_message(error), error_type_name(error), error_traceback(error)
        )

    async def _ended_within(self, seconds: float | None) -> RunResult | None:
        seen: list[RunState] = []
        if seconds is None:
            return await self._ended(seen)
        limit = asyncio.timeout(seconds)
        try:
            async with limit:
                return await self._ended(seen)
        except TimeoutError:
            if not limit.expired():
                raise
            # The last state that arrived: another read might take as long again.
            found = f"is still {seen[-1]}" if seen else "could not be asked for its state"
            raise TimeoutError(f"run {self.run_id!r} {found} after {seconds:g} s") from None

    async def _ended(self, seen: list[RunState]) -> RunResult | None:
        """Wait for the end and read the result; ``seen`` gets the newest state that has arrived."""
        store = await self._stores.get()
        # Without its target the run counts as one that may go on.
        awaited = Awaited(self.run_id, "", RunState.PENDING)

        def note(target: str, state: RunState) -> None:
            awaited.target, awaited.state = target, state
            seen[:] = [state]

        with awaiting(awaited):
            return await store.result_at_end(self.run_id, note)

    async def _cancellation(
        self, store: WorkStore, known: Cancellation, before: str | None
    ) -> Cancellation:
        async with aclosing(store.journal(self.run_id, after=before)) as entries:
            return evolve.cancellation_after(
                [entry async for entry in entries if entry.type in evolve.CANCEL_ENTRY_TYPES],
                known,
            )


@dataclass(frozen=True, slots=True)
class DeadRuns:
    """``fleet.dead``. A letter holds everything that a new run needs, and never expires."""

    _stores: StoreOfLoop
    _agents: Mapping[str, Agent]
    _unserved: UnservedTargets

    async def list(
        self, target: str | None = None, *, limit: int = 50, cursor: str | None = None
    ) -> DeadLetterPage:
        """Read a page of letters, target by target, the newest first.

        Args:
            target: only letters of this agent; None for all.
            limit: 1 to 500.
            cursor: the cursor of the page before; None for the first.
        """
        return await (await self._letters()).list(target, limit=limit, cursor=cursor)

    async def get(self, run_id: str) -> DeadLetter:
        """Read the letter of a run; DeadLetterNotFoundError when there is none."""
        return await (await self._letters()).get(run_id)

    async def requeue(self, run_id: str) -> RunHandle[Any]:
        """Submit the run again as a new one, and remove its letter, in one step.

        The new run's metadata has the old one's id as ``requeued_from``.

        Raises:
            DeadLetterNotFoundError: the letter does not exist, or not any more.
        """
        store = await self._stores.get()
        letters = store.dead_letters()
        target = (await letters.get(run_id)).target
        again = await letters.requeue(run_id)
        look = self._unserved.look(store, target)
        return RunHandle(again, self._stores, self._agents.get(target), look)

    async def purge(
        self,
        *,
        run_id: str | None = None,
        target: str | None = None,
        older_than_seconds: float | None = None,
        all: bool = False,  # noqa: A002  # as the command line's option
    ) -> int:
        """Remove the letters of a run, of an agent, of an age, or all; returns how many.

        Raises:
            InvalidInputError: no selection is passed, or ``all`` together with one.
        """
        letters = await self._letters()
        return await letters.purge(
            run_id=run_id, target=target, older_than_seconds=older_than_seconds, all=all
        )

    async def _letters(self) -> DeadLetterBox:
        return (await self._stores.get()).dead_letters()
