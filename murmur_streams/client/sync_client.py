"""Client: the calls of AsyncClient for programs without an event loop; each blocks."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from types import TracebackType
from typing import Any, Self, Unpack

import httpx

from murmur_streams.client import calls, following
from murmur_streams.client.answers import RunEventPage, RunJournalPage, Ticket
from murmur_streams.client.requests import SubmitOptions
from murmur_streams.client.sync_shell import SyncShell
from murmur_streams.client.wire import ClientOptions, Server
from murmur_streams.core.model.entries import JournalEntry
from murmur_streams.core.model.events import RunEvent
from murmur_streams.core.model.feed import FeedEntry
from murmur_streams.core.model.identifiers import check_run_id
from murmur_streams.core.model.pages import RunPage
from murmur_streams.core.model.results import AgentResult, RunResult
from murmur_streams.core.model.run import Run
from murmur_streams.core.model.states import RunState, RunStatus
from murmur_streams.core.rules.cancellation import Cancellation


class Client:
    """The calls of AsyncClient, which tells what the arguments are. May be used by many threads."""

    def __init__(
        self,
        base_url: str,
        *,
        token: str | None = None,
        transport: httpx.BaseTransport | None = None,
        trust_env: bool = True,
        **options: Unpack[ClientOptions],
    ) -> None:
        server = Server.of(base_url, token, options, trust_env=trust_env)
        self._shell = SyncShell(server, transport)
        self._patience = self._shell.server.patience

    def __repr__(self) -> str:
        return f"Client({self._shell.server.url!r})"

    def submit(
        self,
        target: str,
        input: object = None,  # noqa: A002  # the interface's name
        **options: Unpack[SubmitOptions],
    ) -> Handle:
        """Create a run and queue it; arguments and errors as ``AsyncClient.submit``."""
        steps = calls.submit(self._patience, target, input, options)
        submitted = self._shell.call(steps)
        return Handle(submitted.run_id, self._shell, submitted.warning)

    def handle(self, run_id: str) -> Handle:
        """A handle on a run that was submitted anywhere."""
        return Handle(check_run_id(run_id), self._shell)

    def list_runs(
        self,
        *,
        state: RunState | None = None,
        target: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> RunPage:
        """Runs, newest first, page by page; arguments as the store's ``list_runs``."""
        return self._shell.call(calls.list_runs(self._patience, state, target, limit, cursor))

    def agents(self) -> list[str]:
        """The names of the server's agents."""
        return self._shell.call(calls.agents(self._patience))

    def ticket(self, run_id: str) -> Ticket:
        """A way into the run's stream for who can send no headers: a browser's EventSource."""
        return self._shell.call(calls.ticket(self._patience, run_id))

    def stream_many(
        self, run_ids: Iterable[str], *, after: str | None = None
    ) -> Generator[RunEvent]:
        """Replay the events of several runs, follow them live, end when all have ended."""
        return self._shell.follow(following.stream_many(self._patience, run_ids, after))

    def feed(
        self,
        *,
        after: str | None = None,
        targets: Iterable[str] = (),
        types: Iterable[str] = (),
    ) -> Generator[FeedEntry]:
        """The entries of all runs; arguments as ``AsyncClient.feed``."""
        return self._shell.follow(following.feed(self._patience, after, targets, types))

    def close(self) -> None:
        """Close the connections."""
        self._shell.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class Handle:
    """Polls, streams and cancels one run; see ``AsyncHandle`` for what each method promises."""

    def __init__(self, run_id: str, shell: SyncShell, warning: str | None = None) -> None:
        self.run_id = run_id
        self.warning = warning
        """What the server said of the submission, such as that no live worker serves its target."""
        self._shell = shell
        self._patience = shell.server.patience

    def __repr__(self) -> str:
        return f"Handle({self.run_id!r})"

    def status(self) -> RunStatus:
        """State and progress; RunNotFoundError when it was deleted or has expired."""
        return self._shell.call(calls.status(self._patience, self.run_id))

    def snapshot(self) -> Run:
        """Everything that the server tells of the run: no fencing token, no hash of its input."""
        return self._shell.call(calls.snapshot(self._patience, self.run_id))

    def result(self, timeout: float | None = None) -> AgentResult[Any]:
        """Wait for the end, then read the result: an output, or an error as data."""
        return self._shell.call(calls.result(self._patience, self.run_id, timeout))

    def any_result(self, timeout: float | None = None) -> RunResult:
        """The same for a run of an agent or of a group."""
        return self._shell.call(calls.any_result(self._patience, self.run_id, timeout))

    def output(self, timeout: float | None = None) -> Any:
        """Wait for the end and return the output.

        Raises:
            RunFailedError, RunCancelledError: that is how it ended.
            TimeoutError: not ended within ``timeout`` seconds; the run goes on.
        """
        return self._shell.call(calls.output(self._patience, self.run_id, timeout))

    def stream(self, *, after: str | None = None) -> Generator[RunEvent]:
        """Replay the run's events, follow live, end when it has ended; each event once.

        It resumes by itself, and raises what ``AsyncHandle.stream`` does.
        """
        steps = following.stream(self._patience, self.run_id, after)
        return self._shell.follow(steps)

    def events(
        self, *, after: str | None = None, limit: int | None = None, wait: float = 0.0
    ) -> RunEventPage:
        """A page of the run's events; arguments as ``AsyncHandle.events``."""
        return self._shell.call(calls.events(self._patience, self.run_id, after, limit, wait))

    def journal(self, *, after: str | None = None, limit: int = 100) -> RunJournalPage:
        """A page of all the run's entries."""
        return self._shell.call(calls.journal(self._patience, self.run_id, after, limit))

    def last_entries(self, count: int) -> list[JournalEntry]:
        """The newest entries of the run, oldest first."""
        return self._shell.call(calls.last_entries(self._patience, self.run_id, count))

    def cancel(self, *, reason: str | None = None, wait: float | bool = False) -> Cancellation:
        """Ask that the run end cancelled, and tell how far that has come; waits as told."""
        return self._shell.call(calls.cancel(self._patience, self.run_id, reason, wait))

    def delete(self, *, force: bool = False) -> None:
        """Delete the run; RunNotTerminalError when it has not ended, unless forced."""
        self._shell.call(calls.delete(self._patience, self.run_id, force=force))
