"""Fleet: the agents of a program, and submission to them; SyncFleet: the same, blocking."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from typing import Any, Self, TypeVar, Unpack, cast, overload

from pydantic import JsonValue

from murmur_streams.core.json_values import copy_json
from murmur_streams.core.model.errors import AgentNotRegisteredError
from murmur_streams.core.model.limits import check_run_id
from murmur_streams.core.model.run import ListOptions, RunPage
from murmur_streams.core.model.work import WorkerInfo
from murmur_streams.fleet.agents import Agent, AgentRegistry
from murmur_streams.fleet.background import Blocking, SyncRunHandle, blocking
from murmur_streams.fleet.handle import DeadRuns, RunHandle
from murmur_streams.fleet.inline import InlineOptions, InlineRun, run_inline
from murmur_streams.fleet.stores import StoreOfLoop, UnservedTargets, source_of
from murmur_streams.fleet.submission import retry_run, sent_form, submit_run
from murmur_streams.stores.redis.connection.maker import AnyClient
from murmur_streams.stores.work_store import WorkStore
from murmur_streams.wire.requests import SubmitOptions

T = TypeVar("T")
AsyncFunction = Callable[..., Awaitable[T]]
Function = Callable[..., T]
AgentOrName = Callable[..., Any] | str
"""A registered function, or an agent's name."""


class Fleet(AgentRegistry):
    """Agents by name, and a way to submit runs to them.

    Does no I/O until it is used, so it may be made at import time; every event loop and every
    forked process gets connections of its own. Close it when the loop has no more use for it:
    ``async with fleet:`` or ``await fleet.close()``; used again, it opens new connections.

    Args:
        url: the store that holds the runs; None takes MURMUR_URL, else the embedded server. The
            processes of one machine may share a file of ``sqlite:``. A folder of ``rocksdb:`` and
            ``memory:`` are for one process, which submits and works.
        client: instead of the URL, a client of redis.asyncio: ``Redis``, the ``master_for`` of a
            ``Sentinel``, or ``RedisCluster``. The fleet connects by itself, with the client's
            addresses, credentials (also a ``credential_provider``) and TLS options; it does not use
            the client's connections, and does not close it. A program that does not import the
            fleet, such as ``murmur-streams submit``, needs a URL.
        options: for the store, such as ttl_seconds, and of a Redis key_prefix and partitions; the
            MURMUR_* variables set the rest.

    Raises:
        InvalidInputError: the URL is not text, the client is not one of redis.asyncio, or both are
            given.
        StoreConfigurationError: the client reads from replicas.
        TypeError: the option does not exist.
    """

    def __init__(
        self, url: str | None = None, *, client: AnyClient | None = None, **options: Any
    ) -> None:
        super().__init__()
        self._stores = StoreOfLoop(source_of(url, client), options)
        self._unserved = UnservedTargets()

    @overload
    async def submit(
        self, agent: AsyncFunction[T], input: object = None, **options: Unpack[SubmitOptions]
    ) -> RunHandle[T]: ...
    @overload
    async def submit(
        self, agent: Function[T], input: object = None, **options: Unpack[SubmitOptions]
    ) -> RunHandle[T]: ...
    @overload
    async def submit(
        self, agent: str, input: object = None, **options: Unpack[SubmitOptions]
    ) -> RunHandle[Any]: ...
    async def submit(
        self,
        agent: AgentOrName,
        input: object = None,  # noqa: A002  # the interface's name
        **options: Unpack[SubmitOptions],
    ) -> RunHandle[Any]:
        """Create a run and queue it, in one step; a worker's process executes it.

        When no live worker serves the agent, a warning is logged, at most once a minute for each
        agent; the run waits.

        Args:
            agent: the function, or its name. A fleet without agents of its own submits to any
                name; a fleet that has agents rejects all other names as mistakes.
            input: checked against the agent's declared type. None means no input: if the agent's
                parameter has a default, the default applies.
            options: each may be left out.

                - run_id: None draws one.
                - metadata: a mapping of names to JSON, stored with the run.
                - tenant: the tenant that owns the run; runs can be listed by tenant.
                - idempotency_key: the run id is derived from tenant, target and key. The same
                  request with the same key returns a handle on the existing run. A request
                  consists of input, metadata, delay, at, priority and deadline.
                - delay (seconds or timedelta) or at (a datetime with its zone): when it is due.
                - priority: -100 to 100; a step is worth a minute of waiting, so no run starves.
                - deadline: seconds or timedelta for the whole run, from when it is due; None
                  takes the agent's.
                - trace: traceparent and tracestate of W3C; None takes OpenTelemetry's current
                  span when the program uses that library.

        Raises:
            AgentNotRegisteredError: the fleet has no such agent.
            InvalidInputError: input, run id, metadata or an option breaks a rule; nothing was
                written.
            RunExistsError: the run id is taken.
            IdempotencyConflictError: the key was used for another request.
        """
        known = self._find(agent)
        name = known.name if known is not None else cast("str", agent)
        given = copy_json(input, "the input") if known is None else known.encode_input(input)
        # Only the digest of a key needs it.
        sent = None if options.get("idempotency_key") is None else sent_form(input, given)
        return await self._submit(known, name, given, sent=sent, **options)

    async def submit_json(
        self,
        target: str,
        input: JsonValue,  # noqa: A002  # as in submit
        *,
        request_sha256: str | None = None,
        **options: Unpack[SubmitOptions],
    ) -> RunHandle[Any]:
        """Submit an input that arrived as JSON, as a server does for its clients.

        Args:
            target: the agent's name.
            input: JSON, checked as JSON against the agent's declared type: text may be a date.
            request_sha256: the digest of the client's request, stored with the run.
            options: as for ``submit``. The errors are the same, too.
        """
        known = self._find(target)
        given = input if known is None else known.encode_json_input(input)
        return await self._submit(
            known, target, given, sent=input, request_sha256=request_sha256, **options
        )

    async def _submit(
        self,
        known: Agent | None,
        target: str,
        given: JsonValue,
        *,
        sent: JsonValue,
        request_sha256: str | None = None,
        **options: Unpack[SubmitOptions],
    ) -> RunHandle[Any]:
        run_id = await submit_run(
            self.store,
            target,
            given,
            sent=sent,
            request_sha256=request_sha256,
            policy_deadline=None if known is None else known.policy.deadline,
            **options,
        )
        return self._submitted(run_id, await self.store(), target)

    def _submitted(self, run_id: str, store: WorkStore, target: str) -> RunHandle[Any]:
        """A handle on a run that was just submitted; begins to look for a worker."""
        look = self._unserved.look(store, target)
        return RunHandle(run_id, self._stores, self._agents.get(target), look)

    async def retry(self, run_id: str, *, new_run_id: str | None = None) -> RunHandle[Any]:
        """Submit a failed or cancelled run again, as a new run with the same input.

        Two calls make two runs, unless they pass the same ``new_run_id``. The new run has the old
        run's tenant, priority, trace and metadata, and the old id as ``retry_of`` in its metadata;
        its deadline starts again.

        Args:
            run_id: the failed or cancelled run.
            new_run_id: None draws one. With an id, a call that is repeated because its reply was
                lost does not submit a second run.

        Raises:
            RunNotFoundError: the run does not exist.
            RunExistsError: the new run's id is taken, for example by an earlier call.
            RunNotTerminalError: it has not ended.
            InvalidInputError: it completed.
        """
        store = await self.store()
        again, target = await retry_run(store, check_run_id(run_id), new_run_id)
        return self._submitted(again, store, target)

    async def pause(self, agent: AgentOrName) -> None:
        """Keep workers from starting runs of this agent until ``resume``; runs under way go on."""
        await (await self.store()).pause(self._name(agent))

    async def resume(self, agent: AgentOrName) -> None:
        """Allow workers to start runs of this agent again."""
        await (await self.store()).resume(self._name(agent))

    async def paused(self) -> set[str]:
        """The names of the agents that are paused."""
        return await (await self.store()).paused()

    async def workers(self) -> list[WorkerInfo]:
        """The live workers, with the runs that they execute."""
        return await (await self.store()).workers().list()

    @property
    def dead(self) -> DeadRuns:
        """The dead letters: runs that have failed finally."""
        return DeadRuns(self._stores, self._agents, self._unserved)

    @property
    def sync(self) -> SyncFleet:
        """The same calls for programs without an event loop; each blocks until it is done."""
        return SyncFleet(self, self)

    @overload
    async def run_inline(
        self, agent: AsyncFunction[T], input: object = None, **options: Unpack[InlineOptions]
    ) -> InlineRun[T]: ...
    @overload
    async def run_inline(
        self, agent: Function[T], input: object = None, **options: Unpack[InlineOptions]
    ) -> InlineRun[T]: ...
    @overload
    async def run_inline(
        self, agent: str, input: object = None, **options: Unpack[InlineOptions]
    ) -> InlineRun[Any]: ...
    async def run_inline(
        self,
        agent: AgentOrName,
        input: object = None,  # noqa: A002  # the interface's name
        **options: Unpack[InlineOptions],
    ) -> InlineRun[Any]:
        """Execute an agent once in this process, without server and worker: for unit tests.

        A worker's own code executes it, on a store in memory. It is never tried again and has no
        timeout: the exception that the agent raises is the result.

        Args:
            agent: the function, or its name.
            input: checked against the agent's declared type.
            options: ``attempt`` (1) and ``last_checkpoint`` (None), as the agent sees them.

        Raises:
            AgentNotRegisteredError: the fleet has no such agent.
            InvalidInputError: the input does not fit, or the attempt is not an integer from 1 on.
        """
        known = self._find(agent)
        if known is None:
            raise AgentNotRegisteredError(
                "this fleet has no agents; register one with @fleet.agent"
            )
        return await run_inline(known, input, **options)

    def handle(self, run_id: str, agent: AgentOrName | None = None) -> RunHandle[Any]:
        """A handle on a run that was submitted anywhere; ``agent`` types its output."""
        known = None if agent is None else self._find(agent)
        return RunHandle(check_run_id(run_id), self._stores, known)

    async def store(self) -> WorkStore:
        """The running event loop's store, opened at first use."""
        return await self._stores.get()

    def keep_store_open(self) -> AbstractContextManager[None]:
        """Keep this loop's store open while the block runs: ``close`` has no effect."""
        return self._stores.keep_open()

    async def close(self) -> None:
        """Close the running event loop's store, unless a worker of this loop uses it."""
        await self._unserved.settle()
        await self._stores.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class SyncFleet(Blocking[Fleet]):
    """The fleet's calls, which block until they are done: ``fleet.sync``.

    For programs without an event loop, such as Django, Flask, Celery and scripts. One event loop in
    a daemon thread serves all fleets and threads of the process. It starts with the first call, a
    forked child starts its own, and the end of the process closes it. Ctrl-C interrupts a waiting
    call; what that call wrote may have been written. In a coroutine, await the fleet's own methods:
    a blocking call would block the coroutine's event loop.
    """

    pause = blocking(Fleet.pause)
    resume = blocking(Fleet.resume)
    paused = blocking(Fleet.paused)
    workers = blocking(Fleet.workers)
    close = blocking(Fleet.close)

    @overload
    def submit(
        self, agent: AsyncFunction[T], input: object = None, **options: Unpack[SubmitOptions]
    ) -> SyncRunHandle[T]: ...
    @overload
    def submit(
        self, agent: Function[T], input: object = None, **options: Unpack[SubmitOptions]
    ) -> SyncRunHandle[T]: ...
    @overload
    def submit(
        self, agent: str, input: object = None, **options: Unpack[SubmitOptions]
    ) -> SyncRunHandle[Any]: ...
    def submit(
        self,
        agent: AgentOrName,
        input: object = None,  # noqa: A002  # the interface's name
        **options: Unpack[SubmitOptions],
    ) -> SyncRunHandle[Any]:
        """Create a run and queue it; arguments and errors as ``Fleet.submit``."""
        return self._of(self.run(lambda: self._asynchronous.submit(agent, input, **options)))

    @overload
    def run_inline(
        self, agent: AsyncFunction[T], input: object = None, **options: Unpack[InlineOptions]
    ) -> InlineRun[T]: ...
    @overload
    def run_inline(
        self, agent: Function[T], input: object = None, **options: Unpack[InlineOptions]
    ) -> InlineRun[T]: ...
    @overload
    def run_inline(
        self, agent: str, input: object = None, **options: Unpack[InlineOptions]
    ) -> InlineRun[Any]: ...
    def run_inline(
        self,
        agent: AgentOrName,
        input: object = None,  # noqa: A002  # the interface's name
        **options: Unpack[InlineOptions],
    ) -> InlineRun[Any]:
        """Execute an agent here, without server and worker; see ``Fleet.run_inline``."""
        return self.run(lambda: self._asynchronous.run_inline(agent, input, **options))

    def retry(self, run_id: str, *, new_run_id: str | None = None) -> SyncRunHandle[Any]:
        """Submit a failed or cancelled run again; arguments and errors as ``Fleet.retry``."""
        return self._of(self.run(lambda: self._asynchronous.retry(run_id, new_run_id=new_run_id)))

    def handle(self, run_id: str, agent: AgentOrName | None = None) -> SyncRunHandle[Any]:
        """A handle on a run that was submitted anywhere; ``agent`` types its output."""
        return self._of(self._asynchronous.handle(run_id, agent))

    def list(self, **options: Unpack[ListOptions]) -> RunPage:
        """Runs, newest first, page by page; arguments as the store's ``list_runs``."""

        async def read() -> RunPage:
            return await (await self._asynchronous.store()).list_runs(**options)

        return self.run(read)

    def _of(self, handle: RunHandle[T]) -> SyncRunHandle[T]:
        return SyncRunHandle(handle, self._fleet)
