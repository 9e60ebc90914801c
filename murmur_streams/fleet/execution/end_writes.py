"""Repeats the writes that end an execution while the server rejects them, so none is lost."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from enum import StrEnum
from typing import Any, TypeVar, cast

from murmur_streams.core.model import errors
from murmur_streams.fleet.execution.tasks import first_of
from murmur_streams.fleet.logs import LogThrottle

logger = logging.getLogger("murmur_streams.worker")

PASSING = (
    errors.StoreFullError,
    errors.StoreReadOnlyError,
    errors.StoreUnavailableError,
    errors.OutcomeUnknownError,
    errors.StoreConfigurationError,
)
"""Errors that may be gone at the next try. Repeating is safe: a write that was applied although its
reply was lost has ended the claim, and the repeated write is rejected because of that."""

T = TypeVar("T")


class ExecutionOutcome(StrEnum):
    """How an execution ended."""

    COMPLETED = "completed"
    FAILED = "failed"
    RETRIED = "retried"
    CANCELLED = "cancelled"
    HANDED_BACK = "handed_back"
    LOST = "lost"
    """The claim is over, because the run was taken back, has ended or was deleted: nothing
    was written."""
    LEFT = "left"
    """The store failed: the run is executed again when its lease has run out."""


class EndWriter:
    """Repeats the writes that end one execution, while heartbeats keep its claim.

    Args:
        what: the execution, for the log.
        pause: waits before another try, longer each time.
    """

    def __init__(self, what: str, pause: Callable[[int], Coroutine[Any, Any, None]]) -> None:
        self._what = what
        self._pause = pause
        self._is_hurried = asyncio.Event()

    def hurry(self) -> None:
        """Try once more what is not written yet, and then give up."""
        self._is_hurried.set()

    async def write(self, call: Callable[[], Awaitable[T]]) -> T:
        """Call until the server has accepted the write.

        Raises:
            MurmurError: an error outside PASSING; after ``hurry`` any error.
        """
        log = LogThrottle(logger, f"{self._what}: its end is not written yet")
        failures = 0
        while True:
            try:
                answer = await call()
            except errors.StoreRewoundError as error:
                # Events of this execution are lost. Its outcome is known all the same, and the
                # claim's token decides whether it may still be written.
                logger.warning("%s: its end is written all the same: %s", self._what, error)
                continue
            except PASSING as error:
                if self._is_hurried.is_set():
                    raise
                log.failed(error)
            else:
                log.recovered()
                return answer
            await first_of(self._pause(failures), self._is_hurried.wait())
            failures += 1


def outcome_without_end(error: BaseException, run_id: str) -> ExecutionOutcome | None:
    """The outcome of an execution whose end was not written; None: the run itself has failed.

    Looks at types and not at ``__class__``: an output's own code may raise an exception whose
    attributes raise in turn.
    """
    if _is_loss(error, run_id):
        return ExecutionOutcome.LOST
    if issubclass(type(error), errors.StoreError) and not issubclass(
        type(error), errors.RunDamagedError
    ):
        # If the write was applied, it stays so; if not, the lease runs out and the run is
        # executed again.
        return ExecutionOutcome.LEFT
    return None


def _is_loss(error: BaseException, run_id: str) -> bool:
    """Whether an error says that the claim of this run is over."""
    kind = type(error)
    if not issubclass(
        kind, (errors.LeaseLostError, errors.RunTerminatedError, errors.RunNotFoundError)
    ):
        return False
    if issubclass(kind, errors.DeadLetterNotFoundError):
        return False
    # The code of an output may look for another run that is gone, or raise an error that only
    # looks like one of ours.
    try:
        return cast("errors.LeaseLostError", error).run_id == run_id
    except BaseException:  # noqa: BLE001  # an output's own code may raise anything
        return False
