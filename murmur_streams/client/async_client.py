"""AsyncClient and AsyncHandle: the fleet's calls over HTTP, for programs with an event loop."""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import AsyncGenerator, Iterable
from functools import partial
from typing import Any, Self, Unpack

import httpx

from murmur_streams.client import answers, requests
from murmur_streams.client.endpoint import ClientOptions, Endpoint
from murmur_streams.client.following import FollowedStream, RunEvents, feed_entry
from murmur_streams.client.shell import AsyncHttp, Shell
from murmur_streams.core.exception_text import error_message, error_traceback, error_type_name
from murmur_streams.core.model import errors
from murmur_streams.core.model.entries import JournalEntry
from murmur_streams.core.model.events import RunEvent
from murmur_streams.core.model.feed import FeedEntry
from murmur_streams.core.model.limits import check_run_id, check_seconds, new_run_id
from murmur_streams.core.model.results import AgentResult, GroupResult, RunResult
from murmur_streams.core.model.run import ClientListOptions, Run, RunPage
from murmur_streams.core.model.states import RunState, RunStatus
from murmur_streams.core.rules.evolve import Cancellation
from murmur_streams.wire.answers import Ticket, result_of, run_of, text_of
from murmur_streams.wire.requests import ClientSubmitOptions

logger = logging.getLogger("murmur_streams.client")

WAIT_SECONDS = 25.0
"""How long one request waits on the server; many proxies end a request after 30 seconds or more."""
LOOK_SECONDS = 0.1
"""The least time between two requests, for servers that wait less than they were asked to."""
MOST_ENTRIES = 500


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
        endpoint = Endpoint.of(base_url, token, options, trust_env=trust_env)
        self._shell = Shell(endpoint, AsyncHttp(endpoint, transport))

    @classmethod
    def over(cls, shell: Shell) -> Self:
        """A client over connections that are there, such as blocking ones."""
        made = cls.__new__(cls)
        made._shell = shell
        return made

    def __repr__(self) -> str:
        return f"AsyncClient({self._shell.url!r})"

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
        run_id = options.get("run_id")
        if run_id is None and options.get("idempotency_key") is None:
            # By this key the server recognizes a second request as the same submission.
            options = {**options, "idempotency_key": new_run_id()}
        retrying = requests.Retrying(self._shell.patience)
        try:
            answer = await self._shell.answered(requests.submit(target, input, **options), retrying)
        except errors.RunExistsError:
            if run_id is None or not retrying.is_unclear:
                raise
            raise errors.OutcomeUnknownError(
                f"an answer was lost, and then run_id {run_id!r} was taken: by this submission or "
                "by one before it; with an idempotency_key instead, this could be known"
            ) from None
        warning = answer.headers.get("murmur-warning")
        if warning is not None:
            logger.warning("%s", ascii(warning)[1:-1])
        run_id = answers.read(answer, lambda members: text_of(members["run_id"]))
        return AsyncHandle(run_id, self._shell, warning)

    def handle(self, run_id: str) -> AsyncHandle:
        """A handle on a run that was submitted anywhere."""
        return AsyncHandle(check_run_id(run_id), self._shell)

    async def list_runs(self, **options: Unpack[ClientListOptions]) -> RunPage:
        """Runs, newest first, page by page; arguments as the store's ``list_runs``."""
        return await self._shell.read(requests.list_runs(**options), answers.page_of)

    async def agents(self) -> list[str]:
        """The names of the server's agents."""
        return await self._shell.read(requests.Ask(path="/agents"), answers.names_of)

    async def ticket(self, run_id: str) -> Ticket:
        """A key to the run's stream, for clients that cannot send headers, such as EventSource."""
        ask = requests.of_run(run_id, "/ticket", method="POST")
        return await self._shell.read(ask, Ticket.model_validate)

    def stream_many(
        self, run_ids: Iterable[str], *, after: str | None = None
    ) -> AsyncGenerator[RunEvent]:
        """Replay the events of several runs, follow them live, end when all have ended."""
        runs = list(dict.fromkeys(run_ids))
        ask, events = partial(requests.stream_many, runs), RunEvents(runs, is_many=True)
        return FollowedStream(self._shell, ask, events.take, events.is_end, after).values()

    def feed(
        self, *, after: str | None = None, targets: Iterable[str] = (), types: Iterable[str] = ()
    ) -> AsyncGenerator[FeedEntry]:
        """The entries of all runs from the oldest stored one, then live, without an end.

        Args:
            after: the ``.cursor`` of the last entry seen; None for the oldest stored one.
            targets: only runs of these agents; empty for all.
            types: only entries of these types; empty for all.
        """
        ask = partial(requests.feed, targets=tuple(targets), types=tuple(types))
        return FollowedStream(self._shell, ask, feed_entry, lambda _: False, after).values()

    async def close(self) -> None:
        """Close the connections."""
        await self._shell.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class AsyncHandle:
    """Polls, streams and cancels one run. It holds only the run's id, so many are cheap."""

    def __init__(self, run_id: str, shell: Shell, warning: str | None = None) -> None:
        self.run_id = run_id
        self.warning = warning
        """The server's warning about the submission: no live worker serves its target."""
        self._shell = shell
        self._patience = shell.patience

    def __repr__(self) -> str:
        return f"AsyncHandle({self.run_id!r})"

    async def status(self) -> RunStatus:
        """State and progress; RunNotFoundError when it was deleted or has expired."""
        ask = requests.of_run(self.run_id, "/status")
        return await self._shell.read(ask, RunStatus.model_validate)

    async def snapshot(self) -> Run:
        """Everything that the server shows of the run: no fencing token, no hash of its input."""
        return await self._shell.read(requests.of_run(self.run_id, ""), run_of)

    async def result(self, timeout: float | None = None) -> AgentResult[Any]:
        """Wait for the end, then read the result: an output, or an error as data.

        Args:
            timeout: seconds; None waits as long as it takes. TimeoutError leaves the run alone.

        Raises:
            RunNotFoundError: the run does not exist.
            MurmurError: the run is of a group; ``any_result`` reads it.
        """
        found = await self.any_result(timeout)
        if isinstance(found, GroupResult):
            raise errors.MurmurError(
                f"run {self.run_id!r} left the result of a group, and a handle reads an agent's"
            )
        return found

    async def any_result(self, timeout: float | None = None) -> RunResult:
        """As ``result``, for a run of an agent or of a group."""
        until = None if timeout is None else self._patience.now() + timeout
        cursor: str | None = None
        while True:
            found = await self._result_or_none(until)
            if found is not None:
                return found
            if until is not None and self._patience.now() >= until:
                raise TimeoutError(f"run {self.run_id!r} has not ended within {timeout:g} seconds")
            cursor = await self._some_time(cursor, until)

    async def output(self, timeout: float | None = None) -> Any:
        """Wait for the end and return the output.

        Raises:
            RunFailedError, RunCancelledError: that is how it ended.
            TimeoutError: not ended within ``timeout`` seconds; the run goes on.
        """
        found = await self.result(timeout)
        error = found.error
        if error is None:
            return found.output
        if isinstance(error, errors.RunCancelledError):
            raise error
        raise errors.RunFailedError(
            self.run_id, error_message(error), error_type_name(error), error_traceback(error)
        )

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
        ask, events = partial(requests.stream, self.run_id), RunEvents([self.run_id])
        return FollowedStream(self._shell, ask, events.take, events.is_end, after).values()

    async def events(
        self, *, after: str | None = None, limit: int | None = None, wait: float = 0.0
    ) -> answers.RunEventPage:
        """A page of the run's events.

        Args:
            after: the page's ``.cursor``, or an event's ``.id``; None for the start.
            limit: how many at most; None leaves it to the server.
            wait: seconds to wait for events when there are none yet.
        """
        ask = requests.events(self.run_id, after, limit, wait)
        return await self._shell.read(ask, answers.events_of)

    async def journal(
        self, *, after: str | None = None, limit: int = 100
    ) -> answers.RunJournalPage:
        """A page of all the run's entries."""
        ask = requests.journal(self.run_id, after, limit)
        return await self._shell.read(ask, partial(answers.journal_of, self.run_id))

    async def last_entries(self, count: int) -> list[JournalEntry]:
        """The newest entries of the run, oldest first: reads its journal to the end."""
        newest: deque[JournalEntry] = deque(maxlen=count)
        cursor: str | None = None
        while True:
            page = await self.journal(after=cursor, limit=MOST_ENTRIES)
            newest.extend(page.entries)
            cursor = page.cursor
            if cursor is None or not page.entries:
                return list(newest)

    async def cancel(
        self, *, reason: str | None = None, wait: float | bool = False
    ) -> Cancellation:
        """Ask that the run end cancelled; how far that has come.

        Args:
            reason: a line for people, stored with the run.
            wait: False does not wait; True waits until the run has ended; a number waits at most
                so many seconds.
        """
        now, until = self._patience.now, math.inf
        if not isinstance(wait, bool):
            until = now() + check_seconds("wait", wait, least=0)
        while True:
            began = now()
            seconds = math.ceil(max(0.0, min(until - began, WAIT_SECONDS)))
            ask = requests.cancel(self.run_id, reason, None if wait is False else seconds)
            answer = await self._shell.answered(ask, requests.Retrying(self._patience))
            run = await self.snapshot()
            found = answers.read(answer, partial(answers.cancellation_of, run=run))
            if wait is False or found.state.is_terminal or now() >= until:
                return found
            if now() - began < LOOK_SECONDS:
                await self._shell.sleep(LOOK_SECONDS)

    async def delete(self, *, force: bool = False) -> None:
        """Delete the run; RunNotTerminalError when it has not ended, unless forced."""
        retrying = requests.Retrying(self._patience)
        try:
            await self._shell.answered(requests.delete(self.run_id, force=force), retrying)
        except errors.RunNotFoundError:
            # After a lost answer it means that the first request has deleted the run.
            if not retrying.is_unclear:
                raise

    async def _result_or_none(self, until: float | None) -> RunResult | None:
        try:
            ask = requests.of_run(self.run_id, "/result")
            found = await self._shell.read(ask, result_of, until)
        except errors.RunNotTerminalError:
            return None
        if isinstance(found, GroupResult) or not isinstance(found.error, errors.RemoteAgentError):
            return found
        run = await self.snapshot()
        if run.state is not RunState.CANCELLED:
            return found
        # A cancelled run has no result: the server made this answer from its state.
        return found.model_copy(update={"error": run.error_without_result})

    async def _some_time(self, cursor: str | None, until: float | None) -> str | None:
        """Wait until the run may have ended; the cursor for the next wait."""
        began, left = self._patience.now(), WAIT_SECONDS
        if cursor is None:
            run = await self._shell.read(requests.of_run(self.run_id, ""), run_of, until)
            if run.state.is_terminal:
                return None
            cursor = run.cursor
        if until is not None:
            left = max(0.0, min(WAIT_SECONDS, until - self._patience.now()))
        ask = requests.events(self.run_id, cursor, MOST_ENTRIES, left)
        page = await self._shell.read(ask, answers.events_of, until)
        if not page.events and self._patience.now() - began < LOOK_SECONDS:
            await self._shell.sleep(min(LOOK_SECONDS, left))
        return page.cursor or cursor
