"""The event loop of all blocking calls of a process, in a daemon thread; and ``fleet.sync``."""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import contextlib
import functools
import os
import sys
import threading
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar

from murmur_streams.core.model.errors import StoreClosedError
from murmur_streams.core.model.events import RunEvent
from murmur_streams.fleet.handle import RunHandle
from murmur_streams.threads import running_loop

CLOSE_SECONDS = 10.0
"""How long the end of the process waits for writes under way."""
# On Windows Ctrl-C does not interrupt a wait for a lock; it is noticed between two short waits.
_LOOK_SECONDS = 0.2 if sys.platform == "win32" else None

T = TypeVar("T")
Cleanup = Callable[[], Coroutine[Any, Any, None]]


class Closable(Protocol):
    """An object that has connections on the loop, such as a fleet."""

    async def close(self) -> None:
        """Close the connections of the running loop; the object may be used again."""


class Background:
    """One event loop and its thread; ``background`` returns the one of this process."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._loop = asyncio.SelectorEventLoop()
        self._users: set[Closable] = set()
        self._cleanups: set[Cleanup] = set()
        self._cleaning: set[asyncio.Task[None]] = set()
        self._is_closed = False
        self._is_stopped = False
        self._thread = threading.Thread(target=self._run, name="murmur-streams sync", daemon=True)
        self._thread.start()

    @property
    def is_ours(self) -> bool:
        """False in a forked child: the thread exists in the parent only."""
        return self._pid == os.getpid()

    def call(self, user: Closable, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Execute a coroutine on the loop and wait for what it returns or raises.

        Args:
            user: the owner of the connections; they are closed at the end of the process.
            work: makes the coroutine.

        Raises:
            RuntimeError: called on the loop's own thread, which would wait for itself.
            BaseException: everything that the coroutine raises, SystemExit too; the loop goes on.
            StoreClosedError: the process ends.
        """
        if threading.current_thread() is self._thread:
            raise RuntimeError("fleet.sync was called on its own event loop: use the async API")
        if self._is_closed:
            raise _ended()
        self._users.add(user)
        future = self._start(work())
        try:
            while not future.done():
                concurrent.futures.wait([future], timeout=_LOOK_SECONDS)
            if self._is_closed:
                # The process ends, and only a daemon thread can still be here. Stores close under
                # its call, so the call would fail with an error that it did not cause, and print
                # a traceback. The thread waits here until the process has ended.
                threading.Event().wait()
            return future.result()
        finally:
            # After Ctrl-C this thread waits no longer, and the coroutine must not go on.
            future.cancel()

    def keep(self, cleanup: Cleanup) -> None:
        """Execute a coroutine at the end of the process, unless ``leave`` is called first."""
        self._cleanups.add(cleanup)

    def leave(self, cleanup: Cleanup) -> None:
        """Execute a registered cleanup now; callable also while Python collects garbage."""
        self._cleanups.discard(cleanup)
        if not self.is_ours or self._is_closed:
            return

        def start() -> None:
            task = self._loop.create_task(cleanup())
            self._cleaning.add(task)
            task.add_done_callback(self._cleaning.discard)

        with contextlib.suppress(RuntimeError):  # The loop has just been closed.
            self._loop.call_soon_threadsafe(start)

    def disconnect(self) -> None:
        """Close all connections; a later call makes new ones."""
        for user in tuple(self._users):
            self.call(user, user.close)
            self._users.discard(user)

    def close(self) -> None:
        """Finish the writes under way, close all stores, and end the thread."""
        if not self.is_ours or self._is_closed:
            return
        closing = self._start(self._close_all())
        self._is_closed = True
        concurrent.futures.wait([closing], timeout=CLOSE_SECONDS)
        self._loop.call_soon_threadsafe(self._stop)
        self._thread.join(CLOSE_SECONDS)

    def abandon(self) -> None:
        """In a forked child: keep the child from changing the parent's list of watched sockets.

        Parent and child share one epoll object in the kernel. When the child collects a connection
        of the parent, the connection asks its loop to remove the socket from that object, and the
        parent would never hear from the socket again: its calls would hang. A closed loop is not
        asked. This loop cannot be closed, because in the child's copy it counts as running; so it
        is marked as closed, and its pending tasks do not warn that they were destroyed.
        """
        self._is_closed = True
        loop: Any = self._loop
        for task in asyncio.all_tasks(loop):
            unended: Any = task
            unended._log_destroy_pending = False
        loop._closed = True

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        while not self._is_stopped:
            # asyncio passes these to the caller that awaits the task, and raises them out of the
            # loop as well. Without the loop around ``run_forever``, one caller's sys.exit() would
            # end the thread, and every other caller would wait for ever.
            with contextlib.suppress(SystemExit, KeyboardInterrupt):
                self._loop.run_forever()
        self._loop.close()

    def _stop(self) -> None:
        self._is_stopped = True
        self._loop.stop()

    def _start(self, work: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        try:
            return asyncio.run_coroutine_threadsafe(work, self._loop)
        except RuntimeError:
            work.close()
            raise _ended() from None

    async def _close_all(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for user in tuple(self._users):
            with contextlib.suppress(Exception):  # The server may be gone.
                await user.close()
        # In this order: asyncio would close a generator and the ones that it reads from at once.
        for cleanup in tuple(self._cleanups):
            with contextlib.suppress(Exception):
                await cleanup()
        for task in others:
            task.cancel()
        if others:
            await asyncio.wait(others, timeout=1.0)
        await self._loop.shutdown_asyncgens()
        await self._loop.shutdown_default_executor()


def _ended() -> StoreClosedError:
    return StoreClosedError("fleet.sync was closed: the process ends")


def _refuse_second_loop() -> None:
    """Raise where the loop could never run, because its callers would wait for ever.

    gevent replaces threads by greenlets of one real thread, and asyncio runs one event loop at a
    time in a thread: while ``asyncio.run`` is under way in any greenlet, this loop cannot begin.
    """
    monkey: Any = sys.modules.get("gevent.monkey")
    is_patched = monkey is not None and monkey.is_module_patched("threading")
    if is_patched and running_loop() is not None:
        raise RuntimeError(
            "fleet.sync cannot start: gevent has made greenlets of this program's threads, and an "
            "event loop is running in one of them; call fleet.sync before, and run coroutines with "
            "fleet.sync.run(lambda: coroutine()) instead of asyncio.run"
        )


class _ProcessBackground:
    """The background of this process, made at first use."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.background: Background | None = None
        self._of_parents: list[Background] = []
        """References that keep a parent's loop from being collected in a child."""

    def get(self) -> Background:
        known = self.background
        if known is not None and not known.is_ours:
            # A C library forked, and Python's hook was not called.
            self.forked()
        with self._lock:
            if self.background is None:
                _refuse_second_loop()
                self.background = Background()
            return self.background

    def forked(self) -> None:
        """In the child: replace the lock, which another thread may have held, and the loop."""
        self._lock = threading.Lock()
        if self.background is not None:
            self.background.abandon()
            self._of_parents.append(self.background)
            self.background = None

    def close(self) -> None:
        if self.background is not None:
            self.background.close()


_of_process = _ProcessBackground()
atexit.register(_of_process.close)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_of_process.forked)


def background() -> Background:
    """The background of this process; started at first use."""
    return _of_process.get()


def disconnect() -> None:
    """Close the connections that blocking calls of this process have opened."""
    known = _of_process.background
    if known is not None and known.is_ours:
        known.disconnect()


A = TypeVar("A")
P = ParamSpec("P")
R = TypeVar("R")


class Blocking(Generic[A]):
    """The blocking half of an object whose methods are coroutines.

    Args:
        asynchronous: the object.
        fleet: the fleet that the object belongs to; its connections are closed when the process
            ends.
    """

    def __init__(self, asynchronous: A, fleet: Closable) -> None:
        self._asynchronous = asynchronous
        self._fleet = fleet

    def run(self, work: Callable[[], Coroutine[Any, Any, R]]) -> R:
        """Execute any asynchronous call of this fleet, such as ``lambda: fleet.dead.list()``.

        Args:
            work: makes the coroutine; it is executed on the background loop.
        """
        return background().call(self._fleet, work)


def blocking(
    call: Callable[Concatenate[A, P], Coroutine[Any, Any, R]],
) -> Callable[Concatenate[Blocking[A], P], R]:
    """Make the blocking method of an asynchronous one; it has the same types and docstring."""

    @functools.wraps(call)
    def blocked(self: Blocking[A], *args: P.args, **named: P.kwargs) -> R:
        asynchronous = self._asynchronous  # pyright: ignore[reportPrivateUsage]  # a method of it
        return self.run(lambda: call(asynchronous, *args, **named))

    return blocked


class SyncRunHandle(Blocking[RunHandle[T]]):
    """Polls, streams and cancels one run; see ``RunHandle`` for what each method promises."""

    def __repr__(self) -> str:
        return f"SyncRunHandle({self.run_id!r})"

    @property
    def run_id(self) -> str:
        """The run's id."""
        return self._asynchronous.run_id

    status = blocking(RunHandle[T].status)
    snapshot = blocking(RunHandle[T].snapshot)
    result = blocking(RunHandle[T].result)
    output = blocking(RunHandle[T].output)
    cancel = blocking(RunHandle[T].cancel)

    def stream(self, *, after: str | None = None) -> Generator[RunEvent]:
        """The run's events, as ``RunHandle.stream`` yields them."""
        events = self._asynchronous.stream(after=after)
        # Python refuses to close a generator that is running. After Ctrl-C the caller closes this
        # one while the interrupted step may still run on the other thread: the lock makes the
        # closing wait for that step.
        one_at_a_time = asyncio.Lock()

        async def step() -> RunEvent | None:
            async with one_at_a_time:
                return await anext(events, None)

        async def close() -> None:
            async with one_at_a_time:
                await events.aclose()

        here = background()
        here.keep(close)
        try:
            while (event := self.run(step)) is not None:
                yield event
        finally:
            here.leave(close)
