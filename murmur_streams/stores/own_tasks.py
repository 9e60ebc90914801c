"""Tasks that belong to a store: they outlive the caller that needed them first."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Collection, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def start_task(work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
    """Start a task that inherits no context variable of its caller.

    The running loop's task factory sees none either: one that marks or guards the caller's tasks
    leaves this one alone.
    """
    return contextvars.Context().run(lambda: asyncio.create_task(work, name=name))


def start_shared_task(work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
    """Start a task whose result several callers await, each behind ``asyncio.shield``.

    They may all be cancelled before it fails; asyncio would log its exception as one that is
    never read.
    """
    task = start_task(work, name)
    task.add_done_callback(_read_exception)
    return task


def _read_exception(task: asyncio.Task[Any]) -> None:
    if not task.cancelled():
        task.exception()


async def end_tasks(tasks: Collection[asyncio.Task[Any]]) -> None:
    """Cancel tasks until they have ended: Python 3.11's wait_for can swallow a cancellation."""
    running = {task for task in tasks if task is not asyncio.current_task() and not task.done()}
    while running:
        for task in running:
            task.cancel()
        _, running = await asyncio.wait(running, timeout=0.1)


def is_cancelled() -> bool:
    """Whether the running task was cancelled, and not only the future that it awaits."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
