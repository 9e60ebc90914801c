"""WorkStore: a store whose runs wait in queues, and the parts of it that workers use.

The documentation of the methods is here; the stores inherit it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Sequence
from typing import Protocol, Unpack

from pydantic import JsonValue

from murmur_streams.core.model.dead_letters import DeadLetter, DeadLetterPage
from murmur_streams.core.model.entries import JournalEntry
from murmur_streams.core.model.events import RunEvent
from murmur_streams.core.model.feed import FeedEntry
from murmur_streams.core.model.limits import Limits
from murmur_streams.core.model.states import RunState
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
from murmur_streams.core.rules.requests import QueuedRunOptions
from murmur_streams.stores.protocol import RunStore


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


class DeadLetterBox(Protocol):
    """The runs that failed for good; their letters stay until they are requeued or purged.

    Redis stores about the last 10,000 letters of a target in each partition.
    """

    async def list(
        self, target: str | None = None, *, limit: int = 50, cursor: str | None = None
    ) -> DeadLetterPage:
        """Read dead letters, target by target, the newest first (on Redis, of each partition).

        Args:
            target: only letters of this target.
            limit: 1 to 500.
            cursor: the ``cursor`` of the page before; None for the first page.
        """
        ...

    async def get(self, run_id: str) -> DeadLetter:
        """Read the dead letter of a run.

        One or two look-ups while the run is stored. Otherwise all letters are searched (on Redis,
        those of the run's partition), the newest first.

        Raises:
            DeadLetterNotFoundError: there is none: the run did not die, or its letter was requeued
                or purged.
        """
        ...

    async def requeue(self, run_id: str) -> str:
        """Submit the run again under a new id, and remove its letter, in one step.

        The new run has the old one's input, tenant, priority and trace, and its deadline's span,
        counted from now.

        Returns:
            The new run's id. Its metadata holds the old one as ``requeued_from``.

        Raises:
            DeadLetterNotFoundError: the letter does not exist, or was taken meanwhile.
        """
        ...

    async def purge(
        self,
        *,
        run_id: str | None = None,
        target: str | None = None,
        older_than_seconds: float | None = None,
        all: bool = False,  # noqa: A002  # the command line's word
    ) -> int:
        """Remove dead letters: one run's, those of a target or of some age, or all.

        Args:
            run_id: only this run's.
            target: only letters of this target.
            older_than_seconds: only of runs that ended longer ago, by the store's clock.
            all: every letter; must be given alone.

        Returns:
            How many letters were removed.

        Raises:
            InvalidInputError: no argument says which letters, or ``all`` comes with another
                argument, or the age is negative or not a number. Nothing is removed.
        """
        ...


class WorkStore(RunStore, Protocol):
    """A store whose runs wait in queues and are executed by workers."""

    @property
    def where(self) -> str:
        """Where the runs are, for people; without a password."""
        ...

    @property
    def limits(self) -> Limits:
        """The largest sizes that the store accepts."""
        ...

    @property
    def live_ttl_ms(self) -> int:
        """How long a run that has not ended may go without a write; 0 for ever."""
        ...

    @property
    def warning(self) -> str | None:
        """A problem that an operator should mend though the store works; None without one."""
        ...

    def queue(self, lease_seconds: float) -> WorkQueue:
        """The waiting work; a claim of it holds for ``lease_seconds`` without a heartbeat."""
        ...

    def workers(self, interval_seconds: float = 5.0) -> WorkerList:
        """The list of live workers, each of which reports itself once in an interval."""
        ...

    def dead_letters(self) -> DeadLetterBox:
        """The runs that failed for good."""
        ...

    async def ping(self) -> None:
        """Return when the store can be used now, else raise why not."""
        ...

    async def recover(self, attempt: int) -> None:
        """Wait before a further try after a failure, longer each time, up to two seconds."""
        ...

    def stream(self, run_id: str, *, after: str | None = None) -> AsyncGenerator[RunEvent]: ...

    def journal(
        self, run_id: str, *, after: str | None = None, follow: bool = False
    ) -> AsyncGenerator[JournalEntry]: ...

    def feed(
        self,
        *,
        after: str | None = None,
        targets: Collection[str] | None = None,
        types: Collection[str] | None = None,
    ) -> AsyncGenerator[FeedEntry]: ...

    async def check_feed_cursor(self, after: str) -> None:
        """Refuse a cursor from which the feed cannot go on, without waiting for entries.

        Raises:
            InvalidCursorError, CursorGapError, CursorResetError: as the feed.
        """
        ...

    async def last_entries(self, run_id: str, count: int) -> list[JournalEntry]:
        """Read the newest entries of the run's journal, oldest first; [] if it does not exist."""
        ...

    async def lease_left_ms(self, run_id: str) -> int | None:
        """How long the run's lease still holds, below 0 when it ran out; None without one."""
        ...

    async def submit(self, run_id: str, target: str, **options: Unpack[QueuedRunOptions]) -> None:
        """Begin a run and put it into its target's queue, in one step.

        Args:
            run_id: the run.
            target: the name of an agent.
            options: those of ``create``, and
                priority: from -100 to 100; a step is worth a minute of waiting, so that every
                run gets its turn.
                delay_seconds: how long from now on it must not start, by the server's clock.
                at: when it is due, with a time zone; instead of a delay.
                deadline_seconds: how long after it is due it fails if it has not ended.
                trace: the W3C headers ``traceparent`` and ``tracestate``.
                request_sha256: the digest of a request with an idempotency key, stored with the
                run.

        Raises:
            RunExistsError: the id is taken.
            InvalidInputError: an argument breaks a rule; nothing was written.
        """
        ...

    async def release(
        self,
        run_id: str,
        claim: str,
        reason: str,
        *,
        delay_seconds: float = 0.0,
        error: str | None = None,
    ) -> RunState:
        """Hand a claimed run back: it waits in its queue again, without a delay where it was.

        Args:
            run_id: the run.
            claim: the fencing token of the worker that holds it.
            reason: ``failed`` counts a failure; ``worker_stopped`` and ``retry_later`` do not
                count against the most attempts.
            delay_seconds: how long from now on it must not start, by the server's clock.
            error: the error of the execution; the run keeps the first ones.

        Returns:
            The run's state afterwards: pending, or cancelled when that was requested; another one
            when it was not running.

        Raises:
            LeaseLostError: ``claim`` does not hold the run; nothing was written.
        """
        ...

    async def deliver_cancel(self, run_id: str, claim: str) -> None:
        """Record that the execution knows of the requested cancel; once is enough.

        Raises:
            LeaseLostError: ``claim`` does not hold the run; nothing was written.
        """
        ...

    async def checkpoint(self, run_id: str, value: JsonValue, claim: str) -> None:
        """Store a value for the run's next execution, which replaces the one before.

        Args:
            run_id: the run.
            value: any JSON, up to ``max_result_bytes``.
            claim: the fencing token of the worker that holds it.

        Raises:
            PayloadTooLargeError: the value is too large; nothing was written.
            LeaseLostError: ``claim`` does not hold the run; nothing was written.
        """
        ...

    async def last_checkpoint(self, run_id: str) -> JsonValue:
        """Read the last checkpoint of the run; None without one."""
        ...

    async def pause(self, target: str) -> None:
        """Let no worker start a run of this target from now on; running ones go on."""
        ...

    async def resume(self, target: str) -> None:
        """Let workers start runs of this target again, and wake some of them."""
        ...

    async def paused(self) -> set[str]:
        """The targets that are paused."""
        ...
