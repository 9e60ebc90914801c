"""A thread of its own for a database: blocking calls one after the other, off the event loop."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")


class DatabaseThread:
    """Runs blocking functions in order and hands their outcomes to the event loop.

    A daemon: a program that forgets to close its store can still end; what was acknowledged is
    in the file.

    Args:
        name: of the thread, for those who look at a process.
        loop: where outcomes go.
    """

    def __init__(self, name: str, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._calls: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._look: Callable[[], object] | None = None
        self._look_seconds: float | None = None
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

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
                self.tell(_fail, outcome, error)
            else:
                self.tell(_succeed, outcome, result)

        self._calls.put(work)
        return await outcome

    def tell(self, call: Callable[..., object], *given: object) -> None:
        """Call something on the event loop; nothing happens when that is closed."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(call, *given)

    def watch(self, look: Callable[[], object] | None, seconds: float = 0.0) -> None:
        """Call ``look``, which must not raise, each time that ``seconds`` went by without a call.

        None ends that.
        """
        self._look, self._look_seconds = look, None if look is None else seconds
        self._calls.put(_nothing)

    async def stop(self) -> None:
        """Let the thread end after what was submitted, and wait for it."""
        self._calls.put(None)
        # Another thread waits for it: the event loop must not.
        await asyncio.to_thread(self._thread.join)

    def _work(self) -> None:
        while True:
            try:
                call = self._calls.get(timeout=self._look_seconds)
            except queue.Empty:
                if self._look is not None:
                    self._look()
                continue
            if call is None:
                return
            call()


def _nothing() -> None:
    """Wakes the thread, which then waits anew."""


def _succeed(outcome: asyncio.Future[T], result: T) -> None:
    if not outcome.done():
        outcome.set_result(result)


def _fail(outcome: asyncio.Future[T], error: BaseException) -> None:
    if not outcome.done():
        outcome.set_exception(error)
