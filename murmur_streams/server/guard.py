"""What every request passes before a route sees it; plain ASGI, so that streams stay streams.

Two layers, since a page of another origin is to read the refusals of the inner one: ``Identity``
gives a request its id and its line in the access log, ``Limits`` refuses what no route should see
and answers what routes raise.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterable

from fastapi import APIRouter, Response
from fastapi.routing import APIRoute
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from murmur_streams.fleet.logs import loggable_traceback
from murmur_streams.server.answering import logger, problem_answer
from murmur_streams.server.metrics import Metrics
from murmur_streams.server.options import ServerOptions
from murmur_streams.server.pod import Pod
from murmur_streams.server.problems import ProblemError
from murmur_streams.wire.problems import (
    BAD_REQUEST,
    DRAINING,
    LONG_HEADERS,
    LONG_URL,
    MEDIA,
    METHOD,
    SLOW_BODY,
    TOO_LARGE,
)

access_log = logging.getLogger("murmur_streams.access")

PROBES = frozenset({"/health", "/healthz", "/readyz", "/metrics"})
"""What is answered while the pod drains."""
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
"""What the router may see; it refuses those that a path has not."""
SINGLE = (
    "Authorization",
    "Content-Length",
    "Content-Type",
    "Host",
    "Idempotency-Key",
    "Last-Event-ID",
)
"""Headers that mean nothing when there are two of them."""
CLIENT_GONE = 499
"""In the log alone: who asked was gone before there was an answer."""
_CLOSE = {"Connection": "close"}
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_JSON = re.compile(r'application/json(?:\s*;\s*charset=(?:utf-?8|"utf-?8"))?\s*', re.IGNORECASE)

Allowed = Callable[[str], tuple[str, ...]]
"""The methods of a path; none for a path that is not there."""


class Identity:
    """Names a request, marks its answer, and logs and counts it."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(Headers(scope=scope).getlist("x-request-id"))
        scope.setdefault("state", {})["request_id"] = request_id
        answer = _Answer(send, request_id)
        try:
            await self._app(scope, receive, answer)
        finally:
            self._told(scope, answer)

    def _told(self, scope: Scope, answer: _Answer) -> None:
        route = getattr(scope.get("route"), "path_format", None) or "unmatched"
        self._metrics.answered(scope["method"], route, answer.status, answer.seconds)
        access_log.info(
            "%s %s %d %d bytes %.1f ms request %s client %s",
            escaped(scope["method"]),
            # Without its query: a ticket is as good as a token.
            escaped(scope["path"]),
            answer.status,
            answer.size,
            (time.perf_counter() - answer.began) * 1000,
            answer.request_id,
            escaped((scope.get("client") or ("-",))[0]),
        )


class _Answer:
    """Sends on what is answered, with the headers that every answer has."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send = send
        self.request_id = request_id
        self.began = time.perf_counter()
        self.seconds = 0.0
        self.status = CLIENT_GONE
        self.size = 0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.seconds = time.perf_counter() - self.began
            headers = MutableHeaders(scope=message)
            headers["X-Request-Id"] = self.request_id
            headers["X-Content-Type-Options"] = "nosniff"
            headers.setdefault("Cache-Control", "no-store")
        elif message["type"] == "http.response.body":
            self.size += len(message.get("body", b""))
        await self._send(message)


class Limits:
    """Refuses what is too large, too slow or malformed, and answers what routes raise."""

    def __init__(self, app: ASGIApp, pod: Pod, allowed: Allowed) -> None:
        self._app = app
        self._pod = pod
        self._allowed = allowed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def sending(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._serve(scope, Body(receive, self._pod.options), sending)
        except ClientDisconnect:
            return
        except (Exception, SystemExit, KeyboardInterrupt) as error:
            # The last two are not a signal's: a user's own type, which checks an input here, may
            # raise anything, and must not end the pod.
            request_id = scope["state"]["request_id"]
            if started:
                logger.error(  # the traceback is in the text
                    "request %s: its answer broke off: %s", request_id, loggable_traceback(error)
                )
                raise
            await problem_answer(error, request_id)(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = route_path(scope)
        check_size(scope, self._pod.options)
        check_headers(scope)
        if self._pod.drain.is_set() and path not in PROBES:
            raise ProblemError(DRAINING)
        method: str = scope["method"]
        if method not in METHODS:
            raise ProblemError(METHOD, headers={"Allow": ", ".join(self._allowed(path))})
        if method == "POST":
            check_body(Headers(scope=scope), self._pod.options)
        if method == "OPTIONS" and (methods := self._allowed(path)):
            await Response(status_code=204, headers={"Allow": ", ".join(methods)})(
                scope, receive, send
            )
        elif method == "HEAD" and "HEAD" in self._allowed(path):
            await self._head(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _head(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def headers_alone(message: Message) -> None:
            if message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        # A copy: by the scope's own method the server knows that no body is due.
        asked = {**scope, "method": "GET"}
        try:
            await self._app(asked, receive, headers_alone)
        finally:
            if "route" in asked:
                scope["route"] = asked["route"]


class Body:
    """Receives a request's body, as far as it may be long and slow."""

    def __init__(self, receive: Receive, options: ServerOptions) -> None:
        self._receive = receive
        self._options = options
        self._size = 0
        self._is_whole = False
        self._deadline: float | None = None

    async def __call__(self) -> Message:
        if self._is_whole:
            return await self._receive()
        if self._deadline is None:
            self._deadline = asyncio.get_running_loop().time() + self._options.body_seconds
        try:
            async with asyncio.timeout_at(self._deadline):
                message = await self._receive()
        except TimeoutError:
            raise ProblemError(SLOW_BODY, headers=_CLOSE) from None
        self._is_whole = not message.get("more_body", False)
        self._size += len(message.get("body", b""))
        if self._size > self._options.max_body_bytes:
            raise _too_large(self._options)
        return message


def check_size(scope: Scope, options: ServerOptions) -> None:
    """Refuse too many or too large headers, or too long a URL."""
    headers: list[tuple[bytes, bytes]] = scope["headers"]
    size = sum(len(name) + len(value) + 4 for name, value in headers)
    if len(headers) > options.max_headers or size > options.max_header_bytes:
        raise ProblemError(LONG_HEADERS, headers=_CLOSE)
    path = scope.get("raw_path") or scope["path"].encode()
    if len(path) + len(scope["query_string"]) > options.max_path_bytes:
        raise ProblemError(LONG_URL)


def check_headers(scope: Scope) -> None:
    """Refuse headers that come twice though there can only be one of them."""
    counts = Counter[bytes](name for name, _ in scope["headers"])
    for name in SINGLE:
        if counts[name.lower().encode()] > 1:
            raise ProblemError(BAD_REQUEST, f"there may be one {name} header")
    if scope.get("http_version") == "1.1" and not counts[b"host"]:
        raise ProblemError(BAD_REQUEST, "HTTP/1.1 has a Host header in every request")


def check_body(headers: Headers, options: ServerOptions) -> None:
    """Refuse a body that is too large by its own word, or anything but plain JSON."""
    length = headers.get("content-length", "0")
    if not (length.isascii() and length.isdigit()):
        raise ProblemError(BAD_REQUEST, "Content-Length is no number", headers=_CLOSE)
    if len(length) > len(str(options.max_body_bytes)) or int(length) > options.max_body_bytes:
        raise _too_large(options)
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise ProblemError(MEDIA, "a body may not be compressed", headers=_CLOSE)
    has_body = length.strip("0") != "" or "transfer-encoding" in headers
    if has_body and not _JSON.fullmatch(headers.get("content-type", "")):
        raise ProblemError(MEDIA, "send Content-Type: application/json", headers=_CLOSE)


def route_path(scope: Scope) -> str:
    """The path inside this app, wherever it is mounted."""
    path, root = str(scope["path"]), str(scope.get("root_path", "")).rstrip("/")
    return path[len(root) :] if root and path.startswith(root + "/") else path


def escaped(text: str) -> str:
    """A text that can forge no log line."""
    return text.encode("unicode_escape").decode("ascii")


def path_methods(routers: Iterable[APIRouter]) -> Allowed:
    """Find the methods of a path among these routers' routes."""
    routes = [each for router in routers for each in router.routes if isinstance(each, APIRoute)]
    rows = [(route.path_regex, _methods(route)) for route in routes]

    def allowed(path: str) -> tuple[str, ...]:
        found = {method for regex, methods in rows if regex.match(path) for method in methods}
        return tuple(sorted(found))

    return allowed


def _methods(route: APIRoute) -> set[str]:
    methods = {*(route.methods or ()), "OPTIONS"}
    # Only the end of a stream would tell how it begins.
    if "GET" in methods and not route.path_format.endswith("/stream"):
        methods.add("HEAD")
    return methods


def _request_id(given: list[str]) -> str:
    if len(given) == 1 and _REQUEST_ID.fullmatch(given[0]):
        return given[0]
    return secrets.token_hex(16)


def _too_large(options: ServerOptions) -> ProblemError:
    limit = f"a body may have {options.max_body_bytes:,} bytes"
    return ProblemError(TOO_LARGE, limit, headers=_CLOSE)
