"""``murmur-streams redis COMMAND...``: sends commands to the server of the runs, as redis-cli."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Annotated, Any

import typer
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from murmur_streams.cli.data.replies import Reply, for_json, for_pipe, for_terminal
from murmur_streams.cli.shell.command import FAILED, command
from murmur_streams.cli.shell.session import Session
from murmur_streams.core.model.errors import InvalidInputError, StoreUnavailableError
from murmur_streams.stores.redis.connection.connections import Connections
from murmur_streams.stores.redis.connection.failures import (
    FINAL,
    NeverSentError,
    clear_error,
    fate_of,
    unavailable,
)

CONNECT_SECONDS = 5.0
_ENDLESS = frozenset({"MONITOR", "PSUBSCRIBE", "SSUBSCRIBE", "SUBSCRIBE"})

Argv = Annotated[
    list[str] | None,
    typer.Argument(metavar="COMMAND", help="A Redis command; without one, stdin is read."),
]


@command(
    "redis",
    examples=(
        "murmur-streams redis PING",
        "murmur-streams redis XRANGE 'murmur:runs:{0}:journal:my-run' - + COUNT 3",
        "murmur-streams redis --url redis://localhost:6379 INFO server",
        "murmur-streams redis < commands.txt",
    ),
    # Everything after the first argument goes to the server, also what begins with a dash.
    context_settings={"allow_interspersed_args": False, "ignore_unknown_options": True},
)
async def redis(session: Session, argv: Argv = None) -> None:
    """Send a command to the server of the runs, and print its reply as redis-cli does.

    Options of this program go before the command. Lists are numbered on a terminal, and one
    element a line elsewhere. Exit code 1 when the server answers with an error.
    """
    commands = [argv] if argv else _from_stdin()
    ok = True
    async with raw_connection(session) as connection:
        for each in commands:
            reply = await ask(connection, each)
            _print(session, reply, each)
            ok = ok and not isinstance(reply, Exception)
            while each[0].upper() in _ENDLESS and ok:
                _print(session, await _read(connection), each)
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


@asynccontextmanager
async def raw_connection(session: Session) -> AsyncGenerator[Any]:
    """One connection to the server of the runs, without the checks of a store.

    Raises:
        StoreUnavailableError, StoreConfigurationError: it failed, or was lost.
    """
    async with session.redis_store() as store:
        connections = Connections(store.client, size=1, deadline_seconds=CONNECT_SECONDS)
        try:
            async with connections.connection() as connection:
                yield connection
        except NeverSentError as error:
            cause = error.__cause__ or error
            if fate_of(cause) in FINAL:
                raise clear_error(cause, store.where) from None
            raise unavailable(store.where, cause) from None
        finally:
            await connections.close()


async def ask(connection: Any, argv: Sequence[str]) -> Reply:
    """Send one command; an error reply is returned, not raised.

    Raises:
        StoreUnavailableError: the connection was lost.
    """
    with _lost_connections():
        await connection.send_command(*(os.fsencode(argument) for argument in argv))
    return await _read(connection)


async def _read(connection: Any) -> Reply:
    try:
        with _lost_connections():
            return await connection.read_response()
    except ResponseError as error:
        return error


@contextmanager
def _lost_connections() -> Generator[None]:
    try:
        yield
    except (RedisConnectionError, OSError) as error:
        raise StoreUnavailableError(f"the server closed the connection ({error})") from None


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
