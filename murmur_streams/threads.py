"""Blocking functions in threads of their own, which never keep a process from ending."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from typing import TypeVar

from murmur_streams.core.exception_text import as_data

T = TypeVar("T")


def running_loop() -> asyncio.AbstractEventLoop | None:
    """The event loop that runs in this thread; None without one."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


async def call_in_thread(name: str, function: Callable[[], T]) -> T:
    """Call a blocking function in a new daemon thread and wait for what it returns or raises.

    A pool would make the interpreter wait at its end for every agent that is stuck; a cancelled
    caller stops waiting, and the thread goes on until the function returns.
    """
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[T] = loop.create_future()
    context = contextvars.copy_context()

    def settle(result: T | None, error: BaseException | None) -> None:
        if outcome.done():
            return
        if error is not None:
            outcome.set_exception(error)
        else:
            outcome.set_result(result)  # pyright: ignore[reportArgumentType]  # T when no error

    def run() -> None:
        result: T | None = None
        error: BaseException | None = None
        try:
            result = context.run(function)
        except BaseException as raised:  # noqa: BLE001  # it is raised again in the caller
            error = _for_the_caller(raised)
        try:
            loop.call_soon_threadsafe(settle, result, error)
        except RuntimeError:
            # The loop is closed, so the caller has ended.
            return

    start_thread(name, run)
    return await outcome


def start_thread(name: str, run: Callable[[], None]) -> None:
    """Run a function in a new daemon thread."""
    threading.Thread(target=run, name=name, daemon=True).start()


def _for_the_caller(error: BaseException) -> BaseException:
    # The first cannot be raised into a future; the others would end the worker's loop or task,
    # though no Ctrl-C ever reaches a thread. By its type: its __class__ may be a property that
    # raises, and then the caller would wait for ever.
    if issubclass(type(error), (StopIteration, KeyboardInterrupt, GeneratorExit)):
        return as_data(error)
    return error
