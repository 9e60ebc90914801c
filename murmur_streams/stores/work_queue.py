"""WorkQueue and WorkerList: the parts of a store that workers use.

The documentation of the methods is here; the stores inherit it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from murmur_streams.core.model.work import (
    Beat,
    Claim,
    Claimed,
    ClaimNotice,
    ControlMessage,
    Housekeeping,
    TargetRule,
    WorkerInfo,
)


class WorkQueue(Protocol):
    """The waiting work of one store, for workers."""

    async def prepare(self, targets: Sequence[str]) -> None:
        """Get ready to serve these targets; StoreConfigurationError when that is not allowed."""
        ...

    async def claim(
        self, worker: str, targets: Sequence[TargetRule], count: int, host: str = ""
    ) -> Claimed:
        """Take up to ``count`` waiting runs and their leases, the first of each target first.

        Runs that must not start any more end on the way. When the caller is cancelled, no worker
        knows of the claims; they are requeued when their leases run out.

        Args:
            worker: a name that no other process has.
            targets: in the order in which they are served; paused ones are passed over.
            count: how many at most.
            host: where the worker runs, for the journal.
        """
        ...

    async def heartbeat(self, beats: Sequence[Beat]) -> list[ClaimNotice]:
        """Extend the leases, and return the notices about the claims."""
        ...

    async def tend(
        self, worker: str, targets: Sequence[str], interval_seconds: float
    ) -> Housekeeping:
        """Housekeeping for the whole store, by one worker at a time.

        It requeues lost runs, ends overdue ones, and removes those whose time is over.

        Args:
            worker: the caller, by the name it claims with.
            targets: the ones that it executes.
            interval_seconds: for so long after a call of this worker, calls of others do nothing.
        """
        ...

    async def release(self, claim: Claim, reason: str) -> None:
        """Hand a claimed run back; do nothing when the claim is over or the run is gone."""
        ...

    async def recover(self, attempt: int) -> None:
        """Wait before a further try after a failure, longer each time, up to two seconds."""
        ...

    async def wait(self, targets: Sequence[str], seconds: float) -> None:
        """Wait for work, at most ``seconds``; returning early is harmless."""
        ...

    async def control(
        self, worker: str, after: str, seconds: float
    ) -> tuple[list[ControlMessage], str]:
        """Wait for control messages to a worker, at most ``seconds``.

        A message that is missed (of another process, for SQLite) comes with the next heartbeat.

        Args:
            worker: by the name it claims with.
            after: "" for all that are stored, then what the call before returned.
            seconds: how long to wait.

        Returns:
            The messages, and the position to pass as ``after``.

        Raises:
            StoreClosedError: no more messages will come.
        """
        ...


class WorkerList(Protocol):
    """The workers that report themselves; no execution depends on this list."""

    async def beat(self, info: WorkerInfo) -> None:
        """Report a worker; it stays listed until four intervals after its last beat."""
        ...

    async def remove(self, worker_id: str) -> None:
        """Take a worker that has stopped off the list."""
        ...

    async def list(self) -> list[WorkerInfo]:
        """Read the live workers, by id."""
        ...
