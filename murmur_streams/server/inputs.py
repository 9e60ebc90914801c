"""The inputs of routes: dependencies that yield the caller and the body of a request, or reject it.

Callers come first among a route's parameters: without credentials no body is read, and a client
cannot find out whether a run exists. After the credentials they also reject query parameters that
the route does not read, so that a misspelt one is noticed. The OpenAPI document says which ones a
route reads, so the document and the check cannot differ.

Bodies are strict JSON: only texts of RFC 8259 that every parser reads alike; others are a 400.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, TypeVar, cast

from fastapi import Depends, Request, Security
from fastapi.requests import HTTPConnection
from fastapi.security import APIKeyQuery, HTTPBearer
from pydantic import BaseModel, JsonValue, ValidationError

from murmur_streams.server.auth import ANYONE, Principal, Scope, read_ticket, unauthorized
from murmur_streams.server.options import ServerOptions
from murmur_streams.server.pod import Pod
from murmur_streams.server.responses import invalid
from murmur_streams.wire.problems import BAD_JSON, FORBIDDEN, TOO_LARGE, ProblemError

# Both are only for the OpenAPI document: the functions below read the headers themselves.
_bearer = HTTPBearer(
    scheme_name="bearer", description="A token of the tokens file.", auto_error=False
)
_ticket = APIKeyQuery(
    name="ticket",
    scheme_name="ticket",
    description="A ticket of POST /runs/{run_id}/ticket, for clients that cannot send headers.",
    auto_error=False,
)


def needs(scope: Scope) -> Callable[..., Awaitable[Principal]]:
    """A dependency that yields the caller if it has this scope, and else answers 401 or 403."""

    async def caller(
        connection: HTTPConnection, _: Annotated[object, Security(_bearer)]
    ) -> Principal:
        who = _with(scope, await _caller(connection))
        await check_query(connection)
        return who

    return caller


async def reader_of_streams(
    connection: HTTPConnection,
    _: Annotated[object, Security(_bearer)],
    __: Annotated[object, Security(_ticket)],
) -> Principal:
    """The reader of a stream, by its ticket if it has one, else by a token with the scope read."""
    pod = pod_of(connection)
    if pod.options.authenticator is None or "ticket" not in connection.query_params:
        who = _with(Scope.READ, await _caller(connection))
    else:
        who = _of_ticket(pod, connection)
    await check_query(connection)
    return who


async def reader_of_document(connection: HTTPConnection) -> None:
    """Check the credentials for the OpenAPI document, unless the pod's options make it public."""
    if not pod_of(connection).options.public_openapi:
        await _caller(connection)


async def check_query(connection: HTTPConnection) -> None:
    """Reject query parameters that the route does not read, and two where it reads one.

    Raises:
        ProblemError: the text names them, and those that the route reads.
    """
    scope, query = connection.scope, connection.query_params
    known = connection.app.queries[scope["method"].lower(), scope["route"].path_format]
    reads = f"this route reads {', '.join(known)}" if known else "this route reads none"
    rules: dict[str, str] = {}
    for name in query:
        if name not in known:
            rules[name] = f"is not a known query parameter; {reads}"
        elif len(query.getlist(name)) > 1 and not known[name]:
            rules[name] = "may be there only once"
    if rules:
        found = [{"loc": ("query", name), "msg": rule} for name, rule in rules.items()]
        raise invalid("the request", found)


async def is_still_valid(connection: HTTPConnection, who: Principal) -> bool:
    """Whether an open stream's credentials are still valid: not expired, and not removed.

    A ticket cannot be withdrawn; its stream ends when the credentials expire that got the ticket.
    """
    if who.expires_at is not None and time.time() >= who.expires_at:
        return False
    if who.run_id is not None:
        return True
    try:
        return await _caller(connection) == who
    except ProblemError:
        return False


def pod_of(connection: HTTPConnection) -> Pod:
    """The pod of the app that answers."""
    pod: Pod = connection.app.state.pod
    return pod


async def _caller(connection: HTTPConnection) -> Principal:
    authenticator = pod_of(connection).options.authenticator
    if authenticator is None:
        return ANYONE
    return await authenticator(connection.headers.raw)


def _with(scope: Scope, who: Principal) -> Principal:
    if who.may(scope):
        return who
    challenge = f'Bearer error="insufficient_scope", scope="{scope}"'
    raise ProblemError(
        FORBIDDEN, f"this needs the scope {scope}", headers={"WWW-Authenticate": challenge}
    )


def _of_ticket(pod: Pod, connection: HTTPConnection) -> Principal:
    tickets = connection.query_params.getlist("ticket")
    secret = pod.options.ticket_secret
    who = read_ticket(secret, tickets[0]) if secret and len(tickets) == 1 else None
    asked = {*connection.query_params.getlist("run")}
    if "run_id" in connection.path_params:
        asked.add(connection.path_params["run_id"])
    if who is None or asked != {who.run_id}:
        raise unauthorized("this ticket is not good here, or no more")
    return who


ThePod = Annotated[Pod, Depends(pod_of)]
Reader = Annotated[Principal, Depends(needs(Scope.READ))]
Submitter = Annotated[Principal, Depends(needs(Scope.SUBMIT))]
Canceller = Annotated[Principal, Depends(needs(Scope.CANCEL))]
Admin = Annotated[Principal, Depends(needs(Scope.ADMIN))]
READERS = [Depends(needs(Scope.READ))]
"""The ``dependencies=`` of a route that does not need to know which reader asks."""
StreamReader = Annotated[Principal, Depends(reader_of_streams)]
"""For the streams of runs; other routes ignore tickets."""


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
