"""Just enough of the Redis protocol to know where requests and replies begin and end."""

from __future__ import annotations

_LINES = b"+-:,#(_"
_BULKS = b"$!="
_ARRAYS = b"*~>"


def frame_end(data: bytes | bytearray, start: int = 0) -> int | None:
    """Where the request or reply that begins at ``start`` ends; None while it is incomplete."""
    line_end = data.find(b"\r\n", start)
    if line_end < 0:
        return None
    kind, after = data[start], line_end + 2
    if kind in _LINES:
        return after
    count = int(data[start + 1 : line_end])
    if kind in _BULKS:
        end = after + max(0, count) + (2 if count >= 0 else 0)
        return end if end <= len(data) else None
    if kind not in _ARRAYS + b"%":
        raise ValueError(f"no frame begins with {bytes(data[start : start + 20])!r}")
    for _ in range(2 * count if kind == ord("%") else count):
        end = frame_end(data, after)
        if end is None:
            return None
        after = end
    return after


def take_frame(buffer: bytearray) -> bytes | None:
    """Remove the first complete frame from the buffer; None when there is none yet."""
    end = frame_end(buffer) if buffer else None
    if end is None:
        return None
    frame = bytes(buffer[:end])
    del buffer[:end]
    return frame


def parts_of(request: bytes) -> list[bytes]:
    """The words of a request frame: an array of bulk strings."""
    parts: list[bytes] = []
    at = request.index(b"\r\n") + 2
    while at < len(request):
        line_end = request.index(b"\r\n", at)
        size = int(request[at + 1 : line_end])
        parts.append(request[line_end + 2 : line_end + 2 + size])
        at = line_end + 2 + size + 2
    return parts
