"""Replies of the server as text, the way redis-cli prints them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import cast

Reply = object
"""bytes, int, None, an error, or a list of these."""

_STATUS = frozenset({b"OK", b"PONG", b"QUEUED"})
_VALUE_COMMANDS = frozenset({"ECHO", "GET", "GETDEL", "GETEX", "GETRANGE", "HGET", "LINDEX"})
_PLAIN_COMMANDS = frozenset({"INFO", "LOLWUT", "TYPE"})
_TEXT_SUBCOMMANDS = frozenset(
    {
        *("CLIENT INFO", "CLIENT LIST", "CLUSTER INFO", "CLUSTER NODES"),
        *("LATENCY DOCTOR", "MEMORY DOCTOR", "MEMORY MALLOC-STATS"),
    }
)
_ESCAPES = dict(
    zip(b'\a\b\t\n\r"\\', ("\\a", "\\b", "\\t", "\\n", "\\r", '\\"', "\\\\"), strict=True)
)
_FIRST_PRINTABLE, _LAST_PRINTABLE = 0x20, 0x7E


def for_terminal(reply: Reply, command: Sequence[str]) -> str:
    """The reply for a person: strings quoted, lists numbered, statuses and texts as they are."""
    name, both = (" ".join(command[:count]).upper() for count in (1, 2))
    if isinstance(reply, bytes):
        # The driver hides whether a reply is a status.
        is_status = reply in _STATUS and name not in _VALUE_COMMANDS
        if is_status or name in _PLAIN_COMMANDS or both in _TEXT_SUBCOMMANDS:
            return reply.decode("utf-8", "backslashreplace").rstrip("\r\n")
    return _numbered(reply, "")


def for_pipe(reply: Reply) -> bytes:
    """The reply for a program, untouched: one element a line."""
    if isinstance(reply, list):
        return b"\n".join(for_pipe(part) for part in cast("list[Reply]", reply))
    if isinstance(reply, bytes):
        return reply
    return b"" if reply is None else error_text(reply).encode()


def for_json(reply: Reply) -> str:
    """The reply as JSON; bytes that are not UTF-8 are escaped."""
    return json.dumps(_plain(reply), ensure_ascii=False)


def error_text(error: object) -> str:
    """An error reply with the code that the driver may have cut off; other values as text."""
    text = str(error)
    code = getattr(error, "status_code", None)
    if isinstance(error, Exception) and not text.split(" ", 1)[0].isupper():
        return f"{code or 'ERR'} {text}"
    return text


def _numbered(reply: Reply, indent: str) -> str:
    if isinstance(reply, list):
        parts = cast("list[Reply]", reply)
        if not parts:
            return "(empty array)"
        width = len(str(len(parts)))
        inner = indent + " " * (width + 2)
        lines = [
            f"{number:>{width}}) {_numbered(part, inner)}" for number, part in enumerate(parts, 1)
        ]
        return f"\n{indent}".join(lines)
    if isinstance(reply, bytes):
        return quoted(reply)
    if isinstance(reply, Exception):
        return f"(error) {error_text(reply)}"
    return "(nil)" if reply is None else f"(integer) {reply}"


def quoted(value: bytes) -> str:
    """A string in quotes, with everything but plain ASCII escaped."""
    return '"' + "".join(map(_character, value)) + '"'


def _character(code: int) -> str:
    if code in _ESCAPES:
        return _ESCAPES[code]
    return chr(code) if _FIRST_PRINTABLE <= code <= _LAST_PRINTABLE else f"\\x{code:02x}"


def _plain(reply: Reply) -> object:
    if isinstance(reply, list):
        return [_plain(part) for part in cast("list[Reply]", reply)]
    if isinstance(reply, bytes):
        return reply.decode("utf-8", "backslashreplace")
    return {"error": error_text(reply)} if isinstance(reply, Exception) else reply
