"""What a simulated loop runs: callbacks, futures and tasks, each with a number and a process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context, ContextVar, copy_context
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(eq=False)
class Process:
    """A part of the simulated program that can be killed or frozen: its tasks and their tasks."""

    name: str
    is_dead: bool = False
    """Whether it was killed: nothing of it runs any more, not even what would clean up."""
    frozen_until: float = 0.0
    """The time of the loop until which nothing of it runs."""


PROCESS: ContextVar[Process | None] = ContextVar("murmur_streams_simulated_process", default=None)
"""The process of the running task; None for what belongs to the simulation itself."""


class SimulatedHandle:
    """A callback that waits for its turn, or for its time; used as asyncio's own handles are."""

    __slots__ = ("call", "context", "given", "is_cancelled", "serial", "time")

    def __init__(
        self,
        time: float,
        serial: int,
        call: Callable[..., object],
        given: tuple[Any, ...],
        context: Context | None,
    ) -> None:
        self.time = time
        self.serial = serial
        self.call = call
        self.given = given
        self.context = copy_context() if context is None else context
        self.is_cancelled = False

    def cancel(self) -> None:
        """Do not run it."""
        self.is_cancelled = True

    def cancelled(self) -> bool:
        """Whether it was cancelled."""
        return self.is_cancelled

    def when(self) -> float:
        """The loop's time at which it is due."""
        return self.time

    @property
    def process(self) -> Process | None:
        """The process that it belongs to."""
        return self.context.get(PROCESS)


class SimulatedFuture(asyncio.Future[T]):
    """A future whose hash does not depend on its address, so that sets have the same order."""

    def __init__(self, serial: int, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop=loop)
        self.serial = serial

    def __hash__(self) -> int:
        return self.serial


class SimulatedTask(asyncio.Task[T]):
    """The same for a task."""

    def __init__(self, serial: int, process: Process | None, work: Any, **options: Any) -> None:
        self.serial = serial
        self.process = process
        super().__init__(work, **options)

    def __hash__(self) -> int:
        return self.serial


def settle(outcome: asyncio.Future[T], call: Callable[[], T]) -> None:
    """Call a function, and give a future what it returns or raises, unless that is done already."""
    try:
        result = call()
    except BaseException as error:  # noqa: BLE001  # it is the caller's
        if not outcome.done():
            outcome.set_exception(error)
    else:
        if not outcome.done():
            outcome.set_result(result)
