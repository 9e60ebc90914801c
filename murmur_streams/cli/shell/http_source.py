"""Runs behind an HTTP server."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from pydantic import JsonValue

from murmur_streams.cli.shell.run_source import SubmittedRun
from murmur_streams.client import AsyncClient
from murmur_streams.core.model.entries import JournalEntry
from murmur_streams.core.model.events import RunEvent
from murmur_streams.core.model.pages import RunPage
from murmur_streams.core.model.results import RunResult
from murmur_streams.core.model.run import Run
from murmur_streams.core.model.states import RunState
from murmur_streams.core.rules.cancellation import Cancellation
from murmur_streams.wire.submit_options import SubmitOptions


class HttpSource:
    """The runs behind an HTTP server, which shows neither workers nor dead letters."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    async def submit(self, target: str, given: JsonValue, options: SubmitOptions) -> SubmittedRun:
        # The server takes the tenant from the token.
        asked = {name: value for name, value in options.items() if name != "tenant"}
        handle = await self._client.submit(target, given, **asked)  # pyright: ignore[reportArgumentType]  # the keywords are the same
        return SubmittedRun(handle.run_id, handle.warning)

    async def snapshot(self, run_id: str) -> Run:
        return await self._client.handle(run_id).snapshot()

    def stream(self, run_id: str, *, after: str | None) -> AsyncGenerator[RunEvent]:
        return self._client.handle(run_id).stream(after=after)

    async def result(self, run: Run) -> RunResult | None:
        # For a run without a result, the server would make one of its state alone.
        if not run.state.is_terminal or run.result_size is None:
            return None
        return await self._client.handle(run.run_id).any_result()

    async def cancel(self, run_id: str, *, reason: str | None, wait: float | bool) -> Cancellation:
        return await self._client.handle(run_id).cancel(reason=reason, wait=wait)

    async def missing_worker(self, run_id: str) -> str | None:  # noqa: ARG002
        return None

    async def list_runs(
        self, *, state: RunState | None, target: str | None, limit: int, cursor: str | None = None
    ) -> RunPage:
        return await self._client.list_runs(state=state, target=target, limit=limit, cursor=cursor)

    async def last_entries(self, run: Run, count: int) -> list[JournalEntry]:
        return await self._client.handle(run.run_id).last_entries(count)

    async def dead_reason(self, run: Run) -> str | None:  # noqa: ARG002
        return None
