"""Agents: functions with a name, a typed input and a typed output; and the agents of a program."""

from __future__ import annotations

import functools
import inspect
import types
import typing
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, Unpack, cast, overload

from pydantic import BaseModel, JsonValue

from murmur_streams.core.json_type import JsonType, loose_text
from murmur_streams.core.json_values import encode_json
from murmur_streams.core.model import errors
from murmur_streams.core.model.limits import check_target
from murmur_streams.core.model.results import EncodedOutput, StoredModel
from murmur_streams.fleet.context import RunContext
from murmur_streams.fleet.policy import AgentOptions, Policy

F = TypeVar("F", bound=Callable[..., Any])

NO_INPUT = object()
"""Marks a missing input: the agent is called without it, and its parameter's default applies."""


@dataclass(frozen=True, slots=True)
class Agent:
    """A function that executes runs.

    Its parameters are, in any order and each optional: one input, and one ``run`` (so named, or
    annotated RunContext). None means no input: the parameter's default applies.
    ``async def`` runs on the worker's event loop, ``def`` in a thread.
    """

    name: str
    function: Callable[..., Any]
    input_name: str | None
    context_name: str | None
    input_type: Any
    output_type: Any
    has_default: bool
    """Whether it can be called without an input."""
    policy: Policy
    """Its retries and its limits of time."""
    _input: JsonType
    _output: JsonType

    @property
    def is_async(self) -> bool:
        """True for ``async def``."""
        return inspect.iscoroutinefunction(self.function)

    @property
    def doc(self) -> str:
        """The first line of its docstring."""
        return (inspect.getdoc(self.function) or "").partition("\n")[0]

    def encode_input(self, value: object) -> JsonValue:
        """Check an input and turn it into JSON.

        Args:
            value: an instance of the declared type, or a value that pydantic converts into one.

        Raises:
            InvalidPayloadError: it does not fit, or would not arrive as an equal value.
        """
        return None if self._has_no_input(value) else self._input.encode(value)

    def encode_json_input(self, value: JsonValue) -> JsonValue:
        """The same for an input that arrived as JSON, as over HTTP."""
        return None if self._has_no_input(value) else self._input.encode_json(value)

    def decode_input(self, text: str | None) -> object:
        """Read a stored input as the declared type; InvalidPayloadError when it does not fit.

        Without an input and with a default of the parameter, returns NO_INPUT.
        """
        if text is None and self.has_default:
            return NO_INPUT
        return self._input.decode("null" if text is None else text)

    def encode_output(self, value: object) -> EncodedOutput:
        """Turn the function's return value into JSON.

        Without a declared type only the JSON arrives, and a value without a JSON form is rejected.

        Raises:
            InvalidPayloadError: it does not fit, or would not arrive as an equal value.
        """
        model = type(value) if isinstance(value, BaseModel) else None
        what = f"the output of agent {self.name!r}"
        if self.output_type is not Any:
            text = self._output.encode_text(value)
        elif model is not None:
            text = _of_model(model, what).encode_text(value)
        else:
            text = loose_text(value, what)
        return EncodedOutput(text, None if model is None else model.__qualname__)

    def decode_output(self, value: object) -> object:
        """Read a stored output as the declared type; InvalidPayloadError when it does not fit."""
        plain = value.model_dump() if isinstance(value, StoredModel) else value
        return self._output.decode(encode_json(plain, f"the output of agent {self.name!r}"))

    def input_schema(self) -> dict[str, JsonValue] | None:
        """The JSON Schema of its input; None when it takes none."""
        return None if self.input_name is None else self._input.schema()

    def output_schema(self) -> dict[str, JsonValue]:
        """The JSON Schema of its output."""
        return self._output.schema()

    def _has_no_input(self, value: object) -> bool:
        if self.input_name is None and value is not None:
            raise errors.InvalidPayloadError(f"agent {self.name!r} takes no input")
        return value is None and (self.has_default or self.input_name is None)

    def arguments(self, value: object, context: RunContext) -> dict[str, object]:
        """The keyword arguments of one call."""
        arguments: dict[str, object] = {}
        if self.input_name is not None and value is not NO_INPUT:
            arguments[self.input_name] = value
        if self.context_name is not None:
            arguments[self.context_name] = context
        return arguments


class AgentRegistry:
    """Registers functions as agents, and finds an agent by its function or its name."""

    def __init__(self) -> None:
        self._agents: dict[str, Agent] = {}

    @property
    def agents(self) -> Mapping[str, Agent]:
        """The agents, by name."""
        return types.MappingProxyType(self._agents)

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
        policy = Policy(**options)

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
        raise _not_registered(wanted, self._agents)


def checked_targets(registry: AgentRegistry, targets: Sequence[str] | None) -> list[str]:
    """The names of the agents that a worker executes: the targets, or all for None.

    Raises:
        AgentNotRegisteredError: the fleet has no agents, or lacks one of the targets.
        InvalidInputError: the list is empty.
    """
    if not registry.agents:
        raise errors.AgentNotRegisteredError(
            "this fleet has no agents to execute; register one with @fleet.agent"
        )
    if targets is not None and not targets:
        raise errors.InvalidInputError(
            "targets is empty: name an agent, or pass None for all of them"
        )
    for target in targets or ():
        if target not in registry.agents:
            raise _not_registered(repr(target), registry.agents)
    return list(targets or registry.agents)


def _not_registered(wanted: str, agents: Mapping[str, Agent]) -> errors.AgentNotRegisteredError:
    return errors.AgentNotRegisteredError(
        f"this fleet has no agent {wanted}; it has: {', '.join(sorted(agents)) or 'none'}. "
        "Register it with @fleet.agent"
    )


def make_agent(
    function: Callable[..., Any], name: str | None, policy: Policy | None = None
) -> Agent:
    """Make an agent of a function.

    Raises:
        InvalidTargetError: its name is outside the grammar.
        TypeError: it is not a function, has parameters that cannot be filled, or types without a
            JSON form.
    """
    _check_function(function)
    name = check_target(name or function.__name__)
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(f"agent {name!r} yields; stream with run.output(…) and return the whole")
    hints = _hints(function, name)
    given, context_name = _parameters(function, name, hints)
    input_name = None if given is None else given.name
    input_type = hints.get(input_name or "", Any)
    has_default = given is not None and given.default is not given.empty
    output_type = _awaited(hints.get("return", Any))
    return Agent(
        name,
        function,
        input_name,
        context_name,
        input_type,
        output_type,
        has_default,
        policy or Policy(),
        JsonType(input_type, f"the input of agent {name!r}"),
        JsonType(output_type, f"the output of agent {name!r}", computed=True),
    )


def _check_function(function: Any) -> None:
    if not callable(function):
        raise TypeError(
            f"an agent is a function, not {function!r}; "
            "write @fleet.agent or @fleet.agent(name='…') above one"
        )
    # The types of other callables, and whether they are async, cannot be found out reliably.
    is_function = inspect.isroutine(function) and hasattr(function, "__name__")
    if not is_function or isinstance(function, (type, functools.partial)):
        raise TypeError(f"an agent is a function, not {function!r}: wrap it in a function")


def _hints(function: Callable[..., Any], name: str) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function, include_extras=True)
    except (NameError, AttributeError, SyntaxError, TypeError) as error:
        raise TypeError(
            f"a type in the signature of agent {name!r} cannot be found ({error}); "
            "define it at module level, before the agent"
        ) from None


def _parameters(
    function: Callable[..., Any], name: str, hints: dict[str, Any]
) -> tuple[inspect.Parameter | None, str | None]:
    """The parameter of the input, and the name of that of the context."""
    context_name: str | None = None
    inputs: list[inspect.Parameter] = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD}:
            shown = str(parameter).partition(":")[0]
            raise TypeError(
                f"agent {name!r} takes {shown}, which nothing fills: "
                "wrap it in a function that names its input"
            )
        if parameter.kind is parameter.POSITIONAL_ONLY:
            raise TypeError(f"agent {name!r}: {parameter.name!r} must not be positional-only")
        hint = hints.get(parameter.name)
        if _is_context(hint) or (hint is None and parameter.name == "run"):
            context_name = parameter.name
        elif not inputs or parameter.default is parameter.empty:
            inputs.append(parameter)
    if len(inputs) > 1:
        raise TypeError(
            f"agent {name!r} takes {' and '.join(each.name for each in inputs)}: an agent has one "
            "input; put them into one pydantic model"
        )
    return (inputs[0] if inputs else None), context_name


def _is_context(hint: Any) -> bool:
    """RunContext, also with None or in Annotated."""
    origin = typing.get_origin(hint)
    if origin is typing.Annotated:
        return _is_context(typing.get_args(hint)[0])
    if origin in {typing.Union, types.UnionType}:
        kinds = [kind for kind in typing.get_args(hint) if kind is not types.NoneType]
        return all(_is_context(kind) for kind in kinds)
    return hint is RunContext


def _awaited(kind: Any) -> Any:
    # For a plain function that returns a coroutine, the type of the coroutine's result.
    if typing.get_origin(kind) in {Awaitable, Coroutine}:
        return typing.get_args(kind)[-1]
    return kind


@functools.cache
def _of_model(model: type[BaseModel], what: str) -> JsonType:
    """The JSON of a model that an agent without a declared type returned.

    Raises:
        InvalidPayloadError: a field would lose its value.
    """
    try:
        return JsonType(model, what, computed=True)
    except TypeError as error:
        raise errors.InvalidPayloadError(str(error)) from None
