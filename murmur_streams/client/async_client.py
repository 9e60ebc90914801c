"""AsyncClient: the fleet's calls over HTTP, for programs with an event loop."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Iterable
from typing import Self, Unpack

import httpx

from murmur_streams.client import answers, following, requests
from murmur_streams.client.async_handle import AsyncHandle
from murmur_streams.client.endpoint import ClientOptions, Endpoint
from murmur_streams.client.patience import Retrying
from murmur_streams.client.requests import Ask
from murmur_streams.client.shell import AsyncHttp, Shell
from murmur_streams.core.model.errors import OutcomeUnknownError, RunExistsError
from murmur_streams.core.model.events import RunEvent
from murmur_streams.core.model.feed import FeedEntry
from murmur_streams.core.model.identifiers import check_run_id, new_run_id
from murmur_streams.core.model.pages import RunPage, check_listing
from murmur_streams.core.model.states import RunState
from murmur_streams.wire.answers import Ticket
from murmur_streams.wire.run_json import text_of
from murmur_streams.wire.submit_options import ClientSubmitOptions

logger = logging.getLogger("murmur_streams.client")


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
        retrying = Retrying(self._shell.patience)
        try:
            answer = await self._shell.answered(requests.submit(target, input, **options), retrying)
        except RunExistsError:
            if run_id is None or not retrying.is_unclear:
                raise
            raise OutcomeUnknownError(
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

    async def list_runs(
        self,
        *,
        state: RunState | None = None,
        target: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> RunPage:
        """Runs, newest first, page by page; arguments as the store's ``list_runs``."""
        check_listing(limit, cursor)
        ask = requests.list_runs(state, target, limit, cursor)
        return await self._shell.read(ask, answers.page_of)

    async def agents(self) -> list[str]:
        """The names of the server's agents."""
        return await self._shell.read(Ask(path="/agents"), answers.names_of)

    async def ticket(self, run_id: str) -> Ticket:
        """A key to the run's stream, for clients that cannot send headers, such as EventSource."""
        ask = requests.of_run(run_id, "/ticket", method="POST")
        return await self._shell.read(ask, Ticket.model_validate)

    def stream_many(
        self, run_ids: Iterable[str], *, after: str | None = None
    ) -> AsyncGenerator[RunEvent]:
        """Replay the events of several runs, follow them live, end when all have ended."""
        return following.stream_many(self._shell, run_ids, after)

    def feed(
        self, *, after: str | None = None, targets: Iterable[str] = (), types: Iterable[str] = ()
    ) -> AsyncGenerator[FeedEntry]:
        """The entries of all runs from the oldest stored one, then live, without an end.

        Args:
            after: the ``.cursor`` of the last entry seen; None for the oldest stored one.
            targets: only runs of these agents; empty for all.
            types: only entries of these types; empty for all.
        """
        return following.feed(self._shell, after, targets, types)

    async def close(self) -> None:
        """Close the connections."""
        await self._shell.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
