"""Repeats calls and reads that failed, as long as another try may end differently."""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol

from murmur_streams.core.model.errors import MurmurError, StoreClosedError
from murmur_streams.stores.redis.connection import failures

logger = logging.getLogger("murmur_streams.redis")


class Retried(Protocol):
    """What is called again: ``Server`` explains it."""

    where: str
    retry_seconds: float

    @property
    def closed(self) -> bool: ...

    def judge(self, error: BaseException) -> BaseException: ...

    def unavailable(self, reason: BaseException) -> MurmurError: ...

    async def recover(self, attempt: int) -> None: ...


class Retries:
    """The tries of one call or one reader: decides whether another is worth it, and waits for it.

    Args:
        server: what is called.
        closing: what a closed store interrupts, for the error.
        seconds: patience with a server that is not reached; None: the store's ``retry_seconds``.
        since: when it began to fail, by the loop's clock; None: at the first failure.
    """

    def __init__(
        self,
        server: Retried,
        closing: str,
        seconds: float | None = None,
        since: float | None = None,
    ) -> None:
        self._server = server
        self._closing = closing
        self._seconds = seconds
        self._failing_since = since
        self._attempt = 0

    def restart(self) -> None:
        """Forget the failures, after a try that succeeded."""
        self._failing_since, self._attempt = None, 0

    async def after(self, error: BaseException) -> None:
        """Wait before the next try; revive an embedded server.

        Raises:
            StoreClosedError: the store was closed.
            StoreUnavailableError: the time for retries is over.
            MurmurError: another try cannot end differently.
        """
        server, now = self._server, asyncio.get_running_loop().time()
        if server.closed:
            raise StoreClosedError(f"the store was closed {self._closing}")
        reason = server.judge(error)
        self._failing_since = now if self._failing_since is None else self._failing_since
        if now - self._failing_since >= self._patience(reason):
            raise server.unavailable(reason)
        logger.debug("a call to %s failed, trying again: %r", server.where, reason)
        await server.recover(self._attempt)
        self._attempt += 1

    def _patience(self, reason: BaseException) -> float:
        # A server that answers "not now" exists, and is worth the longer wait. A replica at the
        # first connection is not: like a missing answer, that is more often a wrong address.
        is_busy = failures.fate_of(reason) is failures.Fate.NOT_EXECUTED
        waits = is_busy and failures.code_of(reason) != "READONLY"
        return self._server.retry_seconds if waits or self._seconds is None else self._seconds
