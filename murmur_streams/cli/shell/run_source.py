"""The runs that a command works on: in a store, or behind an HTTP server."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from pydantic import JsonValue

from murmur_streams.cli.shell.load_fleet import open_fleet
from murmur_streams.cli.shell.session import RETRY_SECONDS, Session
from murmur_streams.core.model.entries import JournalEntry
from murmur_streams.core.model.errors import RunNotFoundError, StoreConfigurationError
from murmur_streams.core.model.results import RunResult
from murmur_streams.core.model.run import MOST_RUNS, Run, RunPage
from murmur_streams.core.model.states import RunState
from murmur_streams.fleet import Fleet
from murmur_streams.fleet.handle import RunHandle
from murmur_streams.wire.requests import SubmitOptions

if TYPE_CHECKING:
    from murmur_streams.client import AsyncClient, AsyncHandle

UNSERVED_SECONDS = 1.0
"""How long ``submit`` waits to learn whether a worker serves the target."""
_GONE = "its worker has not been heard of ({}); it ends when any worker is there"


class RunSource:
    """The operations of commands on the runs of a store.

    Its subclass HttpSource has them for the runs behind a server, and raises the same errors.
    """

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    async def submit(
        self, target: str, given: JsonValue, options: SubmitOptions
    ) -> tuple[str, str | None]:
        """Submit a run; returns its id, and a warning when no worker serves the target."""
        handle = await self._fleet.submit(target, given, **options)
        return handle.run_id, await handle.unserved(UNSERVED_SECONDS)

    def handle(self, run_id: str) -> RunHandle[Any] | AsyncHandle:
        """The handle of one run: its snapshot, its stream, its cancel."""
        return self._fleet.handle(run_id)

    async def result(self, run: Run) -> RunResult | None:
        """The result of a run; None when it has none."""
        return await (await self._fleet.store()).get_result(run.run_id)

    async def missing_worker(self, run_id: str) -> str | None:
        """Why a running run's worker seems to be gone; None when it is alive or not known."""
        store = await self._fleet.store()
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

    async def list_runs(self, **selection: Any) -> RunPage:
        """A page of runs, newest first; arguments as the store's ``list_runs``."""
        return await (await self._fleet.store()).list_runs(**selection)

    async def last_entries(self, run: Run, count: int) -> list[JournalEntry]:
        """The newest entries of the run's journal, oldest first."""
        return await (await self._fleet.store()).last_entries(run.run_id, count)

    async def dead_reason(self, run: Run) -> str | None:
        """Why the run is a dead letter; None when it is not one, or not known."""
        if run.state is RunState.FAILED:
            with contextlib.suppress(RunNotFoundError):
                letters = (await self._fleet.store()).dead_letters()
                return (await letters.get(run.run_id)).reason
        return None


class HttpSource(RunSource):
    """The runs behind an HTTP server, which shows neither workers nor dead letters."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    async def submit(
        self, target: str, given: JsonValue, options: SubmitOptions
    ) -> tuple[str, str | None]:
        # The server takes the tenant from the token.
        asked = {name: value for name, value in options.items() if name != "tenant"}
        handle = await self._client.submit(target, given, **asked)  # pyright: ignore[reportArgumentType]  # the keywords are the same
        return handle.run_id, handle.warning

    def handle(self, run_id: str) -> AsyncHandle:
        return self._client.handle(run_id)

    async def result(self, run: Run) -> RunResult | None:
        # For a run without a result, the server would make one of its state alone.
        if not run.state.is_terminal or run.result_size is None:
            return None
        return await self.handle(run.run_id).any_result()

    async def missing_worker(self, run_id: str) -> str | None:  # noqa: ARG002
        return None

    async def list_runs(self, **selection: Any) -> RunPage:
        return await self._client.list_runs(**selection)

    async def last_entries(self, run: Run, count: int) -> list[JournalEntry]:
        return await self.handle(run.run_id).last_entries(count)

    async def dead_reason(self, run: Run) -> str | None:  # noqa: ARG002
        return None


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
            yield RunSource(fleet)
        return
    if app is not None:
        raise StoreConfigurationError(
            "--app checks by a fleet of this machine; a server checks itself"
        )
    try:
        from murmur_streams.client import AsyncClient
    except ImportError as error:
        raise StoreConfigurationError(str(error)) from error
    async with AsyncClient(
        session.server,
        token=session.token,
        trust_env=session.settings.trust_env,
        retry_seconds=RETRY_SECONDS,
    ) as client:
        yield HttpSource(client)


async def every_run(
    list_runs: Callable[..., Awaitable[RunPage]], *, cursor: str | None = None, **selection: Any
) -> AsyncGenerator[Run]:
    """All runs that ``list_runs`` has, newest first, or those after the cursor."""
    while True:
        page = await list_runs(limit=MOST_RUNS, cursor=cursor, **selection)
        for run in page.runs:
            yield run
        cursor = page.cursor
        if cursor is None:
            return


def print_own_warnings() -> None:
    """Keep logging's last resort from printing warnings that the command prints itself."""
    for name in ("murmur_streams.fleet", "murmur_streams.client"):
        logging.getLogger(name).addHandler(logging.NullHandler())
