"""The values that count as JSON."""

from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from murmur_streams.core.json_values import MAX_DEPTH, copy_json, decode_json, encode_json
from murmur_streams.core.model.errors import InvalidEventError, InvalidPayloadError

ORJSON = "murmur_streams.core.json_values._dumps"


@pytest.fixture(autouse=True, scope="module", params=["orjson", "json"])
def encoder(request: pytest.FixtureRequest) -> Iterator[str]:
    """Every test runs with orjson and, as where it is not installed, with the json module."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "orjson":
            pytest.importorskip("orjson")
        else:
            patch.setattr(ORJSON, None)
        yield request.param


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**1023), 2**1023)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda children: st.lists(children) | st.dictionaries(st.text("ab\u0000é"), children),
    max_leaves=20,
)


class Text(str):
    __slots__ = ()


class Whole(int):
    pass


class Real(float):
    pass


class Names(dict[str, Any]):
    pass


class Items(list[Any]):
    pass


class Pair(NamedTuple):
    first: object
    second: object


class Colour(StrEnum):
    RED = "red"


class Plain(Enum):
    ONE = 1


@dataclasses.dataclass
class Data:
    name: str = "a"


anything = st.recursive(
    json_values
    | st.floats()
    | st.text(st.characters(), max_size=3)
    | st.integers(-(2**1030), 2**1030)
    | st.builds(Text, st.text(max_size=3))
    | st.builds(Whole, st.integers())
    | st.builds(Real, st.floats())
    | st.sampled_from(
        [b"", Decimal(1), Plain.ONE, Colour.RED, Data(), datetime(2026, 1, 1, tzinfo=UTC)]
    )
    | st.uuids(),
    lambda children: (
        st.lists(children, max_size=4)
        | st.builds(Items, st.lists(children, max_size=4))
        | st.tuples(children, children)
        | st.builds(Pair, children, children)
        | st.dictionaries(st.text(max_size=3) | st.integers() | st.none(), children, max_size=4)
        | st.builds(Names, st.dictionaries(st.text(max_size=3), children, max_size=4))
    ),
    max_leaves=12,
)
"""JSON, what encodes as if it were, and what does not encode."""


def encoded(value: object) -> str:
    """The text of a value, or the error that refuses it."""
    try:
        return encode_json(value, "it")
    except InvalidPayloadError as error:
        return f"refused: {error}"


def with_the_json_module(value: object) -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ORJSON, None)
        return encoded(value)


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


@pytest.mark.parametrize(
    "value",
    [
        b"",
        {1},
        object(),
        Decimal(1),
        1j,
        range(3),
        print,
        Plain.ONE,
        Data(),
        uuid.uuid4(),
        datetime.now(UTC),
        datetime.now(UTC).date(),
    ],
)
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


@settings(max_examples=1000)
@given(anything)
def test_both_encoders_make_the_same_text(value: object) -> None:
    """The text, or the refusal, does not depend on whether orjson is installed."""
    assert encoded(value) == with_the_json_module(value)


@settings(max_examples=1000)
@given(st.floats())
def test_both_write_floats_as_python_does(value: float) -> None:
    """A float is written with the digits of its repr, and comes back with its sign."""
    assert encoded([value]) == with_the_json_module([value])
    if math.isfinite(value):
        assert encoded(value) == repr(value) == repr(decode_json(encoded(value)))


def test_both_write_powers_of_ten_alike() -> None:
    """Each power of ten, its neighbours and its negative have one text."""
    for exponent in range(-324, 309):
        power = float(f"1e{exponent}")
        near = [power, -power, math.nextafter(power, 0), math.nextafter(power, math.inf), 3 * power]
        assert encoded(near) == with_the_json_module(near)


def test_both_escape_characters_alike() -> None:
    """Each character of Unicode has one text, in values and in keys."""
    for first in range(0, sys.maxunicode, 0x1000):
        codes = [code for code in range(first, first + 0x1000) if not 0xD800 <= code < 0xE000]
        text = "".join(map(chr, codes))
        assert encoded({text: text}) == with_the_json_module({text: text})
        assert decode_json(encoded(text)) == text


@pytest.mark.parametrize("bits", [31, 32, 53, 62, 63, 64, 65, 1023, 1024])
def test_both_write_large_integers_alike(bits: int) -> None:
    """Integers around each width of a machine have one text and come back as integers."""
    for value in [2**bits, 2**bits - 1, 1 - 2**bits, -(2**bits), -(2**bits) - 1]:
        assert encoded([value]) == with_the_json_module([value])
        if value.bit_length() <= 1024:
            assert repr(decode_json(encoded(value))) == str(value)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Text("a"), '"a"'),
        (Whole(3), "3"),
        (Real(1.5), "1.5"),
        (True, "true"),
        (Colour.RED, '"red"'),
        (Names(a=1), '{"a":1}'),
        (Items([1]), "[1]"),
        (Pair(1, None), "[1,null]"),
        ({Text("a"): 1, Colour.RED: 2}, '{"a":1,"red":2}'),
        ({Text("a"): 1, "b": 2}, '{"a":1,"b":2}'),
        (-0.0, "-0.0"),
    ],
)
def test_a_subclass_is_written_as_its_base(value: object, text: str) -> None:
    """Subclasses of JSON's types, enums with text or a number, and named tuples are accepted."""
    assert encode_json([value], "it") == f"[{text}]"


def test_a_fragment_of_orjson_is_refused() -> None:
    """orjson.Fragment, which orjson copies unread, is not JSON here."""
    orjson = pytest.importorskip("orjson")
    with pytest.raises(InvalidPayloadError, match="type Fragment"):
        encode_json({"a": orjson.Fragment(b"{]")}, "it")


@settings(max_examples=500)
@given(
    st.from_regex(r"-?(0|[1-9][0-9]{0,40})(\.[0-9]{1,40})?([eE][+-]?[0-9]{1,3})?", fullmatch=True)
)
def test_numbers_are_read_as_python_does(text: str) -> None:
    """A number of any length, as other programs write it, is read as the json module reads it."""
    assert repr(decode_json(f"[{text}]")) == repr(json.loads(f"[{text}]"))


@pytest.mark.parametrize(
    "text",
    ['"\\ud800"', '{"a":1,"a":2}', "NaN", "-Infinity", "1e999", " [ ] ", "[" * 300 + "]" * 300],
)
def test_what_older_releases_stored_is_read(text: str) -> None:
    """Whatever the json module reads is read, as text and as bytes."""
    assert repr(decode_json(text)) == repr(decode_json(text.encode())) == repr(json.loads(text))


@pytest.mark.parametrize("text", ["", "[1,]", "{", "nul", "01", '"\x01"', "1" * 5000, b"\xff"])
def test_text_that_is_not_json_raises(text: str | bytes) -> None:
    """A damaged text raises ValueError."""
    with pytest.raises(ValueError, match=r"[a-z]"):
        decode_json(text)


def test_a_copy_shares_nothing() -> None:
    """A later change of the original does not reach the copy; tuples become lists."""
    value: dict[str, Any] = {"a": [1, (2,)], "b": {"c": None}}
    copied = copy_json(value, "it")
    value["a"].append(3)
    value["b"]["c"] = 4
    assert copied == {"a": [1, [2]], "b": {"c": None}}


def test_the_package_works_without_orjson() -> None:
    """Where orjson is not installed, the module imports and encodes."""
    code = (
        "import sys; sys.modules['orjson'] = None\n"
        "from murmur_streams.core.json_values import encode_json\n"
        "print(encode_json({'a': [1, 1e16]}, 'it'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == '{"a":[1,1e+16]}\n'
