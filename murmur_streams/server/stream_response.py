"""The response that is an event stream, made for thousands of them in one process.

A stream has the task that answers the request, a second task that waits until the client closes the
connection, and one timer. An idle stream runs only for its heartbeats.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, Protocol

from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from murmur_streams.core.model.errors import MurmurError, RunDamagedError
from murmur_streams.fleet.logs import loggable_traceback
from murmur_streams.server.auth import Principal
from murmur_streams.server.inputs import is_still_valid
from murmur_streams.server.options import ServerOptions
from murmur_streams.server.pod import Drain, Pod
from murmur_streams.server.responses import log_problem, logger
from murmur_streams.stores.own_tasks import start_task
from murmur_streams.wire.sse import HEARTBEAT, SseBlock

ABORT = "murmur_streams.abort"
"""The ASGI extension that closes a connection at once, unsent bytes included: a callable."""
_LATER = "murmur_streams.later"
"""The scope's key for the callable that collects stream responses; see ``Unwound``."""
FAREWELL_SECONDS = 5.0
"""The longest time for the last bytes of a stream."""
CROWD = 5.0
"""When a pod drains, its clients reconnect within this many times ``retry_ms``, spread out."""


class Messages(Protocol):
    """Encoded messages, as they arrive."""

    def __aiter__(self) -> AsyncIterator[bytes]: ...
    async def aclose(self) -> None: ...


Source = Callable[[], Awaitable[Messages | None]]
"""Opens the messages; its exceptions become problem documents. None: nothing follows the cursor,
now or later."""

_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]


class Ending(Enum):
    """Why a stream ended before its messages did."""

    GONE = auto()
    """The client has closed the connection."""
    STUCK = auto()
    """The client read nothing for ``send_seconds``, or a write other than a heartbeat failed."""
    OVER = auto()
    """Its time is over, or the reader's credentials have expired or been removed."""
    DRAINED = auto()
    """The pod shuts down."""
    BROKEN = auto()
    """The source of its messages failed."""


class EventStream(Response):
    """Answers with 204, or with messages until they end, the client leaves, or its time is over.

    Guarantee: however it ends, the messages are closed and the pod's count of streams is restored.
    """

    media_type = "text/event-stream"
    status_code = 200
    background = None

    def __init__(self, pod: Pod, who: Principal, source: Source) -> None:  # pyright: ignore[reportMissingSuperCall]  # it would compute headers, among them a Content-Length, for a known body
        self._pod = pod
        self._who = who
        self._source = source

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        later: Callable[[ASGIApp], None] | None = scope.get(_LATER)
        if later is None:
            await self._answer(scope, receive, send)
        else:
            later(self._answer)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._pod.streaming(self._who):
            messages = await self._source()
            if messages is None:
                nothing = Response(status_code=204, headers={"Cache-Control": "no-store"})
                await nothing(scope, receive, send)
                return
            async with aclosing(messages):
                stream = _Stream(self._pod.options, self._who, scope, send)
                await stream.serve(messages, receive, self._pod.drain)


class Unwound:
    """The innermost middleware: it runs a stream's response after the router has returned.

    The router's frames, the parameters and the request object would otherwise stay alive as long
    as the stream: a quarter of the memory of an open stream.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        for answer in await self._streams(scope, receive, send):
            await answer(scope, receive, send)

    async def _streams(self, scope: Scope, receive: Receive, send: Send) -> list[ASGIApp]:
        """Route the request and answer it; return a stream's response, which is still to be run."""
        streams: list[ASGIApp] = []
        needed = {*scope, "route"}  # the access log and the metrics read the route
        scope[_LATER] = streams.append
        await self._app(scope, receive, send)
        for name in scope.keys() - needed:
            del scope[name]
        return streams


@dataclass(slots=True, eq=False)
class _Stream:
    """One open stream. Every reason to end it goes through ``end``."""

    _options: ServerOptions
    _who: Principal
    _request_scope: Scope
    _send: Send
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)
    _writing: asyncio.Lock = field(default_factory=asyncio.Lock)
    _abort: Callable[[], None] | None = None
    _ending: Ending | None = None
    _sending: asyncio.Timeout | None = None
    _beat: asyncio.Task[None] | None = None
    _timer: asyncio.TimerHandle | None = None
    _stuck_since: float | None = None
    """When the write that is in progress began; None: no write is."""
    _quiet_since: float = field(init=False)
    _heartbeat_seconds: float = field(init=False)
    _ends_at: float = field(init=False)

    def __post_init__(self) -> None:
        extensions: dict[str, Any] = self._request_scope.get("extensions") or {}
        self._abort = extensions.get(ABORT)
        self._quiet_since = now = self._loop.time()
        # Random, so that streams which began together do not all send heartbeats or end at once.
        self._heartbeat_seconds = self._options.heartbeat_seconds * random.uniform(0.75, 1)  # noqa: S311
        seconds = self._options.stream_seconds * random.uniform(0.9, 1)  # noqa: S311
        if self._who.expires_at is not None:
            seconds = min(seconds, self._who.expires_at - time.time())
        self._ends_at = now + seconds

    async def serve(self, messages: Messages, receive: Receive, drain: Drain) -> None:
        """Send the messages, and end the response."""
        listener = start_task(self._listen(receive), "event stream's client")
        drain.calls.add(self._leave)
        if drain.is_set():
            self._leave()
        self._look_later(self._loop.time())
        try:
            if await self._has_begun():
                await self._send_messages(messages)
            await self._finish(listener)
        finally:
            drain.calls.discard(self._leave)
            if self._timer is not None:
                self._timer.cancel()
            listener.cancel()
            if self._beat is not None:
                self._beat.cancel()

    def end(self, ending: Ending) -> None:
        """Stop sending messages; the first reason counts."""
        if self._ending is None:
            self._ending = ending
            if self._sending is not None:
                self._sending.reschedule(self._loop.time())

    def _leave(self) -> None:
        self.end(Ending.DRAINED)

    async def _has_begun(self) -> bool:
        """Send the first bytes, before there is any message."""
        start = {"type": "http.response.start", "status": 200, "headers": list(_HEADERS)}
        try:
            async with asyncio.timeout(self._options.send_seconds):
                await self._put(start)
                await self._write(_retry(self._options, 0.5, 1.5))
        except OSError as error:
            logger.debug("an event stream's client took no first bytes: %r", error)
            self._ending = Ending.STUCK
        return self._ending is None

    async def _send_messages(self, messages: Messages) -> None:
        try:
            async with asyncio.timeout(None) as self._sending:
                async for message in messages:
                    await self._write(message)
        except OSError as error:
            # ``end`` reschedules the timeout to now; its TimeoutError is an OSError too.
            if self._ending is None:
                logger.debug("an event stream's client is gone: %r", error)
                self._ending = Ending.STUCK
        except RunDamagedError as error:
            log_problem("an event stream cannot go on and is closed", error)
            self._ending = self._ending or Ending.BROKEN
        except MurmurError as error:
            logger.info("an event stream cannot go on and is closed: %s", error)
            self._ending = self._ending or Ending.BROKEN
        finally:
            self._sending = None

    async def _finish(self, listener: asyncio.Task[None]) -> None:
        if self._ending is Ending.GONE:
            return
        if self._ending is not Ending.STUCK:
            # Only a stream whose time is over ends alone. Those of a draining pod, or of a store
            # that broke, end together, and their clients would reconnect all at once.
            most = 1.5 if self._ending is Ending.OVER else CROWD
            last = b"" if self._ending is None else _retry(self._options, 1, most)
            try:
                async with asyncio.timeout(min(FAREWELL_SECONDS, self._options.send_seconds)):
                    await self._put({"type": "http.response.body", "body": last})
                    return
            except OSError as error:
                logger.debug("an event stream's client took no last bytes: %r", error)
        if self._abort is not None:
            self._abort()
            await asyncio.wait([listener], timeout=1)

    async def _listen(self, receive: Receive) -> None:
        try:
            while (await receive())["type"] != "http.disconnect":
                pass
            self.end(Ending.GONE)
        except Exception as error:  # noqa: BLE001  # a body that breaks a limit, in any way
            logger.debug("an event stream's request was refused: %r", error)
            self.end(Ending.BROKEN)

    def _look(self) -> None:
        """The timer: checks whether the time is over, the client is stuck, or a heartbeat is due.

        A busy stream sends no heartbeats, but its credentials are checked as often.
        """
        now = self._loop.time()
        if now >= self._ends_at:
            self.end(Ending.OVER)
            return
        stuck_since = self._stuck_since
        if stuck_since is not None and now >= stuck_since + self._options.send_seconds:
            self.end(Ending.STUCK)
            return
        is_quiet = stuck_since is None and now >= self._quiet_since + self._heartbeat_seconds
        is_beating = self._beat is not None and not self._beat.done()
        if not is_beating and (is_quiet or self._options.authenticator is not None):
            self._beat = start_task(self._send_beat(is_quiet=is_quiet), "heartbeat")
        self._look_later(now)

    def _look_later(self, now: float) -> None:
        due = now + self._heartbeat_seconds
        if self._stuck_since is not None:
            due = min(due, self._stuck_since + self._options.send_seconds)
        elif now < self._quiet_since + self._heartbeat_seconds:
            due = self._quiet_since + self._heartbeat_seconds
        due = min(due, now + self._options.send_seconds, self._ends_at)
        self._timer = self._loop.call_at(due, self._look)

    async def _send_beat(self, *, is_quiet: bool) -> None:
        if not await self._is_still_allowed():
            self.end(Ending.OVER)
            return
        try:
            if is_quiet:
                await self._write(HEARTBEAT)
        except OSError:
            self.end(Ending.GONE)

    async def _is_still_allowed(self) -> bool:
        """Whether the reader's credentials are still valid; True while they cannot be checked."""
        if self._options.authenticator is None:
            return True
        try:
            async with asyncio.timeout(self._options.heartbeat_seconds):
                return await is_still_valid(HTTPConnection(self._request_scope), self._who)
        except (Exception, SystemExit, KeyboardInterrupt) as error:  # noqa: BLE001  # see below
            # The user's own authenticator may raise anything, and must not end the pod.
            shown = loggable_traceback(error)
            logger.error(  # the traceback is in the text
                "the credentials of an open event stream cannot be checked: %s", shown
            )
            return True

    async def _write(self, data: bytes) -> None:
        await self._put({"type": "http.response.body", "body": data, "more_body": True})

    async def _put(self, message: dict[str, Any]) -> None:
        async with self._writing:
            self._stuck_since = self._loop.time()
            try:
                await self._send(message)
            finally:
                self._stuck_since = None
                self._quiet_since = self._loop.time()


def _retry(options: ServerOptions, least: float, most: float) -> bytes:
    wait_ms = round(options.retry_ms * random.uniform(least, most))  # noqa: S311
    return SseBlock(retry=wait_ms).encode()
