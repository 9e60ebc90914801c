"""The context of the running task: its execution, the runs it waits for, its W3C trace."""

from __future__ import annotations

import asyncio
import contextvars
import re
import sys
import weakref
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, cast

from murmur_streams.core.model.errors import InvalidInputError
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
    tasks: weakref.WeakSet[asyncio.Task[object]] | None = None
    """The tasks that its code has started, if any; those that have ended may be among them."""

    def add_task(self, task: asyncio.Task[object]) -> None:
        """Note a task that its code has started."""
        if self.tasks is None:
            self.tasks = weakref.WeakSet()
        self.tasks.add(task)


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


MOST_STATE_CHARACTERS = 512
_PARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_STATE = re.compile(r"[\x20-\x7e]*")
_PROPAGATOR = "opentelemetry.trace.propagation.tracecontext"


def trace_to_carry(given: Mapping[str, str] | None) -> dict[str, str] | None:
    """The trace of a new run: the caller's, else OpenTelemetry's current span if there is one.

    Args:
        given: ``traceparent`` and optionally ``tracestate``, such as a request's headers: other
            names in it are left out. None for the current span; empty for no trace at all.

    Returns:
        None without a trace, or with one that breaks W3C's grammar: headers that a caller passes
        on from its own clients must not make the submission fail.

    Raises:
        InvalidInputError: it is not a mapping, which is the caller's own mistake.
    """
    if given is None:
        return _current() or None
    if not isinstance(cast("object", given), Mapping):
        raise InvalidInputError(
            f"trace is {ascii(given)[:40]}, but must be a mapping with traceparent"
        )
    named = {name.lower(): text for name, text in given.items()}
    parent, state = named.get("traceparent", ""), named.get("tracestate", "")
    if not _PARENT.fullmatch(parent):
        return None
    if not state or len(state) > MOST_STATE_CHARACTERS or not _STATE.fullmatch(state):
        return {"traceparent": parent}
    return {"traceparent": parent, "tracestate": state}


def _current() -> dict[str, str]:
    # A program that has not imported the library has no current span.
    if "opentelemetry.trace" not in sys.modules:
        return {}
    carrier: dict[str, str] = {}
    _propagator().inject(carrier)
    # Another library may have set the propagator, so its header is checked, too.
    return carrier if _PARENT.fullmatch(carrier.get("traceparent", "")) else {}


def enter_trace(trace: Mapping[str, str]) -> None:
    """Make the run's trace OpenTelemetry's current context in the running task.

    Spans that the agent begins are children of the submitter's span. Nothing happens in a program
    that does not use OpenTelemetry.
    """
    if not trace or "opentelemetry.trace" not in sys.modules:
        return
    context: Any = import_module("opentelemetry.context")
    context.attach(_propagator().extract(dict(trace)))


def _propagator() -> Any:
    return import_module(_PROPAGATOR).TraceContextTextMapPropagator()
