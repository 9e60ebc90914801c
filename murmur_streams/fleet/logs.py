"""Logging: texts without control characters, the run of a record, repeated faults."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from murmur_streams.core.exception_text import describe_error, format_traceback
from murmur_streams.core.model import errors
from murmur_streams.fleet.current import current_execution

REPEAT_SECONDS = 60.0
AWAY = (errors.StoreUnavailableError, errors.OutcomeUnknownError, errors.EmbeddedServerError)
"""The errors of a call while the server is gone or restarts."""
MOST_TEXTS = 20
"""How many texts are remembered: errors may differ in their texts each time."""
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


class RunLogFilter(logging.Filter):
    """Puts ``run_id``, ``attempt`` and ``execution`` on every record that passes.

    Add it to a handler and not to a logger, so that the records of all libraries that an agent
    calls pass it. ``execution`` combines both for people, such as `` [7f3a #2]``. Outside of an
    execution it is empty and the others are ``-``, so a format may always name them.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        execution = current_execution()
        record.run_id = execution.run_id if execution else "-"
        record.attempt = execution.attempt if execution else "-"
        record.execution = f" [{execution.run_id} #{execution.attempt}]" if execution else ""
        return True


@dataclass(eq=False, slots=True)
class LogThrottle:
    """Logs a failure that lasts: at once, then once a minute, and when it is over."""

    logger: logging.Logger
    what: str
    """The beginning of the line; the error's text follows it."""
    clock: Callable[[], float] = time.monotonic
    """Returns seconds that only grow."""
    logged: dict[str, float] = field(default_factory=dict[str, float])
    """The texts that were logged, and when. The loops of one worker share it, so that an error that
    all of them meet, such as a refused password, is one line a minute."""
    _began: float | None = None
    _was_logged: bool = False
    _was_away: bool = False

    def failed(self, error: BaseException) -> None:
        """Log a warning, unless the same text was logged within the last minute."""
        now, text = self.clock(), str(error)
        self._was_away = self._was_away or isinstance(error, AWAY)
        if self._began is None:
            self._began = now
        before = self.logged.get(text)
        if before is not None and now - before < REPEAT_SECONDS:
            return
        if len(self.logged) >= MOST_TEXTS:
            self.logged.clear()
        self.logged[text] = now
        self._was_logged = True
        self.logger.warning("%s: %s", self.what, loggable(text))

    def recovered(self) -> None:
        """Log that the failure is over, if it was logged."""
        if self._began is None:
            return
        lasted, self._began = self.clock() - self._began, None
        was_logged, self._was_logged = self._was_logged, False
        over = "the server answers again" if self._was_away else "over"
        self._was_away = False
        if was_logged:
            self.logged.clear()
            self.logger.warning("%s: %s after %.1f s", self.what, over, lasted)
