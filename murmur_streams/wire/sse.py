"""Server-sent events by the WHATWG HTML standard, section 9.2: the encoder, and the parser.

Neither knows connections or runs. The encoder splits text with line ends into lines where the
format allows it, and raises ValueError where it does not, so that no text can end a message early.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_LINE_END = re.compile("\r\n|\r|\n")  # the format's only ones: U+2028 and U+0085 are text
_UNFIT = re.compile("[\r\n\x00]")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_CR, _LF = b"\r", b"\n"
_DIGITS = re.compile(r"[0-9]+")
_LONGEST_RETRY = 9
"""How many digits are read; a longer number is a wait of days in any case."""

HEARTBEAT = b":\n"
"""A comment: readers ignore it, and proxies see that the connection is in use."""


@dataclass(frozen=True, slots=True)
class SseBlock:
    """Lines to be sent.

    With ``data`` they are a message. Without, they have no empty line at their end, and a reader
    takes them as a part of the next block.
    """

    event: str | None = None
    """The name; not empty, and without CR, LF and NUL. None: ``message``."""
    data: str | None = None
    """Any text. A reader sees each CR, LF and CRLF in it as one LF."""
    id: str | None = None
    """Sent back as Last-Event-ID, without CR, LF and NUL; "" for the start."""
    retry: int | None = None
    """How long a reader waits before it connects again, in milliseconds."""
    comment: str | None = None
    """For people who look at the bytes; readers ignore it."""

    def encode(self) -> bytes:
        """The lines.

        Raises:
            ValueError: a field has a character that would end it, or for which readers ignore it.
        """
        lines = [f": {line}" for line in _lines(self.comment)]
        if self.retry is not None:
            lines.append(f"retry: {_digits(self.retry)}")
        if self.event is not None:
            lines.append(f"event: {_fit('event', self.event)}")
        if self.id is not None:
            # Some readers would take the space after the colon as the id.
            lines.append(f"id: {_fit('id', self.id)}" if self.id else "id")
        lines.extend(f"data: {line}" for line in _lines(self.data))
        if self.data is not None:
            lines.append("")
        return "".join(f"{line}\n" for line in lines).encode()


def _lines(text: str | None) -> list[str]:
    if text is None:
        return []
    # JSON text, which almost every message has, is one line: it is not searched by the pattern.
    return _LINE_END.split(text) if "\n" in text or "\r" in text else [text]


def _digits(retry: int) -> str:
    if isinstance(retry, bool) or retry < 0:
        raise ValueError(f"retry is {retry!r}; it must be a number of milliseconds, 0 or more")
    return str(retry)


def _fit(field: str, text: str) -> str:
    if _UNFIT.search(text) or (field == "event" and not text):
        raise ValueError(f"the {field} {ascii(text)[:60]} is empty, or holds CR, LF or NUL")
    return text


class SseTooLargeError(ValueError):
    """A message, or a line of one, is larger than the parser may hold."""


@dataclass(frozen=True, slots=True)
class SseMessage:
    """One message that was received."""

    event: str
    data: str
    last_id: str
    """The last event id after it: its own, or that of an earlier one."""


class SseParser:
    """Reads one connection's stream, whatever the pieces in which its bytes come.

    Args:
        max_bytes: how much one message, or one line, may hold.
        last_id: the last event id that was seen on connections before.
    """

    def __init__(self, max_bytes: int, last_id: str = "") -> None:
        self.last_id = last_id
        """The last event id, that of messages without data included."""
        self.retry_ms: int | None = None
        """How long the server asked to wait before a reconnect."""
        self._max_bytes = max_bytes
        self._line = bytearray()
        self._is_first = True
        self._after_cr = False
        self._event = ""
        self._data: list[str] = []
        self._size = 0
        self._id = last_id

    def feed(self, chunk: bytes) -> list[SseMessage]:
        """Read the next bytes; the messages that they complete.

        Raises:
            SseTooLargeError: a message is larger than ``max_bytes``.
        """
        taken = map(self._take, self._lines(chunk))
        return [message for message in taken if message is not None]

    def _lines(self, chunk: bytes) -> list[bytes]:
        # A CR ends its line at once: an LF that belongs to it may come much later, or never.
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

    def _take(self, line: bytes) -> SseMessage | None:
        if not line:
            return self._dispatch()
        # A line can be decoded alone: no character of UTF-8 contains a line end.
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

    def _dispatch(self) -> SseMessage | None:
        self.last_id = self._id
        event, data = self._event or "message", "\n".join(self._data)
        has_data = bool(self._data)
        self._event, self._data, self._size = "", [], 0
        # By the standard, a block without a data field is not a message; an empty data field is.
        return SseMessage(event, data, self.last_id) if has_data else None

    def _check(self, size: int) -> None:
        if size > self._max_bytes:
            raise SseTooLargeError(f"a message of the stream is over {self._max_bytes:,} bytes")
