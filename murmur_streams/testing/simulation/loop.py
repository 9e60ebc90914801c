"""An event loop without I/O, for simulations: virtual time, and a seed that chooses what runs next.

While something is ready, time stands still; when nothing is, it jumps to the next timer. Tasks that
are ready run in an order that the seed chooses, as the order in which replies arrive would choose
it. Callbacks that are not steps of tasks keep the order that asyncio promises.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import heapq
import random
import sys
import weakref
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from typing import Any, TypeVar

from murmur_streams.testing.simulation.handles import (
    PROCESS,
    Process,
    SimulatedFuture,
    SimulatedHandle,
    SimulatedTask,
    settle,
)

T = TypeVar("T")

MOST_STEPS = 500_000
"""A simulation that takes more steps is taken to run for ever."""


class StuckError(Exception):
    """Nothing is left to run, and the simulation has not ended; or it does not seem to end."""


@dataclass
class SimulatedLoop(asyncio.AbstractEventLoop):
    """An event loop whose time and order come from a seed.

    It has no sockets, signals, subprocesses and threads: what asks for them gets
    NotImplementedError. A function for an executor runs on the loop itself, in its own turn.
    """

    seed: int
    is_shuffled: bool = True
    """Whether ready tasks run in an order that the seed chooses, or in the order of asyncio."""
    digest: int = 0
    """Of all steps so far: two simulations with the same digest took the same steps."""
    steps: int = 0
    """How many callbacks have run."""
    errors: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    """What was reported to the exception handler."""
    _now: float = 0.0
    _serial: int = 0
    _callbacks: deque[SimulatedHandle] = field(default_factory=deque[SimulatedHandle])
    _tasks_ready: list[SimulatedHandle] = field(default_factory=list[SimulatedHandle])
    _timers: list[tuple[float, float, SimulatedHandle]] = field(
        default_factory=list[tuple[float, float, SimulatedHandle]]
    )
    _of_dead: list[SimulatedHandle] = field(default_factory=list[SimulatedHandle])
    """The callbacks that processes would have run after their deaths."""
    _running: Process | None = None
    """The process of the callback that runs."""
    _is_running: bool = False
    _is_closed: bool = False
    _is_stopping: bool = False
    _task_factory: Any = None
    _exception_handler: Any = None
    _generators: weakref.WeakSet[AsyncGenerator[Any, Any]] = field(
        default_factory=weakref.WeakSet[AsyncGenerator[Any, Any]]
    )

    def __post_init__(self) -> None:
        self.choice = random.Random(f"loop {self.seed}")  # noqa: S311  # a schedule, no secret
        """Chooses what runs next."""

    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other

    def time(self) -> float:
        return self._now

    def new_serial(self) -> int:
        """The next number of this loop: of a task, of a future, of a callback."""
        self._serial += 1
        return self._serial

    # Callbacks.

    def call_soon(
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> Any:
        self._check_open()
        handle = SimulatedHandle(self._now, self.new_serial(), callback, args, context)
        self._make_ready(handle)
        return handle

    call_soon_threadsafe = call_soon

    def call_later(
        self,
        delay: float,
        callback: Callable[..., object],
        *args: Any,
        context: Context | None = None,
    ) -> Any:
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[..., object],
        *args: Any,
        context: Context | None = None,
    ) -> Any:
        self._check_open()
        handle = SimulatedHandle(when, self.new_serial(), callback, args, context)
        self._wait_until(when, handle)
        return handle

    def _wait_until(self, when: float, handle: SimulatedHandle) -> None:
        heapq.heappush(self._timers, (when, handle.serial, handle))

    def _make_ready(self, handle: SimulatedHandle) -> None:
        is_step = isinstance(getattr(handle.call, "__self__", None), asyncio.Task)
        if is_step and self.is_shuffled:
            self._tasks_ready.append(handle)
        else:
            self._callbacks.append(handle)

    # Running.

    def run_until_complete(self, future: Any) -> Any:
        task = asyncio.ensure_future(future, loop=self)

        def stop(_: object) -> None:
            self.stop()

        task.add_done_callback(stop)
        self.run_forever()
        if not task.done():
            raise StuckError(f"nothing is left to run at {self._now:.3f} s")
        return task.result()

    def revive(self) -> None:
        """Let the callbacks of processes run that were dead, so that their tasks can be ended."""
        revived, self._of_dead = self._of_dead, []
        for handle in revived:
            self._make_ready(handle)

    def run_for(self, seconds: float) -> None:
        """Run for some time, or until nothing is left to run."""
        self.call_later(seconds, self.stop)
        self.run_forever()

    def run_forever(self) -> None:
        """Run until ``stop``, or until nothing is left to run."""
        self._check_open()
        hooks = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(self._generators.add, self._close_generator)
        asyncio._set_running_loop(self)
        self._is_running, self._is_stopping = True, False
        try:
            while not self._is_stopping and self._step():
                pass
        finally:
            self._is_running = False
            asyncio._set_running_loop(None)
            sys.set_asyncgen_hooks(*hooks)

    def _step(self) -> bool:
        """Run one callback; False when there is none."""
        handle = self._next()
        if handle is None:
            return False
        process = handle.process
        if process is not None:
            if process.is_dead:
                self._of_dead.append(handle)
                return True
            if process.frozen_until > self._now:
                self._wait_until(process.frozen_until, handle)
                return True
        self.steps += 1
        if self.steps > MOST_STEPS:
            raise StuckError(f"more than {MOST_STEPS:,} steps at {self._now:.3f} s")
        self.digest = hash((self.digest, handle.serial, self._now))
        self._running = process
        try:
            handle.context.run(handle.call, *handle.given)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:  # noqa: BLE001  # as every event loop does
            message = f"exception in callback {handle.call!r}"
            self.call_exception_handler({"message": message, "exception": error, "handle": handle})
        return True

    def _next(self) -> SimulatedHandle | None:
        """Take the handle that runs next; time moves on only when none is ready."""
        while True:
            callbacks, tasks = self._callbacks, self._tasks_ready
            if not callbacks and not tasks and not self._move_on():
                return None
            if tasks:
                at = int(self.choice.random() * (len(tasks) + bool(callbacks)))
                if at < len(tasks):
                    tasks[at], tasks[-1] = tasks[-1], tasks[at]
                    handle = tasks.pop()
                else:
                    handle = callbacks.popleft()
            else:
                handle = callbacks.popleft()
            if not handle.is_cancelled:
                return handle

    def _move_on(self) -> bool:
        """Move time on to the next timer; False without one."""
        timers = self._timers
        while timers and timers[0][2].is_cancelled:
            heapq.heappop(timers)
        if not timers:
            return False
        self._now = max(self._now, timers[0][0])
        while timers and timers[0][0] <= self._now:
            self._make_ready(heapq.heappop(timers)[2])
        return True

    def stop(self) -> None:
        self._is_stopping = True

    def is_running(self) -> bool:
        return self._is_running

    def is_closed(self) -> bool:
        return self._is_closed

    def close(self) -> None:
        self._is_closed = True
        self._callbacks.clear()
        self._tasks_ready.clear()
        self._timers.clear()

    def _check_open(self) -> None:
        if self._is_closed:
            raise RuntimeError("Event loop is closed")

    # Futures, tasks, and functions for executors.

    def create_future(self) -> asyncio.Future[Any]:
        return SimulatedFuture(self.new_serial(), self)

    def create_task(self, coro: Any, **options: Any) -> asyncio.Task[Any]:
        self._check_open()
        if self._task_factory is not None:
            return self._task_factory(self, coro, **options)
        return self.new_task(coro, **options)

    def new_task(self, coro: Any, **options: Any) -> asyncio.Task[Any]:
        """Create a task, whatever the task factory is."""
        serial = self.new_serial()
        name = options.pop("name", None) or f"task {serial}"
        process = PROCESS.get()
        if process is None and self._running is not None:
            # A task that inherits no context, as those of a store, belongs to its process as well.
            process, context = self._running, copy_context()
            context.run(PROCESS.set, process)
            options["context"] = context
        return SimulatedTask(serial, process, coro, loop=self, name=name, **options)

    def set_task_factory(self, factory: Any) -> None:
        self._task_factory = factory

    def get_task_factory(self) -> Any:
        # Never None: a factory that wraps this one makes our tasks, and not asyncio's own.
        return self._task_factory or _new_task

    def run_in_executor(self, executor: Any, func: Callable[..., T], *args: Any) -> Any:
        del executor
        outcome = self.create_future()
        self.call_soon(settle, outcome, functools.partial(func, *args))
        return outcome

    # Errors, debugging, and the end.

    def get_debug(self) -> bool:
        return False

    def set_debug(self, enabled: bool) -> None:
        del enabled

    def set_exception_handler(self, handler: Any) -> None:
        self._exception_handler = handler

    def get_exception_handler(self) -> Any:
        return self._exception_handler

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        del context

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self.errors.append(context)

    def _close_generator(self, generator: AsyncGenerator[Any, Any]) -> None:
        self._generators.discard(generator)
        if not self._is_closed:
            self.create_task(_closed(generator))

    async def shutdown_asyncgens(self) -> None:
        generators, self._generators = list(self._generators), weakref.WeakSet()
        for generator in generators:
            with contextlib.suppress(Exception):
                await generator.aclose()

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        del timeout


def _new_task(loop: SimulatedLoop, coro: Any, **options: Any) -> asyncio.Task[Any]:
    return loop.new_task(coro, **options)


async def _closed(generator: AsyncGenerator[Any, Any]) -> None:
    await generator.aclose()
