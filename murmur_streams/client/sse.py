"""A reader of event streams to the letter of the WHATWG HTML standard, section 9.2.6.

It takes bytes as they come, however they are cut, and knows nothing of connections or of runs.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from murmur_streams.client.errors import UnreadableAnswerError

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_CR, _LF = b"\r", b"\n"
_DIGITS = re.compile(r"[0-9]+")
_LONGEST_RETRY = 9
"""Digits that are read: with more it is a matter of days anyway."""


@dataclass(frozen=True, slots=True)
class Message:
    """One dispatched event."""

    event: str
    data: str
    last_id: str
    """The last event id after it: its own, or that of an earlier one."""


class Parser:
    """Reads one connection's stream.

    Args:
        max_bytes: how much one message, or one line, may hold.
        last_id: the last event id that was seen on connections before.
    """

    def __init__(self, max_bytes: int, last_id: str = "") -> None:
        self.last_id = last_id
        """The last event id, that of messages without data included."""
        self.retry_ms: int | None = None
        """What the server told to wait before a reconnect."""
        self._max_bytes = max_bytes
        self._line = bytearray()
        self._is_first = True
        self._after_cr = False
        self._event = ""
        self._data: list[str] = []
        self._size = 0
        self._id = last_id

    def feed(self, chunk: bytes) -> list[Message]:
        """Read the next bytes; the messages that they complete.

        Raises:
            UnreadableAnswerError: a message is larger than ``max_bytes``.
        """
        messages: list[Message] = []
        for line in self._lines(chunk):
            message = self._take(line)
            if message is not None:
                messages.append(message)
        return messages

    def _lines(self, chunk: bytes) -> list[bytes]:
        # A CR ends its line at once: the LF that may follow it may be long in coming.
        if self._after_cr and chunk:
            self._after_cr = False
            chunk = chunk.removeprefix(_LF)
        lines: list[bytes] = []
        # Of bytes, splitlines knows CR, LF and CRLF, and nothing else.
        for piece in chunk.splitlines(keepends=True):
            self._line += piece
            self._check(len(self._line))
            if piece.endswith((_CR, _LF)):
                lines.append(self._whole_line())
        self._after_cr = chunk.endswith(_CR) or (self._after_cr and not chunk)
        return lines

    def _whole_line(self) -> bytes:
        line = bytes(self._line).rstrip(b"\r\n")
        self._line.clear()
        if self._is_first:
            self._is_first = False
            line = line.removeprefix(_BYTE_ORDER_MARK)
        return line

    def _take(self, line: bytes) -> Message | None:
        if not line:
            return self._dispatch()
        # Whole lines decode as the whole stream would: no character reaches over a line's end.
        name, colon, value = line.decode("utf-8", "replace").partition(":")
        if not (colon and not name):
            self._field(name, value.removeprefix(" "))
        return None

    def _field(self, name: str, value: str) -> None:
        if name == "data":
            self._size += len(value) + 1
            self._check(self._size)
            self._data.append(value)
        elif name == "event":
            self._event = value
        elif name == "id" and "\0" not in value:
            self._id = value
        elif name == "retry" and _DIGITS.fullmatch(value):
            self.retry_ms = int(value.lstrip("0")[:_LONGEST_RETRY] or "0")

    def _dispatch(self) -> Message | None:
        self.last_id = self._id
        event, data = self._event or "message", "\n".join(self._data)
        has_data = bool(self._data)
        self._event, self._data, self._size = "", [], 0
        # The standard's buffer is empty without any data field; one that is empty holds its LF.
        return Message(event, data, self.last_id) if has_data else None

    def _check(self, size: int) -> None:
        if size > self._max_bytes:
            raise UnreadableAnswerError(
                f"a message of the stream is over {self._max_bytes:,} bytes (max_response_bytes)"
            )
