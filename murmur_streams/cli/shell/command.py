"""``@command``: turns a function into a command with the shared options and error handling."""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import sys
import traceback
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import typer

from murmur_streams.cli.shell.options import Function, parameters_of, with_options
from murmur_streams.cli.shell.printing import print_message
from murmur_streams.cli.shell.session import NEEDS_STORE, Globals, Session
from murmur_streams.core.model import errors
from murmur_streams.core.model.states import RunState

FAILED, USAGE, CANCELLED, INTERRUPTED = 1, 2, 3, 130
EXIT_CODES = {RunState.COMPLETED: 0, RunState.FAILED: FAILED, RunState.CANCELLED: CANCELLED}
"""By the state in which a run ended."""

Registration = Callable[[typer.Typer], None]
"""Adds a command or a group of them to the program."""


def command(
    name: str, *, over_http: bool = False, **settings: Any
) -> Callable[[Function], Registration]:
    """Make a command of a function, which may be a coroutine.

    Its first parameter is the Session. The rest are its own options; a parameter whose type is a
    dataclass stands for an option for each field. Its docstring is the help; a last section
    ``Examples:`` has command lines.

    Args:
        name: of the command.
        over_http: whether the command works through an HTTP server, too.
        settings: for typer.
    """

    def register_function(function: Function) -> Registration:
        text, title, examples = inspect.cleandoc(function.__doc__ or "").partition("Examples:\n")
        # A blank line between them keeps typer from joining the lines.
        lines = [f"$ {line.strip()}" for line in examples.splitlines()]
        epilog = "\n\n".join([title.strip(), *lines])

        def run(ctx: typer.Context, shared: Globals, **values: Any) -> None:
            given = shared.over(ctx.find_root().obj or Globals())
            with _errors_as_exit_codes(given):
                session = Session.of(given)
                if session.given.server and not over_http:
                    raise errors.StoreConfigurationError(NEEDS_STORE)
                running = function(session, **values)
                if inspect.iscoroutine(running):
                    asyncio.run(running)
                sys.stdout.flush()

        run.__doc__ = text.strip()
        context, shared, _ = parameters_of(run)
        whole = with_options(run, [context, *parameters_of(function)[1:], shared])
        return lambda app: app.command(name, epilog=epilog, **settings)(whole) and None

    return register_function


def group(name: str, text: str, *commands: Registration) -> Registration:
    """A command whose first argument is the name of one of ``commands``."""
    whole = typer.Typer(help=text, no_args_is_help=True, rich_markup_mode="rich")
    for register in commands:
        register(whole)
    return lambda app: app.add_typer(whole, name=name)


@contextmanager
def message_on_interrupt(message: Callable[[], str]) -> Generator[None]:
    """Print a message when Ctrl-C ends the block, and end with the exit code for that."""
    try:
        yield
    except (KeyboardInterrupt, asyncio.CancelledError):
        # asyncio cancels the coroutine of a command at the first Ctrl-C.
        print_message(f"\n{message()}")
        raise typer.Exit(INTERRUPTED) from None


@contextmanager
def _errors_as_exit_codes(given: Globals) -> Generator[None]:
    """An error becomes one sentence and an exit code."""
    try:
        yield
    except errors.MurmurError as error:
        print_error(given, error)
        raise typer.Exit(exit_code(error)) from None
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None


def print_error(given: Globals, error: Exception) -> None:
    """Print an error on stderr: a sentence, or JSON with --json; a bug with its traceback."""
    is_debugged = os.environ.get("MURMUR_DEBUG", "").lower() in {"1", "true", "yes", "on"}
    if given.debug or is_debugged or not isinstance(error, errors.MurmurError):
        traceback.print_exception(error)
    if given.as_json:
        print(error_json(type(error).__name__, str(error), exit_code(error)), file=sys.stderr)
    else:
        print_message(f"murmur-streams: {error}")


def error_json(kind: str, message: str, code: int) -> str:
    """An error for programs, on one line."""
    return json.dumps({"error": kind, "message": message, "exit_code": code}, ensure_ascii=False)


def exit_code(error: BaseException) -> int:
    """The exit code of a command that ended with this error."""
    if isinstance(error, errors.RunCancelledError):
        return CANCELLED
    is_usage = isinstance(error, errors.MurmurError) and not isinstance(
        error, errors.RunFailedError
    )
    return USAGE if is_usage else FAILED
