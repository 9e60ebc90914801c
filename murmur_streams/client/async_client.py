"""AsyncClient: the fleet's calls over HTTP, for programs with an event loop."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from types import TracebackType
from typing import Any, Self, Unpack

import httpx

from murmur_streams.client import calls, following
from murmur_streams.client.answers import RunEventPage, RunJournalPage, Ticket
from murmur_streams.client.server import ClientOptions, Server
from murmur_streams.client.shell import AsyncHttp, Shell
from murmur_streams.core.model.entries import JournalEntry
from murmur_streams.core.model.events import RunEvent
from murmur_streams.core.model.feed import FeedEntry
from murmur_streams.core.model.identifiers import check_run_id
from murmur_streams.core.model.pages import RunPage
from murmur_streams.core.model.results import AgentResult, RunResult
from murmur_streams.core.model.run import Run
from murmur_streams.core.model.states import RunState, RunStatus
from murmur_streams.core.rules.cancellation import Cancellation
from murmur_streams.wire.submit_options import ClientSubmitOptions


class AsyncClient:
    """Submits runs to a server and follows them, as a Fleet does without one.

    Does no I/O until it is used. Every call is tried again, with growing waits, while the server
    cannot be reached, is busy or shuts down; it is still applied only once. A refusal of the server
    raises one of the library's own exceptions, and HTTPError when none of them fits.

    Args:
        base_url: ``http://host:port``, or with a path in front of the routes.
        token: the caller's credentials; sent in a header, and never printed or logged.
        transport: a transport of httpx to use instead of the network.
        trust_env: False ignores the variables of the environment that httpx reads: proxies
            (HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY) and trusted certificates
            (SSL_CERT_FILE, SSL_CERT_DIR).
        options: times in seconds, sizes in bytes.

            - timeout_seconds (30): how long one request may take.
            - retry_seconds (30): how long a call, or a stream without a connection, is tried again.
            - silence_seconds (45): a stream that is silent for so long is opened again; the
              default is three heartbeats of the server.
            - max_response_bytes (64 MiB): of one answer, or of one message of a stream.

    Raises:
        InvalidInputError: the address, the token or an option breaks a rule.
        StoreConfigurationError: a variable of the environment cannot be used; the text names it.
    """

    def __init__(
        self,
        base_url: str,
        *,
        token: str | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        trust_env: bool = True,
        **options: Unpack[ClientOptions],
    ) -> None:
        server = Server.of(base_url, token, options, trust_env=trust_env)
        self._use(Shell(server, AsyncHttp(server, transport)))

    def _use(self, shell: Shell) -> None:
        self._shell = shell
        self._patience = shell.server.patience

    @classmethod
    def over(cls, shell: Shell) -> Self:
        """A client over connections that are there, such as blocking ones."""
        made = cls.__new__(cls)
        made._use(shell)
        return made

    def __repr__(self) -> str:
        return f"AsyncClient({self._shell.server.url!r})"

    async def submit(
        self,
        target: str,
        input: object = None,  # noqa: A002  # the interface's name
        **options: Unpack[ClientSubmitOptions],
    ) -> AsyncHandle:
        """Create a run and queue it; a worker's process executes it.

        Args:
            target: the agent's name.
            input: any JSON value; the server checks it against the agent's declared type.
            options: as those of ``Fleet.submit``; and ``wait``: let the answer come when the run
                has ended, or after so many seconds.

        Raises:
            AgentNotRegisteredError: the server has no such agent.
            InvalidInputError: input, run id, metadata or an option breaks a rule; nothing was
                written.
            RunExistsError: the run id is taken.
            IdempotencyConflictError: the key was used for another request.
            OutcomeUnknownError: no try had an answer within ``retry_seconds``.
        """
        steps = calls.submit(self._patience, target, input, options)
        submitted = await self._shell.call(steps)
        return AsyncHandle(submitted.run_id, self._shell, submitted.warning)

    def handle(self, run_id: str) -> AsyncHandle:
        """A handle on a run that was submitted anywhere."""
        return AsyncHandle(check_run_id(run_id), self._shell)

    async def list_runs(
        self,
        *,
        state: RunState | None = None,
        target: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> RunPage:
        """Runs, newest first, page by page; arguments as the store's ``list_runs``."""
        return await self._shell.call(calls.list_runs(self._patience, state, target, limit, cursor))

    async def agents(self) -> list[str]:
        """The names of the server's agents."""
        return await self._shell.call(calls.agents(self._patience))

    async def ticket(self, run_id: str) -> Ticket:
        """A key to the run's stream, for clients that cannot send headers, such as EventSource."""
        return await self._shell.call(calls.ticket(self._patience, run_id))

    def stream_many(
        self, run_ids: Iterable[str], *, after: str | None = None
    ) -> AsyncGenerator[RunEvent]:
        """Replay the events of several runs, follow them live, end when all have ended."""
        return self._shell.follow(following.stream_many(self._patience, run_ids, after))

    def feed(
        self,
        *,
        after: str | None = None,
        targets: Iterable[str] = (),
        types: Iterable[str] = (),
    ) -> AsyncGenerator[FeedEntry]:
        """The entries of all runs from the oldest stored one, then live, without an end.

        Args:
            after: the ``.cursor`` of the last entry seen; None for the oldest stored one.
            targets: only runs of these agents; empty for all.
            types: only entries of these types; empty for all.
        """
        return self._shell.follow(following.feed(self._patience, after, targets, types))

    async def close(self) -> None:
        """Close the connections."""
        await self._shell.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()


class AsyncHandle:
    """Polls, streams and cancels one run. It holds only the run's id, so many are cheap."""

    def __init__(self, run_id: str, shell: Shell, warning: str | None = None) -> None:
        self.run_id = run_id
        self.warning = warning
        """The server's warning about the submission: no live worker serves its target."""
        self._shell = shell
        self._patience = shell.server.patience

    def __repr__(self) -> str:
        return f"AsyncHandle({self.run_id!r})"

    async def status(self) -> RunStatus:
        """State and progress; RunNotFoundError when it was deleted or has expired."""
        return await self._shell.call(calls.status(self._patience, self.run_id))

    async def snapshot(self) -> Run:
        """Everything that the server shows of the run: no fencing token, no hash of its input."""
        return await self._shell.call(calls.snapshot(self._patience, self.run_id))

    async def result(self, timeout: float | None = None) -> AgentResult[Any]:
        """Wait for the end, then read the result: an output, or an error as data.

        Args:
            timeout: seconds; None waits as long as it takes. TimeoutError leaves the run alone.

        Raises:
            RunNotFoundError: the run does not exist.
            MurmurError: the run is of a group; ``any_result`` reads it.
        """
        return await self._shell.call(calls.result(self._patience, self.run_id, timeout))

    async def any_result(self, timeout: float | None = None) -> RunResult:
        """As ``result``, for a run of an agent or of a group."""
        return await self._shell.call(calls.any_result(self._patience, self.run_id, timeout))

    async def output(self, timeout: float | None = None) -> Any:
        """Wait for the end and return the output.

        Raises:
            RunFailedError, RunCancelledError: that is how it ended.
            TimeoutError: not ended within ``timeout`` seconds; the run goes on.
        """
        return await self._shell.call(calls.output(self._patience, self.run_id, timeout))

    def stream(self, *, after: str | None = None) -> AsyncGenerator[RunEvent]:
        """Replay the run's events, follow live, end when it has ended; each event once.

        It resumes by itself after a lost connection and after a restart, on the same or another
        server.

        Args:
            after: the ``.id`` of the last event seen; None for the start.

        Raises:
            CursorGapError, CursorResetError: it cannot resume from its cursor; a caller can resume
                from the error's ``resume_cursor``.
        """
        steps = following.stream(self._patience, self.run_id, after)
        return self._shell.follow(steps)

    async def events(
        self, *, after: str | None = None, limit: int | None = None, wait: float = 0.0
    ) -> RunEventPage:
        """A page of the run's events.

        Args:
            after: the page's ``.cursor``, or an event's ``.id``; None for the start.
            limit: how many at most; None leaves it to the server.
            wait: seconds to wait for events when there are none yet.
        """
        return await self._shell.call(calls.events(self._patience, self.run_id, after, limit, wait))

    async def journal(self, *, after: str | None = None, limit: int = 100) -> RunJournalPage:
        """A page of all the run's entries."""
        return await self._shell.call(calls.journal(self._patience, self.run_id, after, limit))

    async def last_entries(self, count: int) -> list[JournalEntry]:
        """The newest entries of the run, oldest first."""
        return await self._shell.call(calls.last_entries(self._patience, self.run_id, count))

    async def cancel(
        self, *, reason: str | None = None, wait: float | bool = False
    ) -> Cancellation:
        """Ask that the run end cancelled; how far that has come.

        Args:
            reason: a line for people, stored with the run.
            wait: False does not wait; True waits until the run has ended; a number waits at most
                so many seconds.
        """
        return await self._shell.call(calls.cancel(self._patience, self.run_id, reason, wait))

    async def delete(self, *, force: bool = False) -> None:
        """Delete the run; RunNotTerminalError when it has not ended, unless forced."""
        await self._shell.call(calls.delete(self._patience, self.run_id, force=force))
