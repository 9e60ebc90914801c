"""The execution that the running task or thread belongs to, and the runs that it waits for."""

from __future__ import annotations

import asyncio
import contextvars
import weakref
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field

from murmur_streams.core.model.states import RunState


@dataclass(eq=False, slots=True)
class Awaited:
    """One wait for one run; the waiting code updates ``state``."""

    run_id: str
    target: str
    state: RunState


@dataclass(eq=False, slots=True)
class CurrentExecution:
    """One execution of one run, with what its tasks and threads do."""

    run_id: str
    attempt: int
    awaited: list[Awaited] = field(default_factory=list[Awaited])
    """The waits under way. Its worker uses them to detect that it is blocked."""
    tasks: weakref.WeakSet[asyncio.Task[object]] = field(
        default_factory=weakref.WeakSet[asyncio.Task[object]]
    )
    """The tasks that it has started; those that have ended may be among them."""


_CURRENT: contextvars.ContextVar[CurrentExecution | None] = contextvars.ContextVar(
    "murmur_streams_execution", default=None
)
"""Tasks, the threads of agents, and fleet.sync inherit it."""


def enter_execution(execution: CurrentExecution) -> None:
    """Mark the running task, and all tasks that it creates, as a part of this execution."""
    _CURRENT.set(execution)


def current_execution() -> CurrentExecution | None:
    """The execution of the running task or thread; None outside of agents."""
    return _CURRENT.get()


@contextmanager
def awaiting(awaited: Awaited) -> Generator[None]:
    """Wait for a run in this block."""
    execution = _CURRENT.get()
    if execution is None:
        yield
        return
    execution.awaited.append(awaited)
    try:
        yield
    finally:
        execution.awaited.remove(awaited)
