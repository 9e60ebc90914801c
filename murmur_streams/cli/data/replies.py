"""Replies of the server as text, the way redis-cli prints them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import cast

Reply = object
"""bytes, int, None, an error, or a list of these."""

_STATUS = frozenset({b"OK", b"PONG", b"QUEUED"})
_STATUS_COMMANDS = frozenset({"TYPE"})
_VALUE_COMMANDS = frozenset({"ECHO", "GET", "GETDEL", "GETEX", "GETRANGE", "HGET", "LINDEX"})
_TEXT_COMMANDS = frozenset({"INFO", "LOLWUT"})
_TEXT_SUBCOMMANDS = frozenset(
    {
        ("CLIENT", "INFO"),
        ("CLIENT", "LIST"),
        ("CLUSTER", "INFO"),
        ("CLUSTER", "NODES"),
        ("LATENCY", "DOCTOR"),
        ("MEMORY", "DOCTOR"),
        ("MEMORY", "MALLOC-STATS"),
    }
)
_ESCAPES = dict(
    zip(b'\a\b\t\n\r"\\', ("\\a", "\\b", "\\t", "\\n", "\\r", '\\"', "\\\\"), strict=True)
)
_FIRST_PRINTABLE, _LAST_PRINTABLE = 0x20, 0x7E


def for_terminal(reply: Reply, command: Sequence[str]) -> str:
    """The reply for a person: strings quoted, lists numbered."""
    if isinstance(reply, bytes) and (is_status(reply, command) or is_text(command)):
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


def is_status(reply: bytes, command: Sequence[str]) -> bool:
    """Whether the reply is a status, which is not quoted; the driver hides the difference."""
    name = command[0].upper() if command else ""
    return name in _STATUS_COMMANDS or (reply in _STATUS and name not in _VALUE_COMMANDS)


def is_text(command: Sequence[str]) -> bool:
    """Whether the command answers with a text of many lines."""
    names = tuple(part.upper() for part in command[:2])
    return bool(names) and (names[0] in _TEXT_COMMANDS or names in _TEXT_SUBCOMMANDS)


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
