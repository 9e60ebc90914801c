"""Access to routes: the dependencies that yield the caller of a request, or reject it.

They come first among a route's parameters: without credentials no body is read, and a client cannot
find out whether a run exists. After the credentials they also reject query parameters that the
route does not read, so that a misspelt one is noticed. The OpenAPI document says which ones a route
reads, so the document and the check cannot differ.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Depends, Security
from fastapi.requests import HTTPConnection
from fastapi.security import APIKeyQuery, HTTPBearer

from murmur_streams.server.auth import callers
from murmur_streams.server.pod import Pod
from murmur_streams.server.responses import invalid
from murmur_streams.wire.problems import FORBIDDEN, ProblemError

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


def needs(scope: callers.Scope) -> Callable[..., Awaitable[callers.Principal]]:
    """A dependency that yields the caller if it has this scope, and else answers 401 or 403."""

    async def caller(
        connection: HTTPConnection, _: Annotated[object, Security(_bearer)]
    ) -> callers.Principal:
        who = _with(scope, await _caller(connection))
        await check_query(connection)
        return who

    return caller


async def reader_of_streams(
    connection: HTTPConnection,
    _: Annotated[object, Security(_bearer)],
    __: Annotated[object, Security(_ticket)],
) -> callers.Principal:
    """The reader of a stream, by its ticket if it has one, else by a token with the scope read."""
    pod = pod_of(connection)
    if pod.options.authenticator is None or "ticket" not in connection.query_params:
        who = _with(callers.Scope.READ, await _caller(connection))
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


async def is_still_valid(connection: HTTPConnection, who: callers.Principal) -> bool:
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


async def _caller(connection: HTTPConnection) -> callers.Principal:
    authenticator = pod_of(connection).options.authenticator
    if authenticator is None:
        return callers.ANYONE
    return await authenticator(connection.headers.raw)


def _with(scope: callers.Scope, who: callers.Principal) -> callers.Principal:
    if who.may(scope):
        return who
    challenge = f'Bearer error="insufficient_scope", scope="{scope}"'
    raise ProblemError(
        FORBIDDEN, f"this needs the scope {scope}", headers={"WWW-Authenticate": challenge}
    )


def _of_ticket(pod: Pod, connection: HTTPConnection) -> callers.Principal:
    tickets = connection.query_params.getlist("ticket")
    secret = pod.options.ticket_secret
    who = callers.read_ticket(secret, tickets[0]) if secret and len(tickets) == 1 else None
    asked = {*connection.query_params.getlist("run")}
    if "run_id" in connection.path_params:
        asked.add(connection.path_params["run_id"])
    if who is None or asked != {who.run_id}:
        raise callers.unauthorized("this ticket is not good here, or no more")
    return who


ThePod = Annotated[Pod, Depends(pod_of)]
Reader = Annotated[callers.Principal, Depends(needs(callers.Scope.READ))]
Submitter = Annotated[callers.Principal, Depends(needs(callers.Scope.SUBMIT))]
Canceller = Annotated[callers.Principal, Depends(needs(callers.Scope.CANCEL))]
Admin = Annotated[callers.Principal, Depends(needs(callers.Scope.ADMIN))]
READERS = [Depends(needs(callers.Scope.READ))]
"""The ``dependencies=`` of a route that does not need to know which reader asks."""
StreamReader = Annotated[callers.Principal, Depends(reader_of_streams)]
"""For the streams of runs; other routes ignore tickets."""
