"""AgentRegistry: the agents of one program, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, TypeVar, Unpack, cast, overload

from murmur_streams.core.model.errors import AgentNotRegisteredError
from murmur_streams.core.model.identifiers import check_target
from murmur_streams.fleet.agents import Agent, make_agent
from murmur_streams.fleet.policy import AgentOptions, make_policy

F = TypeVar("F", bound=Callable[..., Any])


class AgentRegistry:
    """Registers functions as agents, and finds an agent by its function or its name."""

    def __init__(self) -> None:
        self._agents: dict[str, Agent] = {}

    @property
    def agents(self) -> Mapping[str, Agent]:
        """The agents, by name."""
        return MappingProxyType(self._agents)

    @overload
    def agent(self, function: F, /) -> F: ...
    @overload
    def agent(
        self, /, *, name: str | None = None, **options: Unpack[AgentOptions]
    ) -> Callable[[F], F]: ...
    def agent(
        self,
        function: Callable[..., Any] | None = None,
        /,
        *,
        name: str | None = None,
        **options: Unpack[AgentOptions],
    ) -> Any:
        """Register a function as an agent: ``@fleet.agent`` or ``@fleet.agent(retries=3, …)``.

        The function stays callable as before. ``async def`` runs on the worker's event loop,
        ``def`` in a thread of its own, so that blocking never stalls a heartbeat.

        Args:
            function: the agent, when no options are passed.
            name: the name that runs are submitted to; None takes the function's.
            options: each may be left out.

                - retries (0): how often a failed execution is followed by another.
                - timeout (None): seconds for one execution; a longer one fails with a TimeoutError.
                - deadline (None): seconds for the whole run, counted from when it is due; then the
                  run fails. It applies to runs submitted by a fleet that has the agent.
                - backoff: the waits before retries; None for ``Backoff()``.
                - never_retry: errors after which the run fails at once, as after NonRetryableError.
                - max_attempts: how many executions may begin, including those that ended with
                  their worker; None for retries + 10, 0 for no limit.
                - silent_after_seconds (None): a run that writes nothing for so long while its
                  worker lives gets an entry that says so.
                - cancel_grace_seconds (10): how long a cancelled handler may take to end; then the
                  run is cancelled without it.

        Raises:
            TypeError: its parameters or types do not fit, or the name is taken.
            InvalidInputError: an option is out of bounds.
        """
        policy = make_policy(**options)

        def register(function: Callable[..., Any]) -> Callable[..., Any]:
            agent = make_agent(function, name, policy)
            if agent.name in self._agents:
                raise TypeError(f"this fleet has an agent named {agent.name!r} already")
            self._agents[agent.name] = agent
            return function

        return register if function is None else register(function)

    def _name(self, agent: Callable[..., Any] | str) -> str:
        known = self._find(agent)
        return known.name if known is not None else check_target(cast("str", agent))

    def _find(self, agent: Callable[..., Any] | str) -> Agent | None:
        """The registered agent; None for a name when this fleet has no agents of its own.

        Raises:
            AgentNotRegisteredError: the fleet has agents, and this is not one of them.
        """
        if isinstance(agent, str):
            if agent in self._agents or not self._agents:
                return self._agents.get(agent)
            wanted = repr(agent)
        else:
            for known in self._agents.values():
                if known.function == agent:
                    return known
            wanted = getattr(agent, "__name__", repr(agent))
        names = ", ".join(sorted(self._agents)) or "none"
        raise AgentNotRegisteredError(
            f"this fleet has no agent {wanted}; it has: {names}. Register it with @fleet.agent"
        )
