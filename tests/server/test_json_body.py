"""The strict decoder of bodies: what is JSON here, and that it comes out as it was sent."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from murmur_streams.server import ServerOptions
from murmur_streams.server.inputs import LONGEST_NAME, MOST_MEMBERS, parse_json
from murmur_streams.wire.problems import ProblemError

REFUSED = {
    "empty": b"",
    "blank": b"  ",
    "cut off": b"{",
    "nested 100,000 deep": b"[" * 100_000,
    "nested one too deep": b"[" * 65 + b"]" * 65,
    "objects one too deep": b'{"a":' * 65 + b"1" + b"}" * 65,
    "NaN": b'{"a": NaN}',
    "Infinity": b"Infinity",
    "minus Infinity": b"[-Infinity]",
    "1e999": b"1e999",
    "an integer of 5,000 digits": b"1" * 5_000,
    "a member twice": b'{"target":"a","target":"b"}',
    "a member twice, escaped": b'{"a":1,"\\u0061":2}',
    "no UTF-8": b'{"a":"\xff"}',
    "UTF-8 of a surrogate": b'"\xed\xa0\x80"',
    "two byte order marks": b"\xef\xbb\xbf\xef\xbb\xbf{}",
    "a byte order mark in the middle": b'{"a":\xef\xbb\xbf1}',
    "a byte order mark alone": b"\xef\xbb\xbf",
    "UTF-16": '{"a":1}'.encode("utf-16"),
    "UTF-16 without its mark": '{"a":1}'.encode("utf-16-le"),
    "a lone surrogate": b'"\\ud800"',
    "a lone surrogate in a name": b'{"\\udfff":1}',
    "a bare newline in text": b'"a\nb"',
    "a NUL in text": b'"a\x00b"',
    "two values": b"{}{}",
    "a comma at the end": b"[1,]",
    "single quotes": b"{'a':1}",
    "a comment": b"{} // no",
    "a leading zero": b"01",
    "a plus": b"+1",
}
TOO_LARGE = {
    "a name of a megabyte": b'{"' + b"k" * 1_000_000 + b'":1}',
    "10,000 members": json.dumps({str(number): 1 for number in range(10_000)}).encode(),
}
PRESERVED = [
    "0.1",
    "1e-07",
    "9007199254740993",
    "-9223372036854775809",
    "18446744073709551616",
    "-0.0",
    "[]",
    "{}",
    "null",
    '"\\u0000\\u0001\\u202e"',
    '{"__proto__": {"constructor": 1}, "": "nameless"}',
    "\"cos\\nsystem\\n(S'id'\\ntR.\"",
    '"!!python/object/apply:os.system [id]"',
    '"*1\\r\\n$8\\r\\nFLUSHALL\\r\\n"',
]


@pytest.mark.parametrize("raw", REFUSED.values(), ids=REFUSED.keys())
def test_what_is_no_strict_json_is_a_bad_request(raw: bytes) -> None:
    """Each text that only lenient decoders accept is 400."""
    with pytest.raises(ProblemError) as caught:
        parse_json(raw, ServerOptions())
    assert caught.value.kind.status == 400


@pytest.mark.parametrize("raw", TOO_LARGE.values(), ids=TOO_LARGE.keys())
def test_names_are_limited_in_length_and_number(raw: bytes) -> None:
    """The answer is 413."""
    with pytest.raises(ProblemError) as caught:
        parse_json(raw, ServerOptions())
    assert caught.value.kind.status == 413


@pytest.mark.parametrize("text", PRESERVED)
def test_values_come_out_as_they_were_sent(text: str) -> None:
    """Numbers keep their digits."""
    assert json.dumps(parse_json(text.encode(), ServerOptions())) == text


def test_a_negative_zero_stays_one() -> None:
    """As a float, since an integer has none."""
    assert str(parse_json(b"-0", ServerOptions())) == "-0.0"


def test_what_is_just_small_enough_is_taken() -> None:
    """Exactly the deepest nesting, the longest name, the most members."""
    assert parse_json(b"[" * 64 + b"]" * 64, ServerOptions())
    assert parse_json(json.dumps({"k" * LONGEST_NAME: 1}).encode(), ServerOptions())
    assert parse_json(
        json.dumps({str(n): 1 for n in range(MOST_MEMBERS)}).encode(), ServerOptions()
    )


_TEXT = st.text(st.characters(codec="utf-8"))
_NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)


@given(
    st.recursive(
        st.none() | st.booleans() | _NUMBERS | _TEXT,
        lambda inner: st.lists(inner) | st.dictionaries(_TEXT, inner),
        max_leaves=20,
    )
)
def test_every_json_value_is_read_back(value: object) -> None:
    """Escaped and unescaped text gives the same value."""
    for ensure_ascii in (True, False):
        assert (
            parse_json(
                json.dumps(value, ensure_ascii=ensure_ascii).encode(),
                ServerOptions(max_json_depth=100),
            )
            == value
        )


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_but_a_problem(raw: bytes) -> None:
    """Random bytes never raise another exception."""
    with contextlib.suppress(ProblemError):
        parse_json(raw, ServerOptions(max_json_depth=8))


@pytest.mark.parametrize("text", ["[" + "{}," * 99 + "{}]", '[{"a": [1]}' + ", 0" * 97 + "]"])
def test_a_body_has_so_many_values_and_no_more(text: str) -> None:
    """One value over the limit is 413."""
    assert parse_json(text.encode(), ServerOptions(max_json_values=101))
    with pytest.raises(ProblemError) as refused:
        parse_json(text.encode(), ServerOptions(max_json_values=100))
    assert refused.value.kind.slug == "too-large"
