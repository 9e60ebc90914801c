"""Writes an end on a server that takes no writes for a while: what was worked for is not lost."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from murmur_streams.core.model.errors import (
    OutcomeUnknownError,
    StoreConfigurationError,
    StoreFullError,
    StoreReadOnlyError,
    StoreUnavailableError,
)
from murmur_streams.fleet.execution.waits import first_of
from murmur_streams.fleet.log_throttle import Trouble

logger = logging.getLogger("murmur_streams.worker")

PASSING = (
    StoreFullError,
    StoreReadOnlyError,
    StoreUnavailableError,
    OutcomeUnknownError,
    StoreConfigurationError,
)
"""What may be over the next time: the server is mended, or takes this user's password again. Were a
repeated write applied before, its claim is over."""

T = TypeVar("T")


class Repeater:
    """Repeats the writes that end one execution, while heartbeats keep its claim.

    Args:
        what: of which execution's end, for the log.
        pause: waits before a further try, longer each time.
    """

    def __init__(self, what: str, pause: Callable[[int], Awaitable[None]]) -> None:
        self._what = what
        self._pause = pause
        self._is_hurried = asyncio.Event()

    def hurry(self) -> None:
        """Try whatever is not written yet once more, and then no more."""
        self._is_hurried.set()

    async def write(self, call: Callable[[], Awaitable[T]]) -> T:
        """Call until the server has taken it.

        Raises:
            MurmurError: an error that does not pass, or any once it was hurried.
        """
        trouble = Trouble(logger, f"{self._what}: its end is not written yet")
        failures = 0
        while True:
            try:
                answer = await call()
            except PASSING as error:
                if self._is_hurried.is_set():
                    raise
                trouble.tell(error)
            else:
                trouble.over()
                return answer
            await first_of(self._wait(failures), self._is_hurried.wait())
            failures += 1

    async def _wait(self, failures: int) -> None:
        await self._pause(failures)
