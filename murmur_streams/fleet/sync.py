"""SyncFleet: a fleet for programs without an event loop, such as Django, Flask, Celery, scripts."""

from __future__ import annotations

import asyncio
import builtins
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import TYPE_CHECKING, Any, Generic, TypeVar, Unpack, overload

from murmur_streams.core.model.events import RunEvent
from murmur_streams.core.model.pages import RunPage
from murmur_streams.core.model.results import AgentResult
from murmur_streams.core.model.run import Run
from murmur_streams.core.model.states import RunState, RunStatus
from murmur_streams.core.model.work import WorkerInfo
from murmur_streams.core.rules.cancellation import Cancellation
from murmur_streams.fleet.background import background
from murmur_streams.fleet.handle import RunHandle
from murmur_streams.fleet.inline import InlineOptions, InlineRun
from murmur_streams.fleet.submission import SubmitOptions

if TYPE_CHECKING:
    from murmur_streams.fleet.fleet import Fleet

T = TypeVar("T")


class SyncFleet:
    """The fleet's calls, which block until they are done: ``fleet.sync``.

    One event loop in a daemon thread serves all fleets and threads of the process. It starts with
    the first call, a forked child starts its own, and the end of the process closes it. Ctrl-C
    interrupts a call that waits; what it wrote may have been written. Called from a coroutine, a
    call blocks that coroutine's loop: await the fleet's own methods there.

    Args:
        fleet: whose agents and runs.
    """

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    @overload
    def submit(
        self,
        agent: Callable[..., Awaitable[T]],
        input: object = None,
        **options: Unpack[SubmitOptions],
    ) -> SyncRunHandle[T]: ...
    @overload
    def submit(
        self, agent: Callable[..., T], input: object = None, **options: Unpack[SubmitOptions]
    ) -> SyncRunHandle[T]: ...
    @overload
    def submit(
        self, agent: str, input: object = None, **options: Unpack[SubmitOptions]
    ) -> SyncRunHandle[Any]: ...
    def submit(
        self,
        agent: Callable[..., Any] | str,
        input: object = None,  # noqa: A002  # the interface's name
        **options: Unpack[SubmitOptions],
    ) -> SyncRunHandle[Any]:
        """Create a run and queue it; arguments and errors as ``Fleet.submit``."""
        handle = self.run(lambda: self._fleet.submit(agent, input, **options))
        return SyncRunHandle(handle, self._fleet)

    def handle(
        self, run_id: str, agent: Callable[..., Any] | str | None = None
    ) -> SyncRunHandle[Any]:
        """A handle on a run that was submitted anywhere; ``agent`` types its output."""
        return SyncRunHandle(self._fleet.handle(run_id, agent), self._fleet)

    def retry(self, run_id: str, *, new_run_id: str | None = None) -> SyncRunHandle[Any]:
        """Submit a failed or cancelled run again; arguments and errors as ``Fleet.retry``."""
        again = self.run(lambda: self._fleet.retry(run_id, new_run_id=new_run_id))
        return SyncRunHandle(again, self._fleet)

    def pause(self, agent: Callable[..., Any] | str) -> None:
        """Let no worker begin runs of this agent, until ``resume``."""
        self.run(lambda: self._fleet.pause(agent))

    def resume(self, agent: Callable[..., Any] | str) -> None:
        """Let workers begin runs of this agent again."""
        self.run(lambda: self._fleet.resume(agent))

    def paused(self) -> set[str]:
        """The names of the agents that are paused."""
        return self.run(self._fleet.paused)

    def workers(self) -> builtins.list[WorkerInfo]:
        """The live workers, with what they execute."""
        return self.run(self._fleet.workers)

    def list(
        self,
        *,
        state: RunState | None = None,
        target: str | None = None,
        tenant: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> RunPage:
        """Runs, newest first, page by page; arguments as the store's ``list_runs``."""

        async def read() -> RunPage:
            store = await self._fleet.store()
            return await store.list_runs(
                state=state, target=target, tenant=tenant, limit=limit, cursor=cursor
            )

        return self.run(read)

    @overload
    def run_inline(
        self,
        agent: Callable[..., Awaitable[T]],
        input: object = None,
        **options: Unpack[InlineOptions],
    ) -> InlineRun[T]: ...
    @overload
    def run_inline(
        self, agent: Callable[..., T], input: object = None, **options: Unpack[InlineOptions]
    ) -> InlineRun[T]: ...
    @overload
    def run_inline(
        self, agent: str, input: object = None, **options: Unpack[InlineOptions]
    ) -> InlineRun[Any]: ...
    def run_inline(
        self,
        agent: Callable[..., Any] | str,
        input: object = None,  # noqa: A002  # the interface's name
        **options: Unpack[InlineOptions],
    ) -> InlineRun[Any]:
        """Execute an agent here, without server and worker; see ``Fleet.run_inline``."""
        return self.run(lambda: self._fleet.run_inline(agent, input, **options))

    def run(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Execute any asynchronous call of this fleet, such as ``lambda: fleet.dead.list()``.

        Args:
            work: makes the coroutine; it is executed on the background loop.
        """
        return background().call(self._fleet, work)

    def close(self) -> None:
        """Close the connections that this fleet has here; a later call opens new ones."""
        self.run(self._fleet.close)


class SyncRunHandle(Generic[T]):
    """Polls, streams and cancels one run; see ``RunHandle`` for what each method promises."""

    def __init__(self, handle: RunHandle[T], fleet: Fleet) -> None:
        self._handle = handle
        self._fleet = fleet

    def __repr__(self) -> str:
        return f"SyncRunHandle({self.run_id!r})"

    @property
    def run_id(self) -> str:
        """The run's id."""
        return self._handle.run_id

    def status(self) -> RunStatus:
        """State and progress; RunNotFoundError when it was deleted or has expired."""
        return self._fleet.sync.run(self._handle.status)

    def snapshot(self) -> Run:
        """Everything that is known of the run."""
        return self._fleet.sync.run(self._handle.snapshot)

    def result(self, timeout: float | None = None) -> AgentResult[T]:
        """Wait for the end, then read the result: an output, or an error as data."""
        return self._fleet.sync.run(lambda: self._handle.result(timeout))

    def output(self, timeout: float | None = None) -> T:
        """Wait for the end and return the output.

        Args:
            timeout: seconds; None waits as long as it takes.

        Raises:
            RunFailedError, RunCancelledError: that is how it ended.
            TimeoutError: not ended within ``timeout`` seconds; the run goes on.
        """
        return self._fleet.sync.run(lambda: self._handle.output(timeout))

    def cancel(
        self, *, reason: str | None = None, wait: float | bool | None = False
    ) -> Cancellation:
        """Ask that the run end cancelled, and tell how far that has come."""
        return self._fleet.sync.run(lambda: self._handle.cancel(reason=reason, wait=wait))

    def stream(self, *, after: str | None = None) -> Generator[RunEvent]:
        """Replay the run's events, follow live, end when it has ended.

        Args:
            after: the ``.id`` of the last event seen; None for the start.
        """
        events = self._handle.stream(after=after)
        # A call that Ctrl-C interrupted may still be ending when the generator is closed.
        alone = asyncio.Lock()

        async def following() -> RunEvent | None:
            async with alone:
                return await anext(events, None)

        async def close() -> None:
            async with alone:
                await events.aclose()

        here = background()
        here.keep(close)
        try:
            while (event := self._fleet.sync.run(following)) is not None:
                yield event
        finally:
            here.leave(close)
