"""``murmur-streams redis COMMAND...``: sends commands to the server of the runs, as redis-cli."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from typing import Annotated, cast

import typer

from murmur_streams.cli.data.raw_server import Reply, raw_server
from murmur_streams.cli.shell.command import FAILED, command
from murmur_streams.cli.shell.session import Session
from murmur_streams.core.model.errors import InvalidInputError

_ENDLESS = frozenset({"MONITOR", "PSUBSCRIBE", "SSUBSCRIBE", "SUBSCRIBE"})

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

Argv = Annotated[
    list[str] | None,
    typer.Argument(metavar="COMMAND", help="A Redis command; without one, stdin is read."),
]


# Everything after the first argument goes to the server, also what begins with a dash.
@command(
    "redis", context_settings={"allow_interspersed_args": False, "ignore_unknown_options": True}
)
async def redis(session: Session, argv: Argv = None) -> None:
    """Send a command to the server of the runs, and print its reply as redis-cli does.

    Options of this program go before the command. Lists are numbered on a terminal, and one
    element a line elsewhere. Exit code 1 when the server answers with an error. On a cluster a
    command goes to the node of its key; one without a key goes to the node of the command before.

    Examples:
        murmur-streams redis PING
        murmur-streams redis XRANGE 'murmur:runs:{0}:journal:my-run' - + COUNT 3
        murmur-streams redis --url redis://localhost:6379 INFO server
        murmur-streams redis < commands.txt
    """
    commands = [argv] if argv else _from_stdin()
    ok = True
    async with raw_server(session) as server:
        for each in commands:
            reply = await server.ask(each)
            _print(session, reply, each)
            ok = ok and not isinstance(reply, Exception)
            while each[0].upper() in _ENDLESS and ok:
                _print(session, await server.read(), each)
    if not ok:
        raise typer.Exit(FAILED)


def _from_stdin() -> list[list[str]]:
    if sys.stdin.isatty():
        raise InvalidInputError("which command? For example: murmur-streams redis PING")
    try:
        lines = [shlex.split(line) for line in sys.stdin]
    except ValueError as error:
        raise InvalidInputError(f"a line of stdin cannot be read: {error}") from None
    return [argv for argv in lines if argv]


def _print(session: Session, reply: Reply, argv: Sequence[str]) -> None:
    if session.as_json:
        print(for_json(reply), flush=True)
    elif sys.stdout.isatty() or isinstance(reply, Exception):
        target = sys.stderr if isinstance(reply, Exception) else sys.stdout
        print(for_terminal(reply, argv), file=target, flush=True)
    else:
        sys.stdout.flush()
        sys.stdout.buffer.write(for_pipe(reply) + b"\n")
        sys.stdout.buffer.flush()


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
