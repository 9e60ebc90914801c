"""What an agent's own tasks may not do: end the process that executes other runs beside it.

A task that raises SystemExit or KeyboardInterrupt raises it out of the event loop as well, and the
worker would be gone. Ctrl-C comes by a signal handler, and needs no such thing. A callback that
raises an exception whose text cannot be read would end the loop while that is logged.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import weakref
from collections.abc import Callable, Collection, Coroutine, Generator
from types import TracebackType
from typing import Any, cast

from murmur_streams.core.exception_text import as_data
from murmur_streams.core.model.errors import RemoteAgentError
from murmur_streams.fleet.logs import executed, loggable, loggable_traceback

logger = logging.getLogger("murmur_streams.worker")


def leave_behind(task: asyncio.Task[Any]) -> None:
    """Take a task that will not end off the loop's list: nobody waits for it at the end.

    It goes on while the loop does; ``asyncio.run`` would wait for it for ever.
    """
    unlisted: Any = task
    unlisted._log_destroy_pending = False
    # Documented, underscore and all, for what manages the lifetime of tasks by itself.
    asyncio._unregister_task(task)


def track_tasks() -> StartedTasks:
    """Remember the tasks that the running task and its tasks start from now on."""
    started = StartedTasks()
    _STARTED.set(started)
    return started


class StartedTasks:
    """The tasks that one agent has started, while they run."""

    def __init__(self) -> None:
        self._tasks: weakref.WeakSet[asyncio.Task[Any]] = weakref.WeakSet()

    def add(self, task: asyncio.Task[Any]) -> None:
        """Remember a task that was started."""
        self._tasks.add(task)

    def running(self, but: Collection[asyncio.Task[Any]] = ()) -> list[str]:
        """The tasks that have not ended, each by its name and its coroutine's; some left out."""
        return sorted(
            f"{task.get_name()} ({_coroutine_name(task)})"
            for task in self._tasks
            if not task.done() and task not in but
        )


_STARTED: contextvars.ContextVar[StartedTasks | None] = contextvars.ContextVar(
    "murmur_streams_started_tasks", default=None
)


def _coroutine_name(task: asyncio.Task[Any]) -> str:
    try:
        return str(getattr(task.get_coro(), "__qualname__", type(task.get_coro()).__name__))
    except Exception:  # noqa: BLE001  # a coroutine of the user's own make may raise anything
        return "?"


def guard_tasks(loop: asyncio.AbstractEventLoop) -> None:
    """Guard the tasks that executions create on this loop, from now on; no other task notices."""
    before: Any = loop.get_task_factory()
    if isinstance(before, _Factory):
        return
    loop.set_task_factory(_Factory(before))


def guard_callbacks(loop: asyncio.AbstractEventLoop) -> None:
    """Log what callbacks on this loop raise, whatever it is; a handler of the user's own stays."""
    if loop.get_exception_handler() is None:
        loop.set_exception_handler(_report)


def _report(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    try:
        loop.default_exception_handler(context)
    except BaseException:  # noqa: BLE001  # the exception's own code may raise anything
        error = context.get("exception")
        shown = "" if error is None else loggable_traceback(error)
        logger.error("%s: %s", context.get("message"), shown)  # noqa: TRY400  # would fail again


class _Factory:
    """Creates tasks as the factory before it did; guards and remembers those of an execution."""

    def __init__(self, before: Callable[..., Any] | None) -> None:
        self._before = before

    def __call__(
        self, loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any
    ) -> asyncio.Task[Any]:
        execution = executed()
        if execution is not None:
            coroutine = _Guarded(coroutine, execution.run_id)
        task: asyncio.Task[Any] = (
            asyncio.Task(coroutine, loop=loop, **options)
            if self._before is None
            else self._before(loop, coroutine, **options)
        )
        started = _STARTED.get()
        # A factory of the user's own may make futures of any kind.
        if started is not None and isinstance(cast("object", task), asyncio.Task):
            started.add(task)
        return task


class _Guarded(Coroutine[Any, Any, Any]):
    """A coroutine, step by step.

    An ``async def`` around it would leave it never awaited when the task is cancelled before its
    first step.
    """

    def __init__(self, guarded: Coroutine[Any, Any, Any], run_id: str) -> None:
        self._guarded: Any = guarded
        self._run_id = run_id

    def send(self, value: Any, /) -> Any:
        try:
            return self._guarded.send(value)
        except (SystemExit, KeyboardInterrupt) as error:
            raise self._ordinary(error) from error

    def throw(
        self,
        kind: Any,
        value: BaseException | object = None,
        traceback: TracebackType | None = None,
        /,
    ) -> Any:
        # The three arguments are deprecated; whoever throws one exception gets it thrown as such.
        given = (kind,) if value is None and traceback is None else (kind, value, traceback)
        try:
            return self._guarded.throw(*given)
        except (SystemExit, KeyboardInterrupt) as error:
            raise self._ordinary(error) from error

    def close(self) -> None:
        self._guarded.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._guarded.__await__()

    def __getattr__(self, name: str) -> Any:
        # Its name, frame and state, for a task's repr and for libraries that look at them.
        return getattr(self._guarded, name)

    def _ordinary(self, error: BaseException) -> RemoteAgentError:
        failure = as_data(error)
        logger.error(
            "run %s: a task of its agent raised %s(%s)",
            self._run_id, failure.type_name, loggable(failure.message),
        )  # fmt: skip
        return failure
