"""JSON as this package accepts it: values that every store and client reads back unchanged."""

from __future__ import annotations

import json
import math
from typing import cast

from pydantic import JsonValue

from murmur_streams.core.model.errors import InvalidInputError, InvalidPayloadError

MAX_DEPTH = 100
MAX_INT_BITS = 1024

# Made once: ``json.dumps`` makes an encoder for each call, which took as long as the encoding.
_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode

_Container = list[object] | tuple[object, ...] | dict[object, object]


def encode_json(
    value: object, what: str, error: type[InvalidInputError] = InvalidPayloadError
) -> str:
    """Encode ``value`` as compact JSON text.

    Args:
        value: None, bool, int (to 1,024 bits), finite float, str, and lists, tuples and
            dicts (with str keys) of these, at most 100 levels deep.
        what: what the value is, for the error's text.
        error: the class to raise.

    Raises:
        InvalidInputError: (as ``error``) the value is not JSON; the text says why.
    """
    _check(value, what, error)
    text = _encode(value)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise error(f"{what} holds a lone surrogate, which is not valid Unicode text") from None
    return text


def decode_json(text: str | bytes) -> JsonValue:
    """Decode JSON text that this package encoded."""
    return cast("JsonValue", json.loads(text))


def copy_json(
    value: object, what: str, error: type[InvalidInputError] = InvalidPayloadError
) -> JsonValue:
    """Copy a JSON value; later changes of the original do not reach the copy.

    Arguments and errors as ``encode_json``.
    """
    if value is None:
        return None
    return decode_json(encode_json(value, what, error))


def _check(value: object, what: str, error: type[InvalidInputError]) -> None:
    # With recursion, a value that is nested too deep would raise RecursionError.
    stack: list[tuple[object, int]] = [(value, 1)]
    while stack:
        item, depth = stack.pop()
        if item is None or isinstance(item, (bool, str)):
            continue
        if isinstance(item, int):
            if item.bit_length() > MAX_INT_BITS:
                raise error(f"{what} holds an integer of more than {MAX_INT_BITS} bits")
        elif isinstance(item, float):
            if not math.isfinite(item):
                raise error(f"{what} holds {item!r}, which JSON cannot express")
        elif isinstance(item, (list, tuple, dict)):
            if depth > MAX_DEPTH:
                raise error(f"{what} is nested more than {MAX_DEPTH} levels deep")
            children = _children(cast("_Container", item), what, error)
            stack.extend((child, depth + 1) for child in children)
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
