"""Agents: functions with a name, a typed input and a typed output."""

from __future__ import annotations

import functools
import inspect
import types
import typing
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, cast

from pydantic import BaseModel, ConfigDict, JsonValue, TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError

from murmur_streams.core.errors import InvalidPayloadError
from murmur_streams.core.identifiers import check_target
from murmur_streams.core.json_values import decode_json
from murmur_streams.core.result_codec import StoredModel
from murmur_streams.fleet.context import RunContext
from murmur_streams.fleet.policy import Policy

MAX_SHOWN_ERRORS = 5
NO_INPUT = object()
"""In the place of an input: the parameter's default is used."""


@dataclass(frozen=True, slots=True)
class Agent:
    """A function that runs are executed by.

    Its parameters are, in any order and each optional: one input, and one ``run`` (so named, or
    annotated RunContext). An input of None is none, and leaves the parameter its default.
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
    """Its retries, limits of time, and what is done when it fails."""
    _input: TypeAdapter[Any]
    _output: TypeAdapter[Any]

    @property
    def is_async(self) -> bool:
        """True for ``async def``."""
        return inspect.iscoroutinefunction(self.function)

    @property
    def doc(self) -> str:
        """The first line of its docstring."""
        return (inspect.getdoc(self.function) or "").partition("\n")[0]

    def encode_input(self, value: object) -> JsonValue:
        """Check an input and turn it into JSON; InvalidPayloadError says what does not fit."""
        if self.input_name is None:
            if value is not None:
                raise InvalidPayloadError(f"agent {self.name!r} takes no input")
            return None
        if value is None and self.has_default:
            return None
        what = f"the input of agent {self.name!r}"
        try:
            checked = self._input.validate_python(value)
            return cast("JsonValue", self._input.dump_python(checked, mode="json"))
        except ValidationError as error:
            raise InvalidPayloadError(_explained(what, error)) from None
        except ValueError as error:
            raise InvalidPayloadError(f"{what} cannot be written as JSON: {error}") from None

    def decode_input(self, text: str | None) -> object:
        """Read a stored input as the declared type; InvalidPayloadError when it does not fit.

        NO_INPUT when there is none and the parameter has a default.
        """
        if text is None and self.has_default:
            return NO_INPUT
        what = f"the input of agent {self.name!r}"
        try:
            return self._input.validate_python(None if text is None else decode_json(text))
        except ValidationError as error:
            raise InvalidPayloadError(_explained(what, error)) from None

    def encode_output(self, value: object) -> object:
        """Turn what the function returned into a model or a JSON value."""
        if isinstance(value, BaseModel):
            return value
        try:
            return self._output.dump_python(value, mode="json", warnings="none")
        except ValueError as error:
            raise InvalidPayloadError(
                f"the output of agent {self.name!r} cannot be written as JSON: {error}"
            ) from None

    def decode_output(self, value: object) -> object:
        """Read a stored output as the declared type; InvalidPayloadError when it does not fit."""
        plain = value.model_dump() if isinstance(value, StoredModel) else value
        try:
            return self._output.validate_python(plain)
        except ValidationError as error:
            raise InvalidPayloadError(
                _explained(f"the output of agent {self.name!r}", error)
            ) from None

    def arguments(self, value: object, context: RunContext) -> dict[str, object]:
        """The keyword arguments of one call."""
        arguments: dict[str, object] = {}
        if self.input_name is not None and value is not NO_INPUT:
            arguments[self.input_name] = value
        if self.context_name is not None:
            arguments[self.context_name] = context
        return arguments


def make_agent(
    function: Callable[..., Any], name: str | None, policy: Policy | None = None
) -> Agent:
    """Make an agent of a function.

    Raises:
        InvalidTargetError: its name is outside the grammar.
        TypeError: it is no function, has parameters that nothing can fill, or types without a JSON
            form.
    """
    _check_function(function)
    name = check_target(name or function.__name__)
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(f"agent {name!r} yields; stream with run.output(…) and return the whole")
    hints = _hints(function, name)
    input_name, context_name = _parameters(function, name, hints)
    input_type = hints.get(input_name or "", Any)
    has_default = input_name is not None and _default(function, input_name)
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
        _adapter(input_type, name, "input"),
        _adapter(output_type, name, "output"),
    )


def _check_function(function: Any) -> None:
    if not callable(function):
        raise TypeError(
            f"an agent is a function, not {function!r}; "
            "write @fleet.agent or @fleet.agent(name='…') above one"
        )
    # Of other callables, neither the types nor whether they are async can be told for certain.
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
) -> tuple[str | None, str | None]:
    context_name: str | None = None
    inputs: list[str] = []
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
            inputs.append(parameter.name)
    if len(inputs) > 1:
        raise TypeError(
            f"agent {name!r} takes {' and '.join(inputs)}: an agent has one input; "
            "put them into one pydantic model"
        )
    return (inputs[0] if inputs else None), context_name


def _default(function: Callable[..., Any], parameter_name: str) -> bool:
    parameter = inspect.signature(function).parameters[parameter_name]
    return parameter.default is not parameter.empty


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
    # A plain function that returns a coroutine: its type is what that one returns.
    if typing.get_origin(kind) in {Awaitable, Coroutine}:
        return typing.get_args(kind)[-1]
    return kind


def _adapter(kind: Any, name: str, what: str) -> TypeAdapter[Any]:
    try:
        # NaN stays NaN, and is refused as no JSON, where it would silently become null.
        return TypeAdapter(kind, config=ConfigDict(ser_json_inf_nan="constants"))
    except PydanticUserError:
        return _adapter_of_model(kind, name, what)


def _adapter_of_model(kind: Any, name: str, what: str) -> TypeAdapter[Any]:
    # Models and dataclasses have a configuration of their own.
    try:
        return TypeAdapter(kind)
    except (PydanticSchemaGenerationError, PydanticUserError) as error:
        raise TypeError(
            f"the {what} type of agent {name!r}, {kind!r}, has no JSON form "
            f"({str(error).splitlines()[0]}); use a pydantic model, a dataclass or JSON types"
        ) from None


def _explained(what: str, error: ValidationError) -> str:
    found = error.errors(include_url=False, include_input=False)
    shown = "; ".join(
        f"{'.'.join(str(part) for part in each['loc']) or 'value'}: {each['msg']}"
        for each in found[:MAX_SHOWN_ERRORS]
    )
    more = len(found) - MAX_SHOWN_ERRORS
    return f"{what} does not fit: {shown}" + (f"; and {more} more" if more > 0 else "")
