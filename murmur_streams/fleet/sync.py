"""Blocking calls: what ``fleet.sync`` and its handles are made of."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

from murmur_streams.core.model.events import RunEvent
from murmur_streams.fleet.background import Closable, background
from murmur_streams.fleet.handle import RunHandle

A = TypeVar("A")
P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


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
