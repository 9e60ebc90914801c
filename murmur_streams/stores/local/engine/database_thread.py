"""A thread of a database: runs functions that block, and hands their outcomes to the event loop."""

from __future__ import annotations

import asyncio
import os
import queue
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")


class _LoopCalls:
    """The calls of one thread that an event loop is to make, and the eventfd that wakes the loop.

    asyncio's ``call_soon_threadsafe`` sends a byte through a socket pair, which the loop reads with
    two calls, one of them in vain. An eventfd takes two thirds of the time.

    Only the loop keeps this object alive. When the loop is closed, the calls that it has not made
    are dropped with it. They would otherwise keep an unclosed store alive, and its file locked.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, eventfd: int) -> None:
        self.calls: deque[tuple[Callable[..., object], tuple[object, ...]]] = deque()
        self.eventfd = eventfd
        loop.add_reader(eventfd, self._make_calls)

    def wake(self) -> None:
        """Wake the loop."""
        os.eventfd_write(self.eventfd, 1)

    def _make_calls(self) -> None:
        os.eventfd_read(self.eventfd)
        while self.calls:
            call, given = self.calls.popleft()
            try:
                call(*given)
            except BaseException:
                # The loop logs it. The calls behind it are made in its next turn.
                self.wake()
                raise

    def __del__(self) -> None:
        os.close(self.eventfd)


def _open_calls(loop: asyncio.AbstractEventLoop) -> Callable[[], _LoopCalls | None]:
    """Return a weak reference to the calls.

    It returns None if the system has no eventfd (or no descriptor left), or the loop has no
    ``add_reader``.
    """
    if sys.platform == "linux":
        with suppress(OSError, NotImplementedError):
            return weakref.ref(_LoopCalls(loop, os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)))
    return lambda: None


class DatabaseThread:
    """Runs blocking functions in order and hands their outcomes to the event loop.

    A daemon thread: a program that does not close its store can still end, and every acknowledged
    write is in the file.

    Args:
        name: of the thread, for debuggers.
        loop: gets the outcomes.
    """

    def __init__(self, name: str, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._calls: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._look: Callable[[], object] | None = None
        self._look_seconds = 0.0
        self._look_at = 0.0
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()
        # After the thread, which a full system may refuse: its end closes the descriptor.
        self._loop_calls = _open_calls(loop)

    def submit(self, call: Callable[[], object]) -> None:
        """Run ``call``, which must not raise, after those before it."""
        self._calls.put(call)

    async def run(self, call: Callable[[], T]) -> T:
        """Run ``call`` and return what it returns, or raise what it raises.

        A caller that is cancelled does not stop it.
        """
        outcome: asyncio.Future[T] = self._loop.create_future()

        def work() -> None:
            try:
                result = call()
            except BaseException as error:  # noqa: BLE001  # the caller's, whatever it is
                self.call_on_loop(_fail, outcome, error)
            else:
                self.call_on_loop(_succeed, outcome, result)

        self._calls.put(work)
        return await outcome

    def call_on_loop(self, call: Callable[..., object], *given: object) -> None:
        """Call a function on the event loop; do nothing when that is closed."""
        waiting = self._loop_calls()
        if waiting is not None:
            waiting.calls.append((call, given))
            waiting.wake()
            return
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(call, *given)

    def watch(self, look: Callable[[], object] | None, seconds: float = 0.0) -> None:
        """Call ``look``, which must not raise, every ``seconds``; None stops that.

        Submitted calls do not delay it: it runs between two of them.
        """
        self._look, self._look_seconds = look, seconds
        self._calls.put(lambda: None)  # wakes the thread, which then waits again

    async def stop(self) -> None:
        """Let the thread end after the submitted calls, and wait for that."""
        ended: asyncio.Future[None] = self._loop.create_future()
        # The thread reports its own end: all threads of the default executor may be busy.
        self._calls.put(lambda: self.call_on_loop(_succeed, ended, None))
        self._calls.put(None)
        await ended
        self._thread.join()

    def leave(self) -> None:
        """Let the thread end after the submitted calls, without waiting for it."""
        self._calls.put(None)

    def _work(self) -> None:
        while (call := self._next()) is not None:
            call()
            # The name would keep the call's store alive until the next call comes.
            del call
        if (waiting := self._loop_calls()) is not None:
            self.call_on_loop(self._loop.remove_reader, waiting.eventfd)

    def _next(self) -> Callable[[], object] | None:
        while True:
            look = self._look
            if look is None:
                return self._calls.get()
            left = self._look_at - time.monotonic()
            if left <= 0:
                look()
                self._look_at = time.monotonic() + self._look_seconds
                continue
            try:
                return self._calls.get(timeout=left)
            except queue.Empty:
                continue


def _succeed(outcome: asyncio.Future[T], result: T) -> None:
    if not outcome.done():
        outcome.set_result(result)


def _fail(outcome: asyncio.Future[T], error: BaseException) -> None:
    if not outcome.done():
        outcome.set_exception(error)
