"""uvicorn's HTTP protocol, with limits of time and size for a request's head, which it lacks.

uvicorn 0.54 waits without limit for the first byte of a connection and for the rest of a head,
accepts heads of any size, and stops counting a connection's idle time at the first byte after an
answer. The limits of bodies are in ``guard``.
"""

from __future__ import annotations

import asyncio
import functools
import secrets
from collections.abc import Callable
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from murmur_streams.server.options import ServerOptions
from murmur_streams.server.responses import problem_answer
from murmur_streams.server.stream_response import ABORT
from murmur_streams.wire import problems as kinds

_AROUND = len(b": \r\n")


class LimitedProtocol(HttpToolsProtocol):
    """One connection.

    Guarantee: it is closed when no whole head arrives for ``header_seconds``, counted from the
    opening of the connection, from an answer, or from the head's first byte; when the rest of a
    request does not arrive for as long after its answer; and when its client reads nothing of an
    answer for twice ``send_seconds``. A head that is too large is rejected at once, without
    reading the rest of it.
    """

    def __init__(self, options: ServerOptions, **given: Any) -> None:
        super().__init__(**given)
        self._options = options
        self._deadline: asyncio.TimerHandle | None = None
        self._patience: asyncio.TimerHandle | None = None
        self._rejection: kinds.ProblemKind | None = None
        self._is_closing = False
        self._in_head = self._in_message = False
        self._head_bytes = 0
        self._framing_bytes = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(cast("asyncio.Transport", transport))
        self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        self._stop_watching()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._is_closing:
            return
        # The parser calls nothing for a header, a trailer or a chunk's extension before its end, so
        # an endless one would never be noticed. Therefore every byte that goes into the parser
        # counts, until the parser reports a head, a piece of a body, or the end of a message.
        self._framing_bytes += len(data)
        super().data_received(data)
        if self._framing_bytes > self._options.max_header_bytes + self._options.max_path_bytes:
            self._answer(kinds.LONG_HEADERS)
        if self._deadline is None and not self._is_answering():
            # uvicorn stops its idle timer at any byte, even at an empty line's.
            self._arm()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_client()

    def resume_writing(self) -> None:
        self._stop_watching()
        super().resume_writing()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        scope = cast("dict[str, Any]", self.scope)
        scope["extensions"] = {ABORT: self.transport.abort}
        self._in_head = self._in_message = True
        self._head_bytes = 0
        self._arm()

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        if len(self.url) > self._options.max_path_bytes:
            self._reject(kinds.LONG_URL)

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:
            # Not for trailers, which come after the body: they must not change the headers by which
            # the caller was already authenticated.
            super().on_header(name, value)
        self._head_bytes += len(name) + len(value) + _AROUND
        too_many = len(self.headers) > self._options.max_headers
        if too_many or self._head_bytes > self._options.max_header_bytes:
            self._reject(kinds.LONG_HEADERS)

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._framing_bytes = 0
        self._disarm()
        super().on_headers_complete()
        cycle = cast("RequestResponseCycle | None", self.cycle)
        if cycle is not None:
            cycle.transport = cast("asyncio.Transport", _GentleTransport(self))

    def on_body(self, body: bytes) -> None:
        self._framing_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._in_message = False
        self._framing_bytes = 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._in_message and not self._is_answering():
            # The rest of the body is read and dropped, or the client would never read the answer.
            self._arm()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002  # the text of uvicorn's own answer
        """Called when the parser fails: at malformed bytes, or at ``_reject``."""
        self._answer(self._rejection or kinds.BAD_REQUEST)

    def _reject(self, kind: kinds.ProblemKind) -> None:
        self._rejection = kind
        raise _HeadRejectedError  # leaves the parser; uvicorn then calls send_400_response

    def close_gently(self) -> None:
        """Close; while the client is still sending, only after it had time to read the answer.

        If a socket is closed with unread bytes, the kernel resets the connection. The client's
        kernel then drops what it has received, and the client may never see the answer. So this
        side stops sending (FIN), and reads on until the client closes or the time is over.
        """
        self._is_closing = True
        self.pipeline.clear()
        if self._in_message and self.transport.can_write_eof():
            self.transport.write_eof()
            self._arm()
        else:
            self._close()

    def timeout_keep_alive_handler(self) -> None:
        self._close()

    def _answer(self, kind: kinds.ProblemKind) -> None:
        """Answer instead of the request that cannot be read; nothing after it is read."""
        if self._is_closing or self.transport.is_closing():
            return
        if self._is_answering():
            if self._in_head or not self._in_message:
                self._finish()
                return
            if self.cycle.response_started or self.pipeline:
                self._close()
                return
            # Its route has not answered yet: uvicorn reports to it that the client is gone.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.write(_answer_of(kind))
        self._in_message = True
        self.close_gently()

    def _finish(self) -> None:
        """Close after the answers to the requests so far."""
        self._disarm()
        self._is_closing = True
        self.cycle.keep_alive = False

    def _is_answering(self) -> bool:
        cycle = cast("RequestResponseCycle | None", self.cycle)
        return cycle is not None and not cycle.response_complete

    def _arm(self) -> None:
        self._disarm()
        self._deadline = self.loop.call_later(self._options.header_seconds, self._on_deadline)

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _on_deadline(self) -> None:
        if self.flow.read_paused:
            # The server has paused reading: it still answers earlier requests.
            self._arm()
        elif self._is_answering():
            self._finish()
        else:
            self._close()

    def _watch_client(self) -> None:
        """Close the connection when its client reads nothing: uvicorn would wait without limit."""
        # An event stream checks its reader itself, and sooner.
        seconds, unread = 2 * self._options.send_seconds, self.transport.get_write_buffer_size()
        self._patience = self.loop.call_later(seconds, self._check_client, unread)

    def _check_client(self, unread: int) -> None:
        if self.transport.get_write_buffer_size() < unread:
            self._watch_client()
        else:
            self.transport.abort()

    def _stop_watching(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _close(self) -> None:
        if self.transport.is_closing():
            return
        # Written bytes are still sent, but within a limit of time.
        self._disarm()
        self.transport.close()
        self._deadline = self.loop.call_later(self._options.send_seconds, self.transport.abort)


class _GentleTransport:
    """The transport of an answer: its ``close`` is ``close_gently``."""

    def __init__(self, connection: LimitedProtocol) -> None:
        self._connection = connection
        self.write = connection.transport.write
        self.is_closing = connection.transport.is_closing

    def close(self) -> None:
        self._connection.close_gently()


class _HeadRejectedError(Exception):
    """Ends the parsing; ``_rejection`` has the answer."""


def limited_protocol(options: ServerOptions) -> type[asyncio.Protocol]:
    """The factory of connections with these limits."""
    made: Callable[..., asyncio.Protocol] = functools.partial(LimitedProtocol, options)
    return cast("type[asyncio.Protocol]", made)  # uvicorn only calls it


def _answer_of(kind: kinds.ProblemKind) -> bytes:
    request_id = secrets.token_hex(8)
    answer = problem_answer(kinds.ProblemError(kind), request_id)
    answer.headers["Cache-Control"] = "no-store"
    answer.headers["Connection"] = "close"
    answer.headers["X-Request-Id"] = request_id
    head = b"".join(b"%b: %b\r\n" % pair for pair in answer.raw_headers)
    return STATUS_LINE[kind.status] + head + b"\r\n" + answer.body
