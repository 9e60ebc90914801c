"""Tells of a trouble that lasts: at once, then now and then, and when it is over."""

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

TOLD_AGAIN_SECONDS = 60.0
AWAY = (StoreUnavailableError, OutcomeUnknownError, EmbeddedServerError)
"""What becomes of a call while the server is gone or restarts."""
MOST_TEXTS = 20
"""Errors whose texts differ each time are no reason to remember more of them."""


class Trouble:
    """Logs what fails again and again, without a line for each time.

    Args:
        logger: where.
        what: the line's beginning; the error's text follows it.
        clock: seconds that only grow.
        told: the texts that were logged, and when. The loops of one worker share it: an error that
            all of them meet, such as a refused password, is one line a minute and not four.
    """

    def __init__(
        self,
        logger: logging.Logger,
        what: str,
        clock: Callable[[], float] = time.monotonic,
        *,
        told: dict[str, float] | None = None,
    ) -> None:
        self._logger = logger
        self._what = what
        self._clock = clock
        self._began: float | None = None
        self._told = {} if told is None else told
        self._was_logged = False
        self._was_away = False

    def tell(self, error: BaseException) -> None:
        """It failed: a warning, unless the same was told in the last minute."""
        now, said = self._clock(), str(error)
        self._was_away = self._was_away or isinstance(error, AWAY)
        if self._began is None:
            self._began = now
        before = self._told.get(said)
        if before is not None and now - before < TOLD_AGAIN_SECONDS:
            return
        if len(self._told) >= MOST_TEXTS:
            self._told.clear()
        self._told[said] = now
        self._was_logged = True
        self._logger.warning("%s: %s", self._what, loggable(said))

    def over(self) -> None:
        """It works; a line, if it did not before."""
        if self._began is None:
            return
        lasted, self._began = self._clock() - self._began, None
        was_logged, self._was_logged = self._was_logged, False
        over = "the server answers again" if self._was_away else "over"
        self._was_away = False
        if was_logged:
            self._told.clear()
            self._logger.warning("%s: %s after %.1f s", self._what, over, lasted)
