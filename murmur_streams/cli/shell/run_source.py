"""The runs that a command works on: in a store, or behind an HTTP server."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from pydantic import JsonValue

from murmur_streams.cli.shell.load_fleet import open_fleet
from murmur_streams.cli.shell.session import RETRY_SECONDS, Session
from murmur_streams.core.model.entries import JournalEntry
from murmur_streams.core.model.errors import RunNotFoundError, StoreConfigurationError
from murmur_streams.core.model.events import RunEvent
from murmur_streams.core.model.pages import RunPage
from murmur_streams.core.model.results import RunResult
from murmur_streams.core.model.run import Run
from murmur_streams.core.model.states import RunState
from murmur_streams.core.rules.cancellation import Cancellation
from murmur_streams.fleet import Fleet
from murmur_streams.fleet.handle import RunHandle
from murmur_streams.stores.work_store import WorkStore
from murmur_streams.wire.submit_options import SubmitOptions

UNSERVED_SECONDS = 1.0
"""How long ``submit`` waits to learn whether a worker serves the target."""
_GONE = "its worker has not been heard of ({}); it ends when any worker is there"


@dataclass(frozen=True, slots=True)
class SubmittedRun:
    """A run that was accepted."""

    run_id: str
    warning: str | None
    """For the submitter: no worker serves the target."""


class RunSource(Protocol):
    """The operations of commands on runs. Both kinds raise the same errors of this library."""

    async def submit(self, target: str, given: JsonValue, options: SubmitOptions) -> SubmittedRun:
        """Submit a run."""
        ...

    async def snapshot(self, run_id: str) -> Run:
        """The current state of a run."""
        ...

    def stream(self, run_id: str, *, after: str | None) -> AsyncGenerator[RunEvent]:
        """The run's events until it has ended."""
        ...

    async def result(self, run: Run) -> RunResult | None:
        """The result of a run; None when it has none."""
        ...

    async def cancel(self, run_id: str, *, reason: str | None, wait: float | bool) -> Cancellation:
        """Request that a run is cancelled."""
        ...

    async def missing_worker(self, run_id: str) -> str | None:
        """Why a running run's worker seems to be gone; None when it is alive or not known."""
        ...

    async def list_runs(
        self, *, state: RunState | None, target: str | None, limit: int, cursor: str | None = None
    ) -> RunPage:
        """A page of runs, newest first."""
        ...

    async def last_entries(self, run: Run, count: int) -> list[JournalEntry]:
        """The newest entries of the run's journal, oldest first."""
        ...

    async def dead_reason(self, run: Run) -> str | None:
        """Why the run is a dead letter; None when it is not one, or not known."""
        ...


@asynccontextmanager
async def open_run_source(
    session: Session, app: str | None = None, *, may_be_new: bool = False
) -> AsyncGenerator[RunSource]:
    """Open the store or the server of the options; it is closed at the end of the block.

    Raises:
        StoreConfigurationError: the store does not exist, and ``may_be_new`` is false.
    """
    if session.server is None:
        async with open_fleet(session, app, may_be_new=may_be_new) as fleet:
            yield StoreSource(fleet)
        return
    if app is not None:
        raise StoreConfigurationError(
            "--app checks by a fleet of this machine; a server checks itself"
        )
    async with _open_http_source(session, session.server) as source:
        yield source


class StoreSource:
    """The runs of a store."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    async def submit(self, target: str, given: JsonValue, options: SubmitOptions) -> SubmittedRun:
        return await check_served(await self._fleet.submit(target, given, **options))

    async def snapshot(self, run_id: str) -> Run:
        return await (await self._fleet.store()).snapshot(run_id)

    async def stream(self, run_id: str, *, after: str | None) -> AsyncGenerator[RunEvent]:
        store = await self._fleet.store()
        async with contextlib.aclosing(store.stream(run_id, after=after)) as events:
            async for event in events:
                yield event

    async def result(self, run: Run) -> RunResult | None:
        return await (await self._fleet.store()).get_result(run.run_id)

    async def cancel(self, run_id: str, *, reason: str | None, wait: float | bool) -> Cancellation:
        return await self._fleet.handle(run_id).cancel(reason=reason, wait=wait)

    async def missing_worker(self, run_id: str) -> str | None:
        return await missing_worker(await self._fleet.store(), run_id)

    async def list_runs(
        self, *, state: RunState | None, target: str | None, limit: int, cursor: str | None = None
    ) -> RunPage:
        store = await self._fleet.store()
        return await store.list_runs(state=state, target=target, limit=limit, cursor=cursor)

    async def last_entries(self, run: Run, count: int) -> list[JournalEntry]:
        return await (await self._fleet.store()).last_entries(run.run_id, count)

    async def dead_reason(self, run: Run) -> str | None:
        if run.state is RunState.FAILED:
            with contextlib.suppress(RunNotFoundError):
                letters = (await self._fleet.store()).dead_letters()
                return (await letters.get(run.run_id)).reason
        return None


def print_own_warnings() -> None:
    """Keep logging's last resort from printing warnings that the command prints itself."""
    for name in ("murmur_streams.fleet", "murmur_streams.client"):
        logging.getLogger(name).addHandler(logging.NullHandler())


async def check_served(handle: RunHandle[Any]) -> SubmittedRun:
    """The submitted run, with a warning when no worker serves its target."""
    return SubmittedRun(handle.run_id, await handle.unserved(UNSERVED_SECONDS))


async def missing_worker(store: WorkStore, run_id: str) -> str | None:
    """Why a running run's worker seems to be gone; None when it is alive, or the run has ended."""
    try:
        run = await store.snapshot(run_id)
    except RunNotFoundError:
        return None
    if run.state is not RunState.RUNNING or run.worker is None:
        return None
    left_ms = await store.lease_left_ms(run_id)
    if left_ms is not None and left_ms < 0:
        return _GONE.format(f"its lease ran out {-left_ms / 1000:.0f} s ago")
    if run.worker not in {worker.id for worker in await store.workers().list()}:
        return _GONE.format("it is not among the live ones")
    return None


@asynccontextmanager
async def _open_http_source(session: Session, server: str) -> AsyncGenerator[RunSource]:
    try:
        from murmur_streams.cli.shell.http_source import HttpSource
        from murmur_streams.client import AsyncClient
    except ImportError as error:
        raise StoreConfigurationError(str(error)) from error
    async with AsyncClient(
        server,
        token=session.token,
        trust_env=session.settings.trust_env,
        retry_seconds=RETRY_SECONDS,
    ) as client:
        yield HttpSource(client)
