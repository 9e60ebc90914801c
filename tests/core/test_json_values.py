"""The values that count as JSON."""

from __future__ import annotations

import json
import math
from decimal import Decimal
from enum import IntEnum
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from murmur_streams.core.json_values import MAX_DEPTH, decode_json, encode_json
from murmur_streams.core.model.errors import InvalidEventError, InvalidPayloadError

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**1023), 2**1023)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda children: st.lists(children) | st.dictionaries(st.text("ab\u0000é"), children),
    max_leaves=20,
)


def nested(depth: int, kind: type) -> Any:
    value: Any = kind()
    for _ in range(depth - 1):
        value = [value] if kind is list else {"a": value}
    return value


class Level(IntEnum):
    HIGH = 3


@settings(max_examples=200)
@given(json_values)
def test_a_json_value_comes_back(value: object) -> None:
    """Decoding an encoded JSON value gives an equal value."""
    assert decode_json(encode_json(value, "it")) == value


@settings(max_examples=200)
@given(json_values)
def test_the_text_is_json_that_others_read(value: object) -> None:
    """The standard library reads the encoded text as the same value."""
    assert json.loads(encode_json(value, "it").encode()) == value


@pytest.mark.parametrize("kind", [list, dict])
def test_a_hundred_levels_are_taken(kind: type) -> None:
    """A value of exactly the deepest allowed nesting is encoded and decoded."""
    value = nested(MAX_DEPTH, kind)
    assert decode_json(encode_json(value, "it")) == value


@pytest.mark.parametrize("depth", [MAX_DEPTH + 1, 100_000])
@pytest.mark.parametrize("kind", [list, dict])
def test_more_levels_are_refused(kind: type, depth: int) -> None:
    """One level more, or very many, raise InvalidPayloadError."""
    with pytest.raises(InvalidPayloadError, match="more than 100 levels"):
        encode_json(nested(depth, kind), "it")


def test_a_value_that_holds_itself_is_refused() -> None:
    """A list that contains itself counts as nested too deep."""
    value: list[Any] = []
    value.append(value)
    with pytest.raises(InvalidPayloadError, match="levels"):
        encode_json(value, "it")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_float_that_json_has_not_is_refused(value: float) -> None:
    """NaN and infinity raise InvalidPayloadError."""
    with pytest.raises(InvalidPayloadError, match="cannot express"):
        encode_json({"a": [value]}, "it")


@pytest.mark.parametrize("value", [2**1024, -(2**1024), 10**5000], ids=["over", "under", "far"])
def test_a_huge_integer_is_refused(value: int) -> None:
    """An integer of more than 1,024 bits raises InvalidPayloadError."""
    with pytest.raises(InvalidPayloadError, match="1024 bits"):
        encode_json(value, "it")


@pytest.mark.parametrize("key", [1, None, True, b"a", (1,)])
def test_a_key_that_is_no_text_is_refused(key: object) -> None:
    """A dict with a key that is not a string raises InvalidPayloadError."""
    with pytest.raises(InvalidPayloadError, match="keys are strings"):
        encode_json([{key: 1}], "it")


@pytest.mark.parametrize("value", ["\udc80", ["\ud800"], {"\udfff": 1}])
def test_a_lone_surrogate_is_refused(value: object) -> None:
    """Text that cannot be UTF-8 raises InvalidPayloadError, also inside a value."""
    with pytest.raises(InvalidPayloadError, match="lone surrogate"):
        encode_json(value, "it")


@pytest.mark.parametrize("value", [b"", {1}, object(), Decimal(1), 1j, range(3), print])
def test_what_is_no_json_is_refused(value: object) -> None:
    """The error names the type of a value that JSON does not have."""
    with pytest.raises(InvalidPayloadError, match=f"type {type(value).__name__}"):
        encode_json([value], "it")


def test_a_tuple_is_a_list_and_an_enum_its_number() -> None:
    """Both are encoded as the JSON value that they stand for."""
    assert encode_json((1, Level.HIGH), "it") == "[1,3]"


def test_the_refusal_names_what_was_refused() -> None:
    """The caller gives the name and the class of the error."""
    with pytest.raises(InvalidEventError, match=r"^the event's data holds"):
        encode_json(b"", "the event's data", InvalidEventError)
