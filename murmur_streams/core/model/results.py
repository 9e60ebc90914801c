"""The results of runs: typed envelopes around an agent's output or error."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, Self, TypeVar, cast

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from murmur_streams.core.exception_text import error_message, error_traceback, error_type_name
from murmur_streams.core.json_type import loose_json
from murmur_streams.core.json_values import decode_json, encode_json
from murmur_streams.core.model.errors import InvalidPayloadError, RemoteAgentError

T = TypeVar("T")


class TaskSpec(BaseModel):
    """One piece of work for an agent."""

    model_config = ConfigDict(frozen=True)

    id: str = Field(default_factory=lambda: str(uuid.uuid4()))
    request_id: str = Field(default_factory=lambda: str(uuid.uuid4()))
    input: str
    """A plain string, or JSON text of a structure."""
    metadata: Mapping[str, str] = Field(default_factory=dict[str, str])


class ResultMetadata(BaseModel):
    """The cost of a result and the backend that made it."""

    model_config = ConfigDict(frozen=True)

    duration_ms: int = 0
    tokens_used: int = 0
    cost_usd: float = 0.0
    backend: str = ""
    trace_id: str | None = None


class AgentResult(BaseModel, Generic[T]):
    """The outcome of one agent: either ``output`` or ``error`` is set."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    output: T | None = None
    """A pydantic model or any JSON value."""
    error: BaseException | None = None
    metadata: ResultMetadata = Field(default_factory=ResultMetadata)
    agent_name: str
    task_id: str

    def is_ok(self) -> bool:
        """Whether there is an output and no error."""
        return self.error is None and self.output is not None


class GroupResult(BaseModel):
    """The outcomes of a group's terminal agents, by agent name."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    outputs: Mapping[str, AgentResult[Any]]
    metadata: ResultMetadata = Field(default_factory=ResultMetadata)

    @model_validator(mode="after")
    def _own_the_mapping(self) -> Self:
        # The caller may change its dict later, and the result must not change with it.
        object.__setattr__(self, "outputs", dict(self.outputs))
        return self

    @property
    def terminal(self) -> AgentResult[Any]:
        """The only outcome; ValueError when there are several or none."""
        if len(self.outputs) != 1:
            raise ValueError(
                f"this GroupResult has {len(self.outputs)} outcomes, not 1; "
                "pick one by name from .outputs"
            )
        return next(iter(self.outputs.values()))


_AnyResult = AgentResult[Any]  # Made once: the subscript takes as long as the validation.
RunResult = _AnyResult | GroupResult


@dataclass(frozen=True, slots=True)
class EncodedOutput:
    """An output that is JSON already, encoded by the declared type of its agent."""

    text: str
    """The JSON."""
    model: str | None = None
    """The name of the output's pydantic model; None when it was not a model."""


class StoredModel(BaseModel):
    """A model that was read back without its class: it has the fields and model_dump()."""

    model_config = ConfigDict(frozen=True, extra="allow")


def encode_result(result: RunResult) -> str:
    """Encode a result as JSON text.

    Raises:
        InvalidPayloadError: an output is neither a pydantic model nor a JSON value.
    """
    if isinstance(result, GroupResult):
        payload: dict[str, object] = {
            "kind": "group",
            "outputs": {name: _encode_agent(leaf) for name, leaf in result.outputs.items()},
            "metadata": result.metadata.model_dump(mode="json"),
        }
    elif isinstance(cast("object", result), AgentResult):
        output = cast("object", result.output)
        if isinstance(output, EncodedOutput):
            before, after = _around_output(result)
            head, tail = encode_json(before, "the result"), encode_json(after, "the result")
            # Its text is not decoded only to be encoded again: it may be megabytes.
            return f'{head[:-1]},"output":{output.text},{tail[1:]}'
        payload = _encode_agent(result)
    else:
        raise InvalidPayloadError(
            f"a result is an AgentResult or a GroupResult, not {type(result).__name__}"
        )
    return encode_json(payload, "the result")


def decode_result(text: str | bytes) -> RunResult:
    """Decode a result that this or an older version encoded."""
    payload = cast("dict[str, Any]", decode_json(text))
    # Results of murmur-runtime carry no "model" key, and their outputs are always models.
    return read_result(payload, is_group=payload.get("kind", "agent") == "group", model="")


def read_result(members: Mapping[str, Any], *, is_group: bool, model: str | None) -> RunResult:
    """Read a result from JSON.

    Args:
        members: the JSON.
        is_group: whether it is the result of a group.
        model: what a missing ``model`` of an agent's result means; None: not a model.

    Raises:
        TypeError, LookupError, ValueError: the members are not those of a result.
    """
    if not is_group:
        return _read_agent(members, model)
    return GroupResult(
        outputs={name: _read_agent(leaf, model) for name, leaf in members["outputs"].items()},
        metadata=ResultMetadata.model_validate(members.get("metadata") or {}),
    )


def _read_agent(members: Mapping[str, Any], model: str | None) -> AgentResult[Any]:
    message, output = members.get("error"), members.get("output")
    if members.get("model", model) is not None and isinstance(output, dict):
        output = StoredModel.model_validate(output)
    kind, frames = members.get("error_type") or "RuntimeError", members.get("error_traceback")
    return _AnyResult(
        output=output,
        error=None if message is None else RemoteAgentError(kind, message, frames),
        metadata=ResultMetadata.model_validate(members.get("metadata") or {}),
        agent_name=members["agent_name"],
        task_id=members["task_id"],
    )


def dump_output(output: object) -> JsonValue:
    """Turn an output into the JSON value that is stored; a model becomes its fields by name.

    Raises:
        InvalidPayloadError: it has no JSON, or holds a secret, which JSON would replace by stars.
    """
    if isinstance(output, EncodedOutput):
        return decode_json(output.text)
    if isinstance(output, BaseModel):
        return loose_json(output, f"the output of type {type(output).__name__}", by_alias=False)
    return cast("JsonValue", output)


def _encode_agent(result: AgentResult[Any]) -> dict[str, object]:
    before, after = _around_output(result)
    return {**before, "output": dump_output(cast("object", result.output)), **after}


def _around_output(result: AgentResult[Any]) -> tuple[dict[str, object], dict[str, object]]:
    """The members of a result that are written before and after its output."""
    before: dict[str, object] = {
        "kind": "agent",
        "agent_name": result.agent_name,
        "task_id": result.task_id,
        "metadata": result.metadata.model_dump(mode="json"),
    }
    after: dict[str, object] = {"error": None, "model": _model_name(cast("object", result.output))}
    if result.error is not None:
        after["error"] = error_message(result.error)
        after["error_type"] = error_type_name(result.error)
        if (frames := error_traceback(result.error)) is not None:
            after["error_traceback"] = frames
    return before, after


def _model_name(output: object) -> str | None:
    if isinstance(output, EncodedOutput):
        return output.model
    return type(output).__qualname__ if isinstance(output, BaseModel) else None
