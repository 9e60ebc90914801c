"""The interface that programs written for ``murmur.runs`` know, and what our stores add."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping
from typing import Any, Protocol, runtime_checkable

from pydantic import JsonValue

from murmur_streams.core.archive.run_archive import RunArchive
from murmur_streams.core.model.entries import JournalEntry
from murmur_streams.core.model.events import RunEvent
from murmur_streams.core.model.feed import FeedEntry
from murmur_streams.core.model.pages import RunPage
from murmur_streams.core.model.results import RunResult
from murmur_streams.core.model.run import Run
from murmur_streams.core.model.states import RunProgress, RunState, RunStatus
from murmur_streams.core.rules.audit import AuditReport


@runtime_checkable
class RunStore(Protocol):
    """Keeps runs; safe under many concurrent tasks."""

    async def create(
        self,
        run_id: str,
        target: str,
        *,
        input: JsonValue = None,  # noqa: A002  # the interface's name
        metadata: Mapping[str, JsonValue] | None = None,
        tenant: str | None = None,
    ) -> None:
        """Begin a run that waits; ``tenant``: whose it is, None for nobody's."""
        ...

    async def get_status(self, run_id: str) -> RunStatus:
        """State and progress."""
        ...

    async def get_result(self, run_id: str) -> RunResult | None:
        """The result; None until there is one."""
        ...

    async def update_progress(self, run_id: str, progress: RunProgress) -> None:
        """Replace the counters; nothing happens after the end."""
        ...

    async def set_state(self, run_id: str, state: RunState) -> None:
        """Change the state as the table allows; nothing happens where it does not."""
        ...

    async def set_result(self, run_id: str, result: RunResult) -> None:
        """Store the result; after the end only once, and never for a cancelled run."""
        ...

    async def push_event(self, run_id: str, event: RunEvent) -> None:
        """Add an event, also after the end."""
        ...

    def stream(self, run_id: str, *, after: str | None = None) -> AsyncIterator[RunEvent]:
        """Replay what happened, follow live, and end when the run has ended."""
        ...

    async def append(
        self, run_id: str, *events: RunEvent, expected_version: int | None = None
    ) -> int:
        """Add events to a run that has not ended, all or none; the new version."""
        ...

    async def finish(
        self,
        run_id: str,
        state: RunState,
        *,
        result: RunResult | None = None,
        event: RunEvent | None = None,
        error: str | None = None,
    ) -> bool:
        """End a run in one step; False when it had ended before."""
        ...

    async def request_cancel(self, run_id: str, *, reason: str | None = None) -> RunState:
        """Ask that a run end cancelled: at once when it waits; the state afterwards."""
        ...

    async def snapshot(self, run_id: str) -> Run:
        """Everything that is known of the run."""
        ...

    async def get_input(self, run_id: str) -> Any:
        """The input as JSON; None when there is none."""
        ...

    async def list_runs(
        self,
        *,
        state: RunState | None = None,
        target: str | None = None,
        tenant: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> RunPage:
        """Runs, newest first, page by page; a filter that is None lets all through."""
        ...

    def journal(
        self, run_id: str, *, after: str | None = None, follow: bool = False
    ) -> AsyncIterator[JournalEntry]:
        """All entries of the run's journal, late ones included."""
        ...

    def feed(
        self,
        *,
        after: str | None = None,
        targets: Collection[str] | None = None,
        types: Collection[str] | None = None,
    ) -> AsyncIterator[FeedEntry]:
        """The entries of all runs, from the oldest kept one on; it never ends."""
        ...

    async def audit(self, run_id: str) -> AuditReport:
        """Compare what is stored with the fold of the journal."""
        ...

    async def rebuild(self, run_id: str) -> None:
        """Write what is stored anew from the fold of the journal."""
        ...

    async def archive(self, run_id: str) -> RunArchive:
        """Take all that makes the run, as it was at one moment; RunNotFoundError."""
        ...

    async def restore(self, archive: RunArchive) -> bool:
        """Write a run whole, as its journal says; False when this very run is here already.

        Nothing comes of an archive that ``verify`` finds damaged (InvalidArchiveError), and
        nothing of one whose id has another life here, or an older copy (RunExistsError). Cursors
        stay valid; expiry counts from now; a lease is over; what waits is queued; the feed is
        told nothing.
        """
        ...

    async def delete(self, run_id: str, *, force: bool = False) -> bool:
        """Remove an ended run, or with ``force`` any; False when there is none."""
        ...

    async def sweep(self) -> int:
        """Remove what expiry left behind; how many runs that were."""
        ...

    async def close(self) -> None:
        """Release what the store holds; a second call does nothing."""
        ...
