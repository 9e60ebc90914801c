"""JSON as this package accepts it: values that every store and client reads back unchanged."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import cast

from pydantic import JsonValue
from pydantic_core import from_json

from murmur_streams.core.model.errors import InvalidInputError, InvalidPayloadError

try:
    from orjson import dumps
except ImportError:
    _dumps: Callable[[object], bytes] | None = None
else:
    _dumps = dumps

MAX_DEPTH = 100
MAX_INT_BITS = 1024

# Made once: ``json.dumps`` makes an encoder for each call, which took as long as the encoding.
_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode

_Container = list[object] | tuple[object, ...] | dict[object, object]


def encode_json(
    value: object, what: str, error: type[InvalidInputError] = InvalidPayloadError
) -> str:
    """Encode ``value`` as compact JSON text.

    The text is the same with orjson and without it: digests of texts are compared between
    processes, of which only some may have orjson.

    Args:
        value: None, bool, int (to 1,024 bits), finite float, str, and lists, tuples and
            dicts (with str keys) of these, at most 100 levels deep.
        what: what the value is, for the error's text.
        error: the class to raise.

    Raises:
        InvalidInputError: (as ``error``) the value is not JSON; the text says why.
    """
    if _dumps is not None and _is_plain(value):
        try:
            return _dumps(value).decode()
        except TypeError:
            # A key that is not text, an integer of over 64 bits or a lone surrogate: the check
            # below decides about it, and names it if it is refused.
            pass
    _check(value, what, error)
    text = _encode(value)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise error(f"{what} holds a lone surrogate, which is not valid Unicode text") from None
    return text


def decode_json(text: str | bytes) -> JsonValue:
    """Decode JSON text that this package encoded.

    Raises:
        ValueError, RecursionError: it is not JSON, or is nested too deep.
    """
    # Not orjson, which reads an integer of over 64 bits as a float.
    try:
        return cast("JsonValue", from_json(text))
    except (TypeError, ValueError):
        # Older releases may have stored what only the json module reads, such as lone surrogates.
        return cast("JsonValue", json.loads(text))


def utc_text(moment: datetime) -> str:
    """The ISO text of a time that is in UTC, as ``isoformat`` makes it."""
    if _dumps is not None and type(moment) is datetime:
        return _dumps(moment)[1:-1].decode()  # JSON has it in quotes.
    return moment.isoformat()


def copy_json(
    value: object, what: str, error: type[InvalidInputError] = InvalidPayloadError
) -> JsonValue:
    """Copy a JSON value; later changes of the original do not reach the copy.

    Arguments and errors as ``encode_json``.
    """
    if value is None:
        return None
    return decode_json(encode_json(value, what, error))


_LEAVES = frozenset({type(None), bool, int, str})
_LEAST_WITHOUT_EXPONENT = 1e-4
_LEAST_WITH_EXPONENT = 1e16


def _is_plain(value: object, deeper: int = MAX_DEPTH - 1) -> bool:
    """Whether orjson encodes a value as the json module does, or raises TypeError.

    That holds for values of exactly these types. Of others, orjson encodes some that this package
    refuses, such as UUIDs, and writes enums by rules of its own. It holds for floats that are
    written without an exponent; orjson writes NaN as null.

    Args:
        value: the value.
        deeper: how many levels it may have below its own.
    """
    kind = type(value)
    if kind is dict:
        items: Iterable[object] = cast("dict[object, object]", value).values()
    elif kind is list or kind is tuple:
        items = cast("Iterable[object]", value)
    else:
        items = (value,)
        deeper = 0
    # A loop without calls for leaves: this is most of the time of encoding.
    for item in items:
        kind = type(item)
        if kind in _LEAVES:
            continue
        if kind is float:
            size = abs(cast("float", item))
            if not (_LEAST_WITHOUT_EXPONENT <= size < _LEAST_WITH_EXPONENT or size == 0):
                return False
        elif not (deeper and _is_plain(item, deeper - 1)):
            return False
    return True


def _check(value: object, what: str, error: type[InvalidInputError]) -> None:
    # With recursion, a value that is nested too deep would raise RecursionError.
    stack: list[tuple[Iterable[object], int]] = [((value,), 0)]
    while stack:
        items, depth = stack.pop()
        for item in items:
            if item is None or isinstance(item, (str, bool)):
                continue
            if isinstance(item, float):
                if not math.isfinite(item):
                    raise error(f"{what} holds {item!r}, which JSON cannot express")
            elif isinstance(item, int):
                if item.bit_length() > MAX_INT_BITS:
                    raise error(f"{what} holds an integer of more than {MAX_INT_BITS} bits")
            elif isinstance(item, (list, tuple, dict)):
                if depth == MAX_DEPTH:
                    raise error(f"{what} is nested more than {MAX_DEPTH} levels deep")
                stack.append((_children(cast("_Container", item), what, error), depth + 1))
            else:
                raise error(
                    f"{what} holds a value of type {type(item).__name__}, which is not JSON; "
                    "convert it first (for a pydantic model: model_dump(mode='json'))"
                )


def _children(item: _Container, what: str, error: type[InvalidInputError]) -> list[object]:
    if not isinstance(item, dict):
        return list(item)
    for key in item:
        if not isinstance(key, str):
            raise error(f"{what} has a key of type {type(key).__name__}; JSON keys are strings")
    return list(item.values())
