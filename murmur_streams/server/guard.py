"""Middleware around every route, as plain ASGI: Starlette's base class would buffer event streams.

``Identity``, the outer layer, gives a request its id and its line in the access log.
``RequestLimits``, the inner one, rejects requests that no route should see, and turns exceptions of
routes into problem documents. CORS is between them, so that pages of other origins can read those.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time
from collections import Counter

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from murmur_streams.fleet.logs import loggable_traceback
from murmur_streams.server.options import ServerOptions
from murmur_streams.server.pod import Metrics, Pod
from murmur_streams.server.responses import logger, problem_answer
from murmur_streams.wire import problems as kinds
from murmur_streams.wire.problems import ProblemError

access_log = logging.getLogger("murmur_streams.access")

PROBES = frozenset({"/health", "/healthz", "/readyz", "/metrics"})
"""Paths that still answer while the pod drains."""
SINGLE = (
    "Authorization",
    "Content-Length",
    "Content-Type",
    "Host",
    "Idempotency-Key",
    "Last-Event-ID",
)
"""Headers that may come only once."""
CLIENT_GONE = 499
"""Only in the log: the client closed the connection before the answer."""
_CLOSE = {"Connection": "close"}
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_JSON = re.compile(r'application/json(?:\s*;\s*charset=(?:utf-?8|"utf-?8"))?\s*', re.IGNORECASE)
_STREAMS = re.compile(r"(/runs/[^/]+|/events)?/stream")


class Identity:
    """Gives a request its id, sets the headers of every answer, and logs and counts the request."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).getlist("x-request-id")
        is_fit = len(given) == 1 and _REQUEST_ID.fullmatch(given[0])
        request_id = given[0] if is_fit else secrets.token_hex(16)
        scope.setdefault("state", {})["request_id"] = request_id
        answer = _RecordedAnswer(send, request_id)
        try:
            await self._app(scope, receive, answer)
        finally:
            self._record(scope, answer)

    def _record(self, scope: Scope, answer: _RecordedAnswer) -> None:
        route = getattr(scope.get("route"), "path_format", None) or "unmatched"
        self._metrics.answered(scope["method"], route, answer.status, answer.seconds)
        access_log.info(
            "%s %s %d %d bytes %.1f ms request %s client %s",
            escaped(scope["method"]),
            # Without its query, which may have a ticket: a ticket opens a stream as a token does.
            escaped(scope["path"]),
            answer.status,
            answer.size,
            (time.perf_counter() - answer.began) * 1000,
            answer.request_id,
            escaped((scope.get("client") or ("-",))[0]),
        )


class _RecordedAnswer:
    """Passes an answer on with the headers that every answer has; notes its status and size."""

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


class RequestLimits:
    """Rejects requests that are too large, too slow or malformed; answers exceptions of routes."""

    def __init__(self, app: ASGIApp, pod: Pod) -> None:
        self._app = app
        self._pod = pod

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
            await self._serve(scope, LimitedBody(receive, self._pod.options), sending)
        except ClientDisconnect:
            return
        except (Exception, SystemExit, KeyboardInterrupt) as error:
            # SystemExit and KeyboardInterrupt do not come from a signal here: the type of an
            # agent's input is the user's code, which may raise anything and must not end the pod.
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
            raise ProblemError(kinds.DRAINING)
        if scope["method"] == "POST":
            check_body(Headers(scope=scope), self._pod.options)
        if scope["method"] == "HEAD" and has_head(path):
            await self._head(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _head(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def headers_alone(message: Message) -> None:
            if message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        # A copy: the server reads the method of the original scope, and sends no body for HEAD.
        asked = {**scope, "method": "GET"}
        try:
            await self._app(asked, receive, headers_alone)
        finally:
            if "route" in asked:
                scope["route"] = asked["route"]


class LimitedBody:
    """Receives a request's body, within the limits of size and time."""

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
            raise ProblemError(kinds.SLOW_BODY, headers=_CLOSE) from None
        self._is_whole = not message.get("more_body", False)
        self._size += len(message.get("body", b""))
        if self._size > self._options.max_body_bytes:
            raise _too_large(self._options)
        return message


def check_size(scope: Scope, options: ServerOptions) -> None:
    """Reject too many or too large headers, and a URL that is too long."""
    headers: list[tuple[bytes, bytes]] = scope["headers"]
    size = sum(len(name) + len(value) + 4 for name, value in headers)
    if len(headers) > options.max_headers or size > options.max_header_bytes:
        raise ProblemError(kinds.LONG_HEADERS, headers=_CLOSE)
    path = scope.get("raw_path") or scope["path"].encode()
    if len(path) + len(scope["query_string"]) > options.max_path_bytes:
        raise ProblemError(kinds.LONG_URL)


def check_headers(scope: Scope) -> None:
    """Reject headers that come twice though only one is allowed, and HTTP/1.1 without Host."""
    counts = Counter[bytes](name for name, _ in scope["headers"])
    for name in SINGLE:
        if counts[name.lower().encode()] > 1:
            raise ProblemError(kinds.BAD_REQUEST, f"there may be one {name} header")
    if scope.get("http_version") == "1.1" and not counts[b"host"]:
        raise ProblemError(kinds.BAD_REQUEST, "HTTP/1.1 has a Host header in every request")


def check_body(headers: Headers, options: ServerOptions) -> None:
    """Reject a body whose Content-Length is too large, and one that is not plain JSON."""
    length = headers.get("content-length", "0")
    if not (length.isascii() and length.isdigit()):
        raise ProblemError(kinds.BAD_REQUEST, "Content-Length is not a number", headers=_CLOSE)
    if len(length) > len(str(options.max_body_bytes)) or int(length) > options.max_body_bytes:
        raise _too_large(options)
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise ProblemError(kinds.MEDIA, "a body may not be compressed", headers=_CLOSE)
    has_body = length.strip("0") != "" or "transfer-encoding" in headers
    if has_body and not _JSON.fullmatch(headers.get("content-type", "")):
        raise ProblemError(kinds.MEDIA, "send Content-Type: application/json", headers=_CLOSE)


def route_path(scope: Scope) -> str:
    """The path inside this app, wherever it is mounted."""
    path, root = str(scope["path"]), str(scope.get("root_path", "")).rstrip("/")
    return path[len(root) :] if root and path.startswith(root + "/") else path


def escaped(text: str) -> str:
    """The text without line ends and control characters, so that it cannot forge a log line."""
    return text.encode("unicode_escape").decode("ascii")


def has_head(path: str) -> bool:
    """Whether HEAD does what GET does there, without the content.

    A GET of a stream answers its headers only when it is opened, which HEAD must not do.
    """
    return not _STREAMS.fullmatch(path)


def _too_large(options: ServerOptions) -> ProblemError:
    limit = f"a body may have {options.max_body_bytes:,} bytes"
    return ProblemError(kinds.TOO_LARGE, limit, headers=_CLOSE)
