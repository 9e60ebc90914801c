"""The tasks of a worker: waits for them, and keeps those of agents from ending the worker.

A task that raises SystemExit or KeyboardInterrupt raises it out of the event loop as well, and the
worker, which executes other runs, too, would end. Ctrl-C arrives through a signal handler and is
not affected. A callback that raises an exception whose text cannot be read would end the loop while
the exception is logged.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Coroutine, Generator, Sequence
from types import TracebackType
from typing import Any, cast

from murmur_streams.core.exception_text import as_data
from murmur_streams.core.model.errors import RemoteAgentError
from murmur_streams.fleet.current import CurrentExecution, current_execution
from murmur_streams.fleet.logs import loggable, loggable_traceback

logger = logging.getLogger("murmur_streams.worker")

_MOST_TASKS_NAMED = 5


async def first_of(*waits: Coroutine[Any, Any, object], seconds: float | None = None) -> None:
    """Wait until one of several coroutines has ended, or for ``seconds``; then cancel the rest."""
    tasks = [asyncio.create_task(each) for each in waits]
    try:
        done, _ = await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def end_within(seconds: float, tasks: Sequence[asyncio.Task[Any]]) -> None:
    """Cancel tasks and wait for their ends, ``seconds`` at most."""
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=seconds)


def leave_behind(task: asyncio.Task[Any]) -> None:
    """Take a task that will not end off asyncio's list: ``asyncio.run`` would wait for it.

    The task goes on as long as the loop does.
    """
    unlisted: Any = task
    unlisted._log_destroy_pending = False
    # Documented in spite of the underscore, for code that manages the lifetime of its tasks.
    asyncio._unregister_task(task)


def log_running_tasks(execution: CurrentExecution, but: Collection[asyncio.Task[None]]) -> None:
    """Log the tasks that outlive an execution, but these: each with its coroutine's name."""
    if execution.tasks is None:
        return
    running = sorted(
        f"{task.get_name()} ({_coroutine_name(task)})"
        for task in execution.tasks
        if not task.done() and task not in but
    )
    if running:
        more = len(running) - _MOST_TASKS_NAMED
        named = loggable(", ".join(running[:_MOST_TASKS_NAMED]))
        logger.warning(
            "run %s: its execution has ended, and tasks that its agent started go on: %s%s; "
            "what they write to the run is refused; start tasks in an asyncio.TaskGroup to end "
            "them with the run",
            execution.run_id, named, f" and {more} more" if more > 0 else "",
        )  # fmt: skip


def _coroutine_name(task: asyncio.Task[Any]) -> str:
    try:
        return str(getattr(task.get_coro(), "__qualname__", type(task.get_coro()).__name__))
    except Exception:  # noqa: BLE001  # the class of a coroutine may be the user's own
        return "?"


def guard_tasks(loop: asyncio.AbstractEventLoop) -> None:
    """Guard the tasks that executions create on this loop from now on; other tasks stay as is."""
    before: Any = loop.get_task_factory()
    if not isinstance(before, _Factory):
        loop.set_task_factory(_Factory(before))


def guard_callbacks(loop: asyncio.AbstractEventLoop) -> None:
    """Log every exception of a callback on this loop, unless the user has set a handler."""

    def report(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        try:
            loop.default_exception_handler(context)
        except BaseException:  # noqa: BLE001  # the exception's own code may raise anything
            error = context.get("exception")
            shown = "" if error is None else loggable_traceback(error)
            logger.error("%s: %s", context.get("message"), shown)  # noqa: TRY400  # would fail again

    if loop.get_exception_handler() is None:
        loop.set_exception_handler(report)


class _Factory:
    """Creates tasks with the factory that was set before; guards those of an execution."""

    def __init__(self, before: Callable[..., Any] | None) -> None:
        self._before = before

    def __call__(
        self, loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any
    ) -> asyncio.Task[Any]:
        execution = current_execution()
        if execution is not None:
            coroutine = _Guarded(coroutine, execution.run_id)
        task: asyncio.Task[Any] = (
            asyncio.Task(coroutine, loop=loop, **options)
            if self._before is None
            else self._before(loop, coroutine, **options)
        )
        # A factory of the user's may return a future of any kind.
        if execution is not None and isinstance(cast("object", task), asyncio.Task):
            execution.add_task(task)
        return task


class _Guarded(Coroutine[Any, Any, Any]):
    """A coroutine that raises an ordinary error instead of SystemExit and KeyboardInterrupt.

    An ``async def`` around the coroutine would not do: when a task is cancelled before its first
    step, the inner coroutine would never be awaited, and Python warns about that.
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
        # The form with three arguments is deprecated, so one argument is passed on as one.
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
        # Name, frame and state: a task's repr and some libraries read them.
        return getattr(self._guarded, name)

    def _ordinary(self, error: BaseException) -> RemoteAgentError:
        failure = as_data(error)
        logger.error(
            "run %s: a task of its agent raised %s(%s)",
            self._run_id, failure.type_name, loggable(failure.message),
        )  # fmt: skip
        return failure
