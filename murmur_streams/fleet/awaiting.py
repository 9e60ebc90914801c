"""The runs that an execution waits for: its worker looks whether any slot is left to begin them."""

from __future__ import annotations

import contextvars
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field

from murmur_streams.core.model.states import RunState


@dataclass(eq=False, slots=True)
class Awaited:
    """One wait for one run; the code that waits keeps ``state`` as it hears of it."""

    run_id: str
    target: str
    state: RunState


@dataclass(eq=False, slots=True)
class Waits:
    """The waits of one execution, of its tasks and threads, while they last."""

    _under_way: dict[int, Awaited] = field(default_factory=dict[int, Awaited])

    @property
    def runs(self) -> list[Awaited]:
        """What is waited for now."""
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
"""Of the execution that runs here; its tasks and threads inherit it, and so does fleet.sync."""


def track_waits() -> Waits:
    """Remember what the running task, and all that it starts, waits for from now on."""
    waits = Waits()
    _WAITS.set(waits)
    return waits


def is_in_execution() -> bool:
    """Whether what runs here is part of an execution, whose worker wants to know."""
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
