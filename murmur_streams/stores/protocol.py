"""The interfaces of stores, and the home of their documentation: runs, queues, workers."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Sequence
from typing import Protocol, Unpack, runtime_checkable

from pydantic import JsonValue

from murmur_streams.core.archive.run_archive import RunArchive
from murmur_streams.core.model import work
from murmur_streams.core.model.entries import JournalEntry
from murmur_streams.core.model.events import RunEvent
from murmur_streams.core.model.feed import FeedEntry
from murmur_streams.core.model.results import RunResult
from murmur_streams.core.model.run import ListOptions, Run, RunPage
from murmur_streams.core.model.states import RunProgress, RunState, RunStatus
from murmur_streams.core.rules.audit import AuditReport
from murmur_streams.core.rules.requests import RunOptions
from murmur_streams.stores.bell import Bell


@runtime_checkable
class RunStore(Protocol):
    """Stores runs; safe under many concurrent tasks.

    A method that names a run raises RunNotFoundError when the run does not exist, unless its
    documentation says otherwise.
    """

    @staticmethod
    def new_run_id() -> str:
        """Draw a random run id."""
        ...

    async def create(self, run_id: str, target: str, **options: Unpack[RunOptions]) -> None:
        """Begin a run in the state pending, all of it visible at once.

        Args:
            run_id: the run.
            target: the name of an agent or group.
            options: input: its input, as JSON.
                metadata: JSON that the submitter attaches.
                tenant: the tenant that owns the run; None for no tenant.

        Raises:
            RunExistsError: the id is taken.
            InvalidInputError: an argument breaks a rule; nothing was written.
        """

    async def get_status(self, run_id: str) -> RunStatus:
        """Read the run's state and progress; as cheap for a large run as for a small one."""
        ...

    async def get_result(self, run_id: str) -> RunResult | None:
        """Read the result; None until there is one.

        An output that was a pydantic model comes back as a StoredModel with the same fields.
        """
        ...

    async def get_input(self, run_id: str) -> JsonValue:
        """Read the input; None for a run without one."""
        ...

    async def snapshot(self, run_id: str) -> Run:
        """Read everything that is known of the run, except its input, result and journal."""
        ...

    async def list_runs(self, **options: Unpack[ListOptions]) -> RunPage:
        """List runs, newest first.

        Args:
            state: only runs in this state.
            target: only runs of this target.
            tenant: only runs that this tenant owns.
            limit: 1 to 500.
            cursor: the ``cursor`` of the page before; None for the first page.

        Returns:
            A page; its ``cursor`` is None on the last one. Over all pages every run that did not
            change meanwhile comes exactly once.
        """
        ...

    async def update_progress(
        self, run_id: str, progress: RunProgress, *, claim: str | None = None
    ) -> None:
        """Replace the counters of a run that has not ended; later calls do nothing.

        A poll sees them at once. The journal records them at most once a second, and before the
        run's end.

        Args:
            run_id: the run.
            progress: the counters.
            claim: the fencing token of the worker that holds the run.

        Raises:
            LeaseLostError: ``claim`` does not hold the run; nothing was written.
        """

    async def set_state(self, run_id: str, state: RunState) -> None:
        """Change the state where the table of states allows it; elsewhere do nothing.

        After an end without a closing event, the stream stays open for one for
        ``late_event_seconds``.
        """

    async def set_result(self, run_id: str, result: RunResult) -> None:
        """Store the result; after the end only the first one, and never for a cancelled run."""

    async def push_event(self, run_id: str, event: RunEvent) -> None:
        """Add an event, also after the end: after the seal it becomes a late entry."""

    async def append(
        self,
        run_id: str,
        *events: RunEvent,
        expected_version: int | None = None,
        claim: str | None = None,
    ) -> int:
        """Add events to a run that has not ended, all or none.

        Args:
            run_id: the run.
            events: 1 to 500 of them.
            expected_version: the version that the run must have; None for any.
            claim: the fencing token of the worker that holds the run.

        Returns:
            The run's new version: the seq of its last entry.

        Raises:
            WrongExpectedVersionError, RunTerminatedError, LeaseLostError, RunNotFoundError:
                nothing was written.
        """
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
        """End a run in one step: result, last event, state, seal.

        A run whose cancel was requested ends cancelled, whatever state the holder of its claim
        passes.

        Args:
            run_id: the run.
            state: completed, failed or cancelled.
            result: its result.
            event: its last event.
            error: why it failed.
            claim: the fencing token of the worker that holds the run.
            dead: why the run, which must end failed, becomes a dead letter; None: it does not.
            stopped: what made a cancelled run's execution stop: ``handler`` or ``grace``.

        Returns:
            True when this call ended the run, False when it had ended before.

        Raises:
            LeaseLostError: ``claim`` does not hold the run; nothing was written.
        """
        ...

    async def request_cancel(self, run_id: str, *, reason: str | None = None) -> RunState:
        """Ask that a run end cancelled.

        A run that waits (in a queue, for its delay or for its next try) ends at once and never
        starts. A run that a worker executes goes on until the worker, which is woken, has stopped
        it; from then on that worker can only end it cancelled. Asking again changes nothing.

        Returns:
            The run's state after the call: cancelled, running, or the one in which it had ended.
        """
        ...

    def stream(self, run_id: str, *, after: str | None = None) -> AsyncGenerator[RunEvent]:
        """Replay the run's events, follow live, and end when the run is sealed.

        Nothing is missed and nothing comes twice, for any subscriber in any process. Each event
        carries its ``.id``; pass it as ``after`` to resume behind that event.

        Raises:
            RunNotFoundError, InvalidCursorError: at the first event.
            CursorGapError, CursorResetError: events were trimmed away, or the journal is another
                one; ``resume_cursor`` says where to go on.
        """
        ...

    def journal(
        self, run_id: str, *, after: str | None = None, follow: bool = False
    ) -> AsyncGenerator[JournalEntry]:
        """Yield all entries of the run's journal, late ones included; errors as ``stream``.

        Args:
            run_id: the run.
            after: the cursor of the last entry seen; None for the oldest one that is stored.
            follow: whether to go on live until the run is sealed.
        """
        ...

    def feed(
        self,
        *,
        after: str | None = None,
        targets: Collection[str] | None = None,
        types: Collection[str] | None = None,
    ) -> AsyncGenerator[FeedEntry]:
        """Yield the entries of all runs as they come; it never ends.

        A run's entries come in order; runs of different partitions have no order between them.

        Args:
            after: the ``.cursor`` of the last entry seen; None for the oldest one that is stored.
            targets: only entries of runs of these targets.
            types: only entries of these types, EntryType or RunEventType.

        Raises:
            InvalidCursorError: at the first entry.
            CursorGapError, CursorResetError: entries were trimmed away (``feed_max_entries``), or
                the feed is another one.
        """
        ...

    async def audit(self, run_id: str) -> AuditReport:
        """Compare everything that is stored of the run with the fold of its journal."""
        ...

    async def rebuild(self, run_id: str) -> None:
        """Write what is stored of the run anew from the fold of its journal.

        Raises:
            RunNotFoundError: the run has no journal.
            StoreError: its journal cannot be folded (RunDamagedError), or is written to all the
                time.
        """

    async def archive(self, run_id: str) -> RunArchive:
        """Read the run whole, as it was at one moment, to restore it in another store.

        Progress that the journal does not have yet and the owner's lease are not part of it.

        Raises:
            StoreError: the run is written to faster than it can be read.
        """
        ...

    async def restore(self, archive: RunArchive) -> bool:
        """Write an archived run whole, as its journal says; all of it is visible at once.

        Its cursors stay valid. An ended run expires ``ttl_seconds`` from now, a live one as if it
        was written to now. The lease of a claimed run is over; a waiting run is in its queue. The
        feed has no entry of it. A call that was cut short left nothing visible; call again.

        Returns:
            True when it was written; False when this very run is stored already, with at least
            these entries.

        Raises:
            InvalidArchiveError: the archive is damaged; nothing was written.
            RunExistsError: the id has another run, or an older copy of this one.
        """
        ...

    async def delete(self, run_id: str, *, force: bool = False) -> bool:
        """Remove an ended run, or with ``force`` any run; its subscribers' streams end.

        Returns:
            False when the run does not exist.

        Raises:
            RunNotTerminalError, RunDamagedError: it has not ended, or cannot be read, and
                ``force`` is False.
        """
        ...

    async def sweep(self) -> int:
        """Remove ended runs whose time is over, and fail the overdue ones.

        A little of this is done whenever a run begins or ends. Overdue is a run without a write
        for ``live_ttl_seconds``, or whose owner is gone.

        Returns:
            How many runs these were.
        """
        ...

    async def close(self) -> None:
        """Finish the writes under way, and wake every subscriber with StoreClosedError.

        Then release what the store opened; a second call does nothing.
        """


class WorkQueue(Protocol):
    """The waiting work of one store, for workers."""

    async def prepare(self, targets: Sequence[str]) -> None:
        """Get ready to serve these targets; StoreConfigurationError when that is not allowed."""

    async def claim(
        self, worker: str, targets: Sequence[work.TargetRule], count: int, host: str = ""
    ) -> work.Claimed:
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

    async def heartbeat(self, beats: Sequence[work.Beat]) -> list[work.ClaimNotice]:
        """Extend the leases, and return the notices about the claims."""
        ...

    async def tend(
        self, worker: str, targets: Sequence[str], interval_seconds: float
    ) -> work.Housekeeping:
        """Housekeeping for the whole store, by one worker at a time.

        It requeues lost runs, ends overdue ones, and removes those whose time is over.

        Args:
            worker: the caller, by the name it claims with.
            targets: the ones that it executes.
            interval_seconds: for so long after a call of this worker, calls of others do nothing.
        """
        ...

    async def release(self, claim: work.Claim, reason: str) -> None:
        """Hand a claimed run back; do nothing when the claim is over or the run is gone."""

    async def recover(self, attempt: int) -> None:
        """Wait before a further try after a failure, longer each time, up to two seconds."""

    async def wait(self, targets: Sequence[str], seconds: float) -> None:
        """Wait for work, at most ``seconds``; returning early is harmless."""

    async def wait_and_claim(
        self,
        worker: str,
        targets: Sequence[work.TargetRule],
        count: int,
        host: str = "",
        *,
        seconds: float,
        bell: Bell,
    ) -> work.Claimed:
        """Wait up to ``seconds``, then claim; nothing when the bell rings first. May only wait."""
        ...

    async def control(
        self, worker: str, after: str, seconds: float
    ) -> tuple[list[work.ControlMessage], str]:
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

    async def beat(self, info: work.WorkerInfo) -> None:
        """Report a worker; it stays listed until four intervals after its last beat."""

    async def remove(self, worker_id: str) -> None:
        """Take a worker that has stopped off the list."""

    async def list(self) -> list[work.WorkerInfo]:
        """Read the live workers, by id."""
        ...
