"""uvicorn's HTTP protocol, with limits of a request's head that it does not have: time and size.

uvicorn 0.54 waits for ever for the first byte of a connection and for the rest of a head, takes
heads of any size, and stops counting a connection's idle time at the first byte that comes after
an answer. Bodies are the guard's affair, which sees them arrive.
"""

from __future__ import annotations

import asyncio
import functools
import json
import secrets
from collections.abc import Callable
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from murmur_streams.server.options import ServerOptions
from murmur_streams.server.problems import ProblemAnswer
from murmur_streams.server.stream_response import ABORT
from murmur_streams.wire.problems import (
    BAD_REQUEST,
    LONG_HEADERS,
    LONG_URL,
    MEDIA_TYPE,
    ProblemKind,
)

_AROUND = len(b": \r\n")


class LimitedProtocol(HttpToolsProtocol):
    """One connection.

    Guarantee: it is closed when it brings no whole head for ``header_seconds``, counted from when
    it was opened, from an answer, or from the head's first byte; and when the rest of a request
    does not come for so long after its answer; and when its client takes none of an
    answer for twice ``send_seconds``. A head that is too large is refused at once, and
    little more of it is kept.
    """

    def __init__(self, options: ServerOptions, **given: Any) -> None:
        super().__init__(**given)
        self._options = options
        self._deadline: asyncio.TimerHandle | None = None
        self._patience: asyncio.TimerHandle | None = None
        self._refusal: ProblemKind | None = None
        self._is_done = False
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
        if self._is_done:
            return
        # What has no end (a header, a trailer, a chunk's extension) reaches no callback: whatever
        # is fed to the parser counts, until it yields a head, a piece of a body or an end.
        self._framing_bytes += len(data)
        super().data_received(data)
        if self._framing_bytes > self._options.max_header_bytes + self._options.max_path_bytes:
            self._answer(LONG_HEADERS)
        if self._deadline is None and not self._is_answering():
            # uvicorn stops counting a connection's idle time at any byte, an empty line's, too.
            self._arm()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_reader()

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
            self._refuse(LONG_URL)

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:
            # What stands behind the body is no header: who asks was decided before it came.
            super().on_header(name, value)
        self._head_bytes += len(name) + len(value) + _AROUND
        too_many = len(self.headers) > self._options.max_headers
        if too_many or self._head_bytes > self._options.max_header_bytes:
            self._refuse(LONG_HEADERS)

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
            # The rest of the body is thrown away, so that its client gets to reading the answer.
            self._arm()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002  # uvicorn's words for the client
        """Called when the parser gave up: over what came, or over a refusal of ours."""
        self._answer(self._refusal or BAD_REQUEST)

    def _refuse(self, kind: ProblemKind) -> None:
        self._refusal = kind
        raise _HeadRefusedError  # out of the parser; uvicorn calls send_400_response then

    def close_gently(self) -> None:
        """Close; where something is still being sent, once its client had time for the answer.

        Closed with bytes unread, a connection is reset, and the answer may never be seen.
        """
        self._is_done = True
        self.pipeline.clear()
        if self._in_message and self.transport.can_write_eof():
            self.transport.write_eof()
            self._arm()
        else:
            self._close()

    def timeout_keep_alive_handler(self) -> None:
        self._close()

    def _answer(self, kind: ProblemKind) -> None:
        """Answer in place of the request that cannot be read on; nothing after it is read."""
        if self._is_done or self.transport.is_closing():
            return
        if self._is_answering():
            if self._in_head or not self._in_message:
                self._finish()
                return
            if self.cycle.response_started or self.pipeline:
                self._close()
                return
            # Its route has not answered yet, and is told that its client is gone.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.write(_answer_of(kind))
        self._in_message = True
        self.close_gently()

    def _finish(self) -> None:
        """Answer what was asked so far, and then close."""
        self._disarm()
        self._is_done = True
        self.cycle.keep_alive = False

    def _is_answering(self) -> bool:
        cycle = cast("RequestResponseCycle | None", self.cycle)
        return cycle is not None and not cycle.response_complete

    def _arm(self) -> None:
        self._disarm()
        self._deadline = self.loop.call_later(self._options.header_seconds, self._too_late)

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_late(self) -> None:
        if self.flow.read_paused:
            # It is we who do not read: requests before this one are being answered.
            self._arm()
        elif self._is_answering():
            self._finish()
        else:
            self._close()

    def _watch_reader(self) -> None:
        """End the connection when its client takes nothing: uvicorn would wait for ever."""
        # A stream looks after its reader itself, and sooner.
        seconds, unread = 2 * self._options.send_seconds, self.transport.get_write_buffer_size()
        self._patience = self.loop.call_later(seconds, self._look_at_reader, unread)

    def _look_at_reader(self, unread: int) -> None:
        if self.transport.get_write_buffer_size() < unread:
            self._watch_reader()
        else:
            self.transport.abort()

    def _stop_watching(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _close(self) -> None:
        if self.transport.is_closing():
            return
        # What was written is still sent; but nobody has for ever to read it.
        self._disarm()
        self.transport.close()
        self._deadline = self.loop.call_later(self._options.send_seconds, self.transport.abort)


class _GentleTransport:
    """What an answer is written to."""

    def __init__(self, connection: LimitedProtocol) -> None:
        self._connection = connection
        self.write = connection.transport.write
        self.is_closing = connection.transport.is_closing

    def close(self) -> None:
        self._connection.close_gently()


class _HeadRefusedError(Exception):
    """Ends the parsing; the answer is told beside it."""


def limited_protocol(options: ServerOptions) -> type[asyncio.Protocol]:
    """What makes a connection of a server with these limits."""
    made: Callable[..., asyncio.Protocol] = functools.partial(LimitedProtocol, options)
    return cast("type[asyncio.Protocol]", made)  # uvicorn only calls it


def _answer_of(kind: ProblemKind) -> bytes:
    request_id = secrets.token_hex(8)
    body = json.dumps(ProblemAnswer(kind, kind.title).document(request_id)).encode()
    headers = {
        "Content-Type": MEDIA_TYPE,
        "Content-Length": str(len(body)),
        "Cache-Control": "no-store",
        "Connection": "close",
        "X-Request-Id": request_id,
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return STATUS_LINE[kind.status] + head.encode() + b"\r\n" + body
