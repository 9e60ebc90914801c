"""The runs that an execution waits for. Its worker uses them to detect that it is blocked."""

from __future__ import annotations

import contextvars
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
class Waits:
    """The waits under way of one execution, including its tasks and threads."""

    _under_way: dict[int, Awaited] = field(default_factory=dict[int, Awaited])

    @property
    def runs(self) -> list[Awaited]:
        """The runs that are waited for now."""
        return list(self._under_way.values())

    def begin(self, awaited: Awaited) -> None:
        """A wait has begun."""
        self._under_way[id(awaited)] = awaited

    def end(self, awaited: Awaited) -> None:
        """A wait is over."""
        self._under_way.pop(id(awaited), None)


_WAITS: contextvars.ContextVar[Waits | None] = contextvars.ContextVar(
    "murmur_streams_waits", default=None
)
"""The waits of the current execution; its tasks and threads and fleet.sync inherit them."""


def track_waits() -> Waits:
    """Record the waits of the running task, and of all tasks that it starts, from now on."""
    waits = Waits()
    _WAITS.set(waits)
    return waits


def is_in_execution() -> bool:
    """Whether the running task or thread belongs to an execution, so that its waits count."""
    return _WAITS.get() is not None


@contextmanager
def awaiting(awaited: Awaited) -> Generator[None]:
    """Wait for a run in this block."""
    waits = _WAITS.get()
    if waits is None:
        yield
        return
    waits.begin(awaited)
    try:
        yield
    finally:
        waits.end(awaited)
