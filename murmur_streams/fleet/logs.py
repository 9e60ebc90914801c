"""Names the run and the attempt on every log record that is written during an execution."""

from __future__ import annotations

import contextvars
import logging
import re
from typing import NamedTuple

from murmur_streams.core.exception_text import describe_error, format_traceback

_CONTROLS = re.compile(
    # All but the tab and the line feed; and those that reorder or split a line on a screen.
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]"
)


def loggable(text: str) -> str:
    """A text with its control characters escaped: an error's text must not control a terminal."""
    return _CONTROLS.sub(lambda found: ascii(found[0])[1:-1], text)


def loggable_error(error: BaseException) -> str:
    """The type and the message of any exception, for a line of a log."""
    return loggable(describe_error(error))


def loggable_traceback(error: BaseException) -> str:
    """The traceback of any exception.

    The formatter of ``logging`` would run the exception's own code, which may raise anything.
    """
    return loggable(format_traceback(error).rstrip())


class Executed(NamedTuple):
    """One execution of one run."""

    run_id: str
    attempt: int


_EXECUTED: contextvars.ContextVar[Executed | None] = contextvars.ContextVar(
    "murmur_streams_executed", default=None
)
"""The current execution; tasks and the threads of agents inherit it."""


def begin_execution(run_id: str, attempt: int) -> None:
    """Mark the running task, and all tasks that it creates, as executing this run."""
    _EXECUTED.set(Executed(run_id, attempt))


def executed() -> Executed | None:
    """The execution of the running task or thread; None outside of agents."""
    return _EXECUTED.get()


class RunLogFilter(logging.Filter):
    """Puts ``run_id``, ``attempt`` and ``execution`` on every record that passes.

    Add it to a handler and not to a logger, so that the records of all libraries that an agent
    calls pass it. ``execution`` combines both for people, such as `` [7f3a #2]``. Outside of an
    execution it is empty and the others are ``-``, so a format may always name them.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        execution = _EXECUTED.get()
        record.run_id = execution.run_id if execution else "-"
        record.attempt = execution.attempt if execution else "-"
        record.execution = f" [{execution.run_id} #{execution.attempt}]" if execution else ""
        return True
