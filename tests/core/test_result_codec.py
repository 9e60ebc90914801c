"""Results as JSON: what any version wrote is read, and nothing is ever pickled."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
from pydantic import BaseModel, ConfigDict, RootModel

from murmur_streams.core.json_values import encode_json
from murmur_streams.core.model.errors import InvalidPayloadError, RemoteAgentError
from murmur_streams.core.model.limits import MAX_ERROR_CHARACTERS
from murmur_streams.core.model.results import (
    AgentResult,
    EncodedOutput,
    GroupResult,
    ResultMetadata,
    StoredModel,
    decode_result,
    encode_result,
)

GOLDEN = Path(__file__).parent / "golden" / "results"
_COMPARED = {"agent_name", "task_id", "metadata", "output", "error", "error_type"}
METADATA = ResultMetadata(
    duration_ms=1, tokens_used=2, cost_usd=0.25, backend="thread", trace_id="abc"
)


class Finding(BaseModel):
    title: str
    score: float


class Opaque(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)
    thing: object


class UnspeakableError(Exception):
    """An exception whose text and attributes raise."""

    def __str__(self) -> str:
        raise SystemExit(1)

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(name)


def golden(name: str) -> str:
    return (GOLDEN / f"{name}.json").read_text(encoding="utf-8")


def agent(text: str) -> AgentResult[Any]:
    result = decode_result(text)
    assert isinstance(result, AgentResult)
    return result


def result_of(output: Any = None, error: BaseException | None = None) -> AgentResult[Any]:
    return AgentResult[Any](
        output=output, error=error, metadata=METADATA, agent_name="researcher", task_id="t-1"
    )


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.json")), ids=lambda path: path.stem)
def test_every_older_form_decodes(path: Path) -> None:
    """Each golden file of an earlier version is read, and written with the same content."""
    stored = path.read_bytes()
    again = json.loads(encode_result(decode_result(stored)))
    found = {name: again.get(name) for name in json.loads(stored) if name in _COMPARED}
    assert found == {name: text for name, text in json.loads(stored).items() if name in _COMPARED}


@pytest.mark.parametrize("name", ["murmur_runtime_0_1_0_agent", "without_kind"])
def test_an_output_of_murmur_runtime_is_a_model(name: str) -> None:
    """A stored model of murmur-runtime is read with its fields and metadata."""
    result = agent(golden(name))
    assert isinstance(result.output, StoredModel)
    assert (result.output.model_dump()["title"], result.is_ok()) == ("Naïve", True)
    assert (result.agent_name, result.task_id, result.metadata.duration_ms) == (
        "researcher",
        "t-1",
        1200,
    )


def test_an_error_of_murmur_runtime_is_an_error() -> None:
    """It becomes a RemoteAgentError with the message, and the output is None."""
    result = agent(golden("murmur_runtime_0_1_0_error"))
    assert isinstance(result.error, RemoteAgentError)
    assert (result.error.message, result.output) == ("no such page", None)


def test_a_group_of_murmur_runtime_is_a_group() -> None:
    """Each member has its outcome, and the group its metadata."""
    result = decode_result(golden("murmur_runtime_0_1_0_group"))
    assert isinstance(result, GroupResult)
    assert {name: leaf.is_ok() for name, leaf in result.outputs.items()} == {
        "writer": True,
        "critic": False,
    }
    assert result.metadata.tokens_used == 9


@pytest.mark.parametrize(
    ("name", "result"),
    [
        ("model", result_of(Finding(title="Naïve", score=0.5))),
        ("value", result_of({"a": [1, None]})),
        ("error", result_of(error=ValueError("no such page"))),
    ],
)
def test_the_form_of_this_version_is_pinned(name: str, result: AgentResult[Any]) -> None:
    """A result that this version writes equals its golden file."""
    assert json.loads(encode_result(result)) == json.loads(golden(f"murmur_streams_0_1_0_{name}"))


@pytest.mark.parametrize("output", [None, 0, "a", [], {"output": None}, {"a": [1.5, None, "é"]}])
@pytest.mark.parametrize("model", [None, "Finding"])
@pytest.mark.parametrize("name", ["worker", '","output":null,"'])
def test_an_encoded_output_makes_the_same_text(output: Any, model: str | None, name: str) -> None:
    """An output whose text exists already is written as if it were encoded with the result."""
    text = encode_json(output, "it")
    result = result_of(EncodedOutput(text, model)).model_copy(update={"agent_name": name})
    plain = json.loads(encode_result(result.model_copy(update={"output": output})))
    expected = encode_json({**plain, "model": model}, "it")
    assert encode_result(result) == expected
    group = GroupResult(outputs={"a": result}, metadata=METADATA)
    assert encode_json(json.loads(encode_result(group))["outputs"]["a"], "it") == expected


def test_a_dict_that_was_no_model_stays_a_dict() -> None:
    """A plain value is read as the value, not as a model."""
    assert agent(golden("murmur_streams_0_1_0_value")).output == {"a": [1, None]}


@pytest.mark.parametrize(
    "output",
    [
        {"copy": 1, "model_dump": 2, "json": 3, "model_config": {}, "self": 1},
        {"__class__": "x", "__dict__": {}, "_private": 1, "": 2, "a b": 3},
        {"model_extra": 3, "__pydantic_extra__": 1, "model_fields": [], "schema": 1},
    ],
)
def test_a_field_may_have_any_name(output: dict[str, Any]) -> None:
    """Names such as copy, __class__ or the empty text survive a read and a write."""
    text = json.dumps({"agent_name": "a", "task_id": "t", "output": output})
    assert json.loads(encode_result(agent(text)))["output"] == output


def test_a_result_that_was_read_can_be_written_again() -> None:
    """The output of a stored model stays the same through a second encoding."""
    first = encode_result(result_of(Finding(title="x", score=1)))
    again = encode_result(decode_result(first))
    assert json.loads(again)["output"] == json.loads(first)["output"]


def test_a_root_model_comes_back_as_its_value() -> None:
    """A RootModel of a list is read as the list."""
    assert agent(encode_result(result_of(RootModel[list[int]]([1, 2])))).output == [1, 2]


def test_the_type_of_an_error_comes_back_through_two_processes() -> None:
    """The name of the original exception survives two encodings."""
    once = agent(encode_result(result_of(error=KeyError("k"))))
    twice = agent(encode_result(result_of(error=once.error)))
    assert isinstance(twice.error, RemoteAgentError)
    assert (twice.error.type_name, twice.error.message) == ("KeyError", "'k'")


def test_a_long_error_is_cut() -> None:
    """The message has at most the largest number of characters."""
    result = agent(encode_result(result_of(error=ValueError("x" * 100_000))))
    assert isinstance(result.error, RemoteAgentError)
    assert len(result.error.message) == MAX_ERROR_CHARACTERS


@pytest.mark.parametrize(
    "output",
    [
        math.nan,
        b"bytes",
        {1: 2},
        [Finding(title="in a list", score=1)],
        Finding(title="x", score=math.nan),
        Opaque(thing=object()),
    ],
    ids=lambda output: type(output).__name__,
)
def test_an_output_that_is_no_json_is_refused(output: object) -> None:
    """NaN, bytes, odd keys and models inside a list raise InvalidPayloadError."""
    with pytest.raises(InvalidPayloadError):
        encode_result(result_of(output))


def test_an_error_text_with_a_surrogate_breaks_nothing() -> None:
    """It is refused, or stored as valid text."""
    error = ValueError("\udc80")
    try:
        text = encode_result(result_of(error=error))
    except InvalidPayloadError:
        return
    assert text.encode()


def test_the_terminal_of_a_group_is_its_only_outcome() -> None:
    """A group of one agent has its result as terminal."""
    assert GroupResult(outputs={"a": result_of(1)}).terminal.output == 1


@pytest.mark.parametrize("count", [0, 2])
def test_a_group_of_none_or_many_has_no_terminal(count: int) -> None:
    """The terminal of an empty or larger group raises ValueError."""
    group = GroupResult(outputs={str(number): result_of(1) for number in range(count)})
    with pytest.raises(ValueError, match=f"has {count} outcomes"):
        _ = group.terminal


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: UnspeakableError("x"), "UnspeakableError: (its text cannot be read)"),
        (lambda: ValueError("a\udc80"), "ValueError: a\\udc80"),
        (lambda: ExceptionGroup("both", [OSError()]), "ExceptionGroup: both (1 sub-exc"),
    ],
    ids=["unspeakable", "surrogate", "group"],
)
def test_an_error_of_any_make_is_stored(make: Callable[[], Exception], text: str) -> None:
    """A result's error is stored by its type and text, whatever its own code does."""
    stored = encode_result(AgentResult[Any](error=make(), agent_name="a", task_id="t"))
    result = cast("AgentResult[Any]", decode_result(stored))
    assert str(result.error).startswith(text)
