"""Logs a failure that lasts: at once, then once a minute, and when it is over."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from murmur_streams.core.model.errors import (
    EmbeddedServerError,
    OutcomeUnknownError,
    StoreUnavailableError,
)
from murmur_streams.fleet.logs import loggable

REPEAT_SECONDS = 60.0
AWAY = (StoreUnavailableError, OutcomeUnknownError, EmbeddedServerError)
"""The errors of a call while the server is gone or restarts."""
MOST_TEXTS = 20
"""How many texts are remembered: errors may differ in their texts each time."""


class LogThrottle:
    """Logs a failure that repeats, without a line for each time.

    Args:
        logger: the logger.
        what: the beginning of the line; the error's text follows it.
        clock: returns seconds that only grow.
        logged: the texts that were logged, and when. The loops of one worker share it, so that an
            error that all of them meet, such as a refused password, is one line a minute.
    """

    def __init__(
        self,
        logger: logging.Logger,
        what: str,
        clock: Callable[[], float] = time.monotonic,
        *,
        logged: dict[str, float] | None = None,
    ) -> None:
        self._logger = logger
        self._what = what
        self._clock = clock
        self._began: float | None = None
        self._logged = {} if logged is None else logged
        self._was_logged = False
        self._was_away = False

    def failed(self, error: BaseException) -> None:
        """Log a warning, unless the same text was logged within the last minute."""
        now, text = self._clock(), str(error)
        self._was_away = self._was_away or isinstance(error, AWAY)
        if self._began is None:
            self._began = now
        before = self._logged.get(text)
        if before is not None and now - before < REPEAT_SECONDS:
            return
        if len(self._logged) >= MOST_TEXTS:
            self._logged.clear()
        self._logged[text] = now
        self._was_logged = True
        self._logger.warning("%s: %s", self._what, loggable(text))

    def recovered(self) -> None:
        """Log that the failure is over, if it was logged."""
        if self._began is None:
            return
        lasted, self._began = self._clock() - self._began, None
        was_logged, self._was_logged = self._was_logged, False
        over = "the server answers again" if self._was_away else "over"
        self._was_away = False
        if was_logged:
            self._logged.clear()
            self._logger.warning("%s: %s after %.1f s", self._what, over, lasted)
