"""What fleets, servers and the command line need of a store: runs, and the work of workers."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from datetime import datetime
from typing import Protocol

from pydantic import JsonValue

from murmur_streams.core.model.dead_letters import DeadLetter, DeadLetterPage
from murmur_streams.core.model.entries import JournalEntry
from murmur_streams.core.model.events import RunEvent
from murmur_streams.core.model.feed import FeedEntry
from murmur_streams.core.model.limits import Limits
from murmur_streams.core.model.results import RunResult
from murmur_streams.core.model.states import RunProgress, RunState
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

        Runs that may not be started any more end on the way; paused targets are passed over.
        """
        ...

    async def heartbeat(self, beats: Sequence[Beat]) -> list[ClaimNotice]:
        """Move the leases on; what there is to say of the claims."""
        ...

    async def tend(
        self, worker: str, targets: Sequence[str], interval_seconds: float
    ) -> Housekeeping:
        """Do for all what nobody does for himself; of all workers one at a time does it.

        For ``interval_seconds`` after a call of this worker no other one's does anything.
        """
        ...

    async def release(self, claim: Claim, reason: str) -> None:
        """Hand a claimed run back; nothing happens when the claim is over or the run is gone."""
        ...

    async def recover(self, attempt: int) -> None:
        """Wait before a further try after a failure, longer each time, to two seconds."""
        ...

    async def wait(self, targets: Sequence[str], seconds: float) -> None:
        """Wait for work, at most ``seconds``; returning early is harmless."""
        ...

    async def control(
        self, worker: str, after: str, seconds: float
    ) -> tuple[list[ControlMessage], str]:
        """Wait for what a worker is woken with, at most ``seconds``.

        Args:
            worker: by the name it claims with.
            after: "" for all there is, then what the call before returned.
            seconds: how long to wait.

        Returns:
            The messages, and where to go on.
        """
        ...


class WorkerList(Protocol):
    """Who is there, by their own word; nothing that runs depends on it."""

    async def beat(self, info: WorkerInfo) -> None:
        """Say that a worker is there; it is listed until four intervals after its last beat."""
        ...

    async def remove(self, worker_id: str) -> None:
        """Take a worker that has stopped off the list."""
        ...

    async def list(self) -> list[WorkerInfo]:
        """Read who is there, by id."""
        ...


class DeadLetterBox(Protocol):
    """The runs that failed for good; their letters stay until they are requeued or purged."""

    async def list(
        self, target: str | None = None, *, limit: int = 50, cursor: str | None = None
    ) -> DeadLetterPage:
        """Read dead letters, target by target, the newest first; 1 to 500 on a page."""
        ...

    async def get(self, run_id: str) -> DeadLetter:
        """Read the dead letter of a run; DeadLetterNotFoundError when there is none."""
        ...

    async def requeue(self, run_id: str) -> str:
        """Submit the run again under a new id, and remove its letter, in one step; the new id.

        Raises:
            DeadLetterNotFoundError: there is no such letter (any more).
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
        """Remove letters: one run's, those of a target or of some age, or all; how many.

        Raises:
            InvalidInputError: nothing says which, or ``all`` comes beside something that does.
        """
        ...


class WorkStore(RunStore, Protocol):
    """A store whose runs wait in queues and are executed by workers."""

    @property
    def where(self) -> str:
        """Where the runs are, for people; no password is in it."""
        ...

    @property
    def limits(self) -> Limits:
        """The sizes that it takes."""
        ...

    @property
    def live_ttl_ms(self) -> int:
        """How long nobody may write to a run that has not ended; 0 for ever."""
        ...

    @property
    def warning(self) -> str | None:
        """What an operator should mend though the store works, for probes; None for nothing."""
        ...

    def queue(self, lease_seconds: float) -> WorkQueue:
        """The waiting work; a claim of it holds for so long without a heartbeat."""
        ...

    def workers(self, interval_seconds: float = 5.0) -> WorkerList:
        """The list of live workers, each of which says so once in an interval."""
        ...

    def dead_letters(self) -> DeadLetterBox:
        """The runs that failed for good."""
        ...

    async def ping(self) -> None:
        """Return when the store can be used now, else raise why not."""
        ...

    async def recover(self, attempt: int) -> None:
        """Wait before a further try after a failure, longer each time, to two seconds."""
        ...

    def stream(self, run_id: str, *, after: str | None = None) -> AsyncGenerator[RunEvent]:
        """As RunStore's, and it can be closed."""
        ...

    def journal(
        self, run_id: str, *, after: str | None = None, follow: bool = False
    ) -> AsyncGenerator[JournalEntry]:
        """As RunStore's, and it can be closed."""
        ...

    def feed(
        self,
        *,
        after: str | None = None,
        targets: Collection[str] | None = None,
        types: Collection[str] | None = None,
    ) -> AsyncGenerator[FeedEntry]:
        """As RunStore's, and it can be closed."""
        ...

    async def check_feed_cursor(self, after: str) -> None:
        """Refuse a cursor from which the feed cannot go on, without waiting for news.

        Raises:
            InvalidCursorError, CursorGapError, CursorResetError: as the feed.
        """
        ...

    async def last_entries(self, run_id: str, count: int) -> list[JournalEntry]:
        """The newest entries of the run's journal, oldest first; none when there is no run."""
        ...

    async def lease_left_ms(self, run_id: str) -> int | None:
        """How long the run's lease still holds, below 0 when it ran out; None without one."""
        ...

    async def submit(  # noqa: PLR0913  # one for each part of a submission
        self,
        run_id: str,
        target: str,
        *,
        input: JsonValue = None,  # noqa: A002  # the interface's name
        metadata: Mapping[str, JsonValue] | None = None,
        tenant: str | None = None,
        priority: int = 0,
        delay_seconds: float = 0.0,
        at: datetime | None = None,
        deadline_seconds: float | None = None,
        trace: Mapping[str, str] | None = None,
        request_sha256: str | None = None,
    ) -> None:
        """Begin a run and put it into its target's queue, in one step."""
        ...

    async def append(
        self,
        run_id: str,
        *events: RunEvent,
        expected_version: int | None = None,
        claim: str | None = None,
    ) -> int:
        """As RunStore's; with a ``claim`` only while that holds the run, else LeaseLostError."""
        ...

    async def update_progress(
        self, run_id: str, progress: RunProgress, *, claim: str | None = None
    ) -> None:
        """As RunStore's; with a ``claim`` only while that holds the run, else LeaseLostError."""
        ...

    async def finish(
        self,
        run_id: str,
        state: RunState,
        *,
        result: RunResult | None = None,
        event: RunEvent | None = None,
        error: str | None = None,
        claim: str | None = None,
        dead: str | None = None,
        stopped: str | None = None,
    ) -> bool:
        """As RunStore's; with a ``claim`` only while that holds the run, else LeaseLostError.

        ``dead``: why a failed run goes to the dead letters. ``stopped``: what made a cancelled
        run's execution stop.
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
        """Hand a claimed run back; its state afterwards."""
        ...

    async def deliver_cancel(self, run_id: str, claim: str) -> None:
        """Note that the execution has learnt that its end was asked for."""
        ...

    async def checkpoint(self, run_id: str, value: JsonValue, claim: str) -> None:
        """Keep a value for the run's next execution, instead of the one before."""
        ...

    async def last_checkpoint(self, run_id: str) -> JsonValue:
        """The value that an execution kept last; None when none did."""
        ...

    async def pause(self, target: str) -> None:
        """Let no worker start a run of this target from now on; those that run go on."""
        ...

    async def resume(self, target: str) -> None:
        """Let workers start runs of this target again."""
        ...

    async def paused(self) -> set[str]:
        """The targets that are paused."""
        ...
