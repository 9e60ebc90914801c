"""A reader of event streams, written from the WHATWG HTML standard and from nothing of ours.

"9.2.5 Parsing an event stream" and "9.2.6 Interpreting an event stream"; sentences of it stand
beside the lines that do what they say.
"""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Event:
    """A MessageEvent that the standard has dispatched."""

    type: str
    data: str
    last_event_id: str


class EventSource:
    """One connection's parser; feed it the bytes as they come."""

    def __init__(self, last_event_id: str = "") -> None:
        self.last_event_id = last_event_id
        """The event source's, which a new connection begins with."""
        self.reconnection_ms: int | None = None
        self.comments = 0
        self._id_buffer = last_event_id
        self._data = self._event = ""
        # Bytes that are not UTF-8 become U+FFFD.
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._is_start = True
        self._line = ""
        self._after_cr = False

    def feed(self, data: bytes) -> list[Event]:
        """The events that these bytes complete."""
        text = self._decoder.decode(data)
        # The UTF-8 decode algorithm "strips one leading UTF-8 Byte Order Mark (BOM), if any".
        if self._is_start and text:
            self._is_start = False
            text = text.removeprefix("\ufeff")
        # end-of-line = ( cr lf / cr / lf ), and the two of the first may come apart.
        rest = text.removeprefix("\n") if self._after_cr else text
        self._after_cr = text.endswith("\r") if text else self._after_cr
        *lines, self._line = re.split("\r\n|\r|\n", self._line + rest)
        return [event for line in lines for event in self._take(line)]

    def _take(self, line: str) -> list[Event]:
        if not line:  # "If the line is empty (a blank line): Dispatch the event"
            return self._dispatch()
        if line.startswith(":"):  # "If the line starts with a U+003A COLON character: Ignore"
            self.comments += 1
            return []
        field, colon, value = line.partition(":")
        if colon and value.startswith(" "):  # "If value starts with a U+0020 SPACE, remove it"
            value = value[1:]
        self._process(field, value)
        return []

    def _process(self, field: str, value: str) -> None:
        if field == "event":
            self._event = value
        elif field == "data":
            self._data += value + "\n"
        elif field == "id":
            if "\0" not in value:  # "If the field value does not contain U+0000 NULL"
                self._id_buffer = value
        elif field == "retry" and re.fullmatch("[0-9]+", value):  # "only ASCII digits"
            self.reconnection_ms = int(value)
        # As to any other, "the field is ignored".

    def _dispatch(self) -> list[Event]:
        self.last_event_id = self._id_buffer
        data, event = self._data, self._event
        self._data = self._event = ""
        if not data:  # "If the data buffer is an empty string, set ... and return."
            return []
        return [Event(event or "message", data.removesuffix("\n"), self.last_event_id)]
