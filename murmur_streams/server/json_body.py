"""Strict JSON: only texts of RFC 8259 that every parser reads alike; anything else is a 400."""

from __future__ import annotations

import json
import math
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, cast

from fastapi import Request
from pydantic import BaseModel, JsonValue, ValidationError

from murmur_streams.server.auth.access import pod_of
from murmur_streams.server.options import ServerOptions
from murmur_streams.server.responses import invalid
from murmur_streams.wire.problems import BAD_JSON, TOO_LARGE, ProblemError

MOST_DIGITS = 310
"""A longer integer has over 1,024 bits, or leading zeros."""
MOST_MEMBERS = 8_192
"""Of one object; an object with more is data that belongs in a list, or an attack."""
LONGEST_NAME = 1_024

_Model = TypeVar("_Model", bound=BaseModel)


def parse_json(raw: bytes, options: ServerOptions) -> JsonValue:
    """Parse a JSON text.

    Numbers come out as sent: an integer to its last digit, other numbers as the nearest double.

    Args:
        raw: UTF-8; a byte order mark at its beginning is ignored.
        options: the limits of nesting and of the number of values.

    Raises:
        ProblemError: 400 if it is not JSON, has a member twice, NaN, an infinite or too long
            number, or a lone surrogate, or is nested too deep; 413 if it has too many values, or
            too many or too long names.
    """
    try:
        value = _DECODER.decode(raw.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise ProblemError(BAD_JSON, "the body is not UTF-8") from None
    except RecursionError:
        raise _too_deep(options) from None
    except json.JSONDecodeError as error:
        where = f"at line {error.lineno}, column {error.colno}"
        raise ProblemError(BAD_JSON, f"the body is not JSON: {error.msg} {where}") from None
    _check(value, options)
    return value


def body_of(
    model: type[_Model], *, is_optional: bool = False
) -> Callable[[Request], Awaitable[_Model]]:
    """A dependency that yields the request's body as this model; an optional one may be empty."""

    async def body(request: Request) -> _Model:
        raw = await request.body()
        if not (raw or is_optional):
            raise ProblemError(BAD_JSON, "the body is empty, but must be a JSON object")
        value = parse_json(raw or b"{}", pod_of(request).options)
        try:
            return model.model_validate(value)
        except ValidationError as error:
            raise invalid("the body", cast("list[Any]", error.errors(include_url=False))) from None

    return body


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(pairs) > MOST_MEMBERS:
        raise ProblemError(TOO_LARGE, f"an object of the body has over {MOST_MEMBERS:,} members")
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ProblemError(BAD_JSON, "an object of the body has two members of the same name")
    return found


def _integer(digits: str) -> int | float:
    if len(digits) > MOST_DIGITS:
        raise ProblemError(BAD_JSON, "the body has an integer of too many digits")
    # As an integer it would lose its sign.
    return -0.0 if digits == "-0" else int(digits)


def _float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ProblemError(BAD_JSON, "the body has a number that is too large")
    return number


def _constant(name: str) -> float:
    raise ProblemError(BAD_JSON, f"the body has {name}, which JSON does not know")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_members, parse_int=_integer, parse_float=_float, parse_constant=_constant
)


def _check(value: JsonValue, options: ServerOptions) -> None:
    # With a list as stack: recursion could exceed Python's limit before the body's limit is seen.
    stack: list[tuple[JsonValue, int]] = [(value, 1)]
    values = 1
    while stack:
        item, depth = stack.pop()
        if isinstance(item, str):
            _check_text(item)
        elif isinstance(item, (list, dict)):
            values += len(item)
            if values > options.max_json_values:
                most = f"the body has over {options.max_json_values:,} values"
                raise ProblemError(TOO_LARGE, most)
            if depth > options.max_json_depth:
                raise _too_deep(options)
            if isinstance(item, dict):
                for name in item:
                    _check_text(name)
                if any(len(name) > LONGEST_NAME for name in item):
                    too_long = f"a name in the body has over {LONGEST_NAME:,} characters"
                    raise ProblemError(TOO_LARGE, too_long)
                stack.extend((child, depth + 1) for child in item.values())
            else:
                stack.extend((child, depth + 1) for child in item)


def _too_deep(options: ServerOptions) -> ProblemError:
    return ProblemError(BAD_JSON, f"the body is nested deeper than {options.max_json_depth}")


def _check_text(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ProblemError(BAD_JSON, "the body has a lone surrogate, which is not text") from None
