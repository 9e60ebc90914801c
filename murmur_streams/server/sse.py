"""Server-sent events as bytes, by the event stream format of the WHATWG HTML standard.

Nothing that is told can break a frame: text that cannot stand in its field is split into lines
where the format has lines, and refused where it has none.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_LINE_END = re.compile("\r\n|\r|\n")  # the format's only ones: U+2028 and U+0085 are text
_UNFIT = re.compile("[\r\n\x00]")

HEARTBEAT = b":\n"
"""A comment: readers ignore it, and what lies between sees that the connection is used."""


@dataclass(frozen=True, slots=True)
class Message:
    """What one block of lines tells.

    With ``data`` it is an event of its reader. Without, it is none: its lines belong to the block
    that follows, as a reader who goes by blocks sees it.
    """

    event: str | None = None
    """The name; not empty, and without CR, LF and NUL. None: ``message``."""
    data: str | None = None
    """Any text. A reader sees each CR, LF and CRLF in it as one LF."""
    id: str | None = None
    """Sent back as Last-Event-ID, without CR, LF and NUL; "" for the start."""
    retry: int | None = None
    """How long a reader waits before it comes back, in milliseconds."""
    comment: str | None = None
    """For who looks at the bytes; readers ignore it."""

    def encode(self) -> bytes:
        """The lines.

        Raises:
            ValueError: a field holds what would end it early, or be ignored.
        """
        lines = [f": {line}" for line in _lines(self.comment)]
        if self.retry is not None:
            lines.append(f"retry: {_digits(self.retry)}")
        if self.event is not None:
            lines.append(f"event: {_fit('event', self.event)}")
        if self.id is not None:
            # A space would be taken for the id's own by readers that do not know the format well.
            lines.append(f"id: {_fit('id', self.id)}" if self.id else "id")
        lines.extend(f"data: {line}" for line in _lines(self.data))
        if self.data is not None:
            lines.append("")
        return "".join(f"{line}\n" for line in lines).encode()


def _lines(text: str | None) -> list[str]:
    return [] if text is None else _LINE_END.split(text)


def _digits(retry: int) -> str:
    if isinstance(retry, bool) or retry < 0:
        raise ValueError(f"retry is {retry!r}; it must be a number of milliseconds, 0 or more")
    return str(retry)


def _fit(field: str, text: str) -> str:
    if _UNFIT.search(text) or (field == "event" and not text):
        raise ValueError(f"the {field} {ascii(text)[:60]} is empty, or holds CR, LF or NUL")
    return text
