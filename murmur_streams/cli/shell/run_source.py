"""Where a command finds runs: in a store, or behind a server; what it prints is the same."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from pydantic import JsonValue

from murmur_streams.cli.shell.missing import missing_worker
from murmur_streams.cli.shell.opening import open_fleet
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
from murmur_streams.fleet.submission import SubmitOptions

LOOK_SECONDS = 1.0
"""How long a command waits to know whether a worker serves what it submitted."""


@dataclass(frozen=True, slots=True)
class Submitted:
    """A run that was taken."""

    run_id: str
    warning: str | None
    """What the submitter should know."""


class Place(Protocol):
    """What commands do with runs. Errors are the library's, wherever the runs are."""

    async def submit(self, target: str, given: JsonValue, options: SubmitOptions) -> Submitted:
        """Submit a run."""
        ...

    async def snapshot(self, run_id: str) -> Run:
        """What is known of a run."""
        ...

    def stream(self, run_id: str, *, after: str | None) -> AsyncGenerator[RunEvent]:
        """The run's events until it has ended."""
        ...

    async def result(self, run: Run) -> RunResult | None:
        """What a run left; None when that is nothing."""
        ...

    async def cancel(self, run_id: str, *, reason: str | None, wait: float | bool) -> Cancellation:
        """Ask that a run end cancelled."""
        ...

    async def missing_worker(self, run_id: str) -> str | None:
        """Why a running run's worker seems to be gone; None when it does not, or nobody tells."""
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
        """Why the run is a dead letter; None when it is none, or nobody tells."""
        ...


@asynccontextmanager
async def open_place(
    session: Session, app: str | None = None, *, may_be_new: bool = False
) -> AsyncGenerator[Place]:
    """Open what the options name; it is closed at the end of the block.

    Raises:
        StoreConfigurationError: there is no store, and none may be made (``may_be_new``).
    """
    if session.server is None:
        async with open_fleet(session, app, may_be_new=may_be_new) as fleet:
            yield StorePlace(fleet)
        return
    if app is not None:
        raise StoreConfigurationError(
            "--app checks by a fleet of this machine; a server checks itself"
        )
    async with _over_http(session, session.server) as place:
        yield place


class StorePlace:
    """The runs of a store."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    async def submit(self, target: str, given: JsonValue, options: SubmitOptions) -> Submitted:
        return await submitted(await self._fleet.submit(target, given, **options))

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
    """Keep logging's last resort from showing on stderr what the command prints there itself."""
    for name in ("murmur_streams.fleet", "murmur_streams.client"):
        logging.getLogger(name).addHandler(logging.NullHandler())


async def submitted(handle: RunHandle[Any]) -> Submitted:
    """A submission, once the look for workers is over."""
    return Submitted(handle.run_id, await handle.unserved(LOOK_SECONDS))


@asynccontextmanager
async def _over_http(session: Session, server: str) -> AsyncGenerator[Place]:
    try:
        from murmur_streams.cli.shell.http_source import ServerPlace
        from murmur_streams.client import AsyncClient
    except ImportError as error:
        raise StoreConfigurationError(str(error)) from error
    async with AsyncClient(
        server,
        token=session.token,
        trust_env=session.settings.trust_env,
        retry_seconds=RETRY_SECONDS,
    ) as client:
        yield ServerPlace(client)
