"""Fleet: the agents of a program, and submission to them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType, TracebackType
from typing import Any, Self, TypeVar, cast, overload

from pydantic import JsonValue

from murmur_streams.core.errors import AgentNotRegisteredError
from murmur_streams.core.identifiers import check_run_id, new_run_id
from murmur_streams.fleet.agents import Agent, make_agent
from murmur_streams.fleet.handle import RunHandle
from murmur_streams.fleet.stores import StoreOfLoop
from murmur_streams.stores.redis.store import RedisRunStore

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")


class Fleet:
    """Agents by name, and a way to submit runs to them.

    Does no I/O until it is used, so it may be made at import time; every event loop and every
    forked process gets connections of its own. Close it when the loop has no more use for it:
    ``async with fleet:`` or ``await fleet.close()``; used again, it opens new connections.

    Args:
        url: where the runs are; None takes MURMUR_URL, else the embedded server.
        options: for the store, such as key_prefix, partitions and ttl_seconds; what is left out
            comes from the MURMUR_* variables.
    """

    def __init__(self, url: str | None = None, **options: Any) -> None:
        self._agents: dict[str, Agent] = {}
        self._stores = StoreOfLoop(url, options)

    @property
    def agents(self) -> Mapping[str, Agent]:
        """The agents, by name."""
        return MappingProxyType(self._agents)

    @overload
    def agent(self, function: F, /) -> F: ...
    @overload
    def agent(self, /, *, name: str | None = None) -> Callable[[F], F]: ...
    def agent(
        self, function: Callable[..., Any] | None = None, /, *, name: str | None = None
    ) -> Any:
        """Register a function as an agent: ``@fleet.agent`` or ``@fleet.agent(name="…")``.

        The function stays callable as before. ``async def`` runs on the worker's event loop,
        ``def`` in a thread of its own, so that blocking never stalls a heartbeat.

        Raises:
            TypeError: its parameters or types do not fit, or the name is taken.
        """

        def register(function: Callable[..., Any]) -> Callable[..., Any]:
            agent = make_agent(function, name)
            if agent.name in self._agents:
                raise TypeError(f"this fleet has an agent named {agent.name!r} already")
            self._agents[agent.name] = agent
            return function

        return register if function is None else register(function)

    @overload
    async def submit(
        self,
        agent: Callable[..., Awaitable[T]],
        input: object = None,
        *,
        run_id: str | None = None,
        metadata: Mapping[str, JsonValue] | None = None,
    ) -> RunHandle[T]: ...
    @overload
    async def submit(
        self,
        agent: Callable[..., T],
        input: object = None,
        *,
        run_id: str | None = None,
        metadata: Mapping[str, JsonValue] | None = None,
    ) -> RunHandle[T]: ...
    @overload
    async def submit(
        self,
        agent: str,
        input: object = None,
        *,
        run_id: str | None = None,
        metadata: Mapping[str, JsonValue] | None = None,
    ) -> RunHandle[Any]: ...
    async def submit(
        self,
        agent: Callable[..., Any] | str,
        input: object = None,  # noqa: A002  # the interface's name
        *,
        run_id: str | None = None,
        metadata: Mapping[str, JsonValue] | None = None,
    ) -> RunHandle[Any]:
        """Create a run and queue it, in one step; a worker's process executes it.

        Args:
            agent: the function, or its name. A fleet without agents of its own submits to any
                name; one that has some knows the others for mistakes.
            input: checked against the agent's declared type. None is no input: an agent whose
                parameter has a default is called with that.
            run_id: None draws one.
            metadata: JSON by name, kept with the run.

        Raises:
            AgentNotRegisteredError: the fleet has no such agent.
            InvalidInputError: input, run id or metadata break a rule; nothing was written.
            RunExistsError: the run id is taken.
        """
        known = self._find(agent)
        name = known.name if known is not None else cast("str", agent)
        given = cast("JsonValue", input) if known is None else known.encode_input(input)
        run_id = new_run_id() if run_id is None else check_run_id(run_id)
        store = await self.store()
        await store.submit(run_id, name, input=given, metadata=metadata)
        return RunHandle(run_id, self._stores, known)

    def handle(self, run_id: str, agent: Callable[..., Any] | str | None = None) -> RunHandle[Any]:
        """A handle on a run that was submitted anywhere; ``agent`` types its output."""
        known = None if agent is None else self._find(agent)
        return RunHandle(check_run_id(run_id), self._stores, known)

    async def store(self) -> RedisRunStore:
        """The running event loop's store, opened at first use."""
        return await self._stores.get()

    async def close(self) -> None:
        """Close the running event loop's store."""
        await self._stores.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    def _find(self, agent: Callable[..., Any] | str) -> Agent | None:
        if isinstance(agent, str):
            if agent in self._agents or not self._agents:
                return self._agents.get(agent)
            wanted = repr(agent)
        else:
            for known in self._agents.values():
                if known.function is agent:
                    return known
            wanted = getattr(agent, "__name__", repr(agent))
        names = ", ".join(sorted(self._agents)) or "none"
        raise AgentNotRegisteredError(
            f"this fleet has no agent {wanted}; it has: {names}. Register it with @fleet.agent"
        )
