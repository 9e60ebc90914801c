"""``@command``: turns a function into a command with the shared options and error handling."""

from __future__ import annotations

import inspect
import json
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from murmur_streams.cli.shell.printing import print_message
from murmur_streams.cli.shell.session import NEEDS_STORE, Globals, Session
from murmur_streams.core.model.errors import (
    MurmurError,
    RunCancelledError,
    RunFailedError,
    StoreConfigurationError,
)
from murmur_streams.core.model.states import RunState
from murmur_streams.settings import variable

FAILED, USAGE, CANCELLED, INTERRUPTED = 1, 2, 3, 130
EXIT_CODES = {RunState.COMPLETED: 0, RunState.FAILED: FAILED, RunState.CANCELLED: CANCELLED}
"""By the state in which a run ended."""
SHARED = "Options of every command"

Url = Annotated[
    str | None,
    typer.Option(
        "--url",
        metavar="URL",
        help="The store of the runs. Default: MURMUR_URL, else the embedded server.",
        rich_help_panel=SHARED,
    ),
]
Prefix = Annotated[
    str | None,
    typer.Option(
        "--prefix",
        metavar="PREFIX",
        help="The first part of the keys. Default: MURMUR_KEY_PREFIX.",
        rich_help_panel=SHARED,
    ),
]
Server = Annotated[
    str | None,
    typer.Option(
        "--server",
        metavar="URL",
        help="Ask this HTTP server instead. Default: MURMUR_SERVER.",
        rich_help_panel=SHARED,
    ),
]
TokenFile = Annotated[
    Path | None,
    typer.Option(
        "--token-file",
        metavar="FILE",
        help="A file with the token for the server. Default: MURMUR_TOKEN, MURMUR_TOKEN_FILE.",
        rich_help_panel=SHARED,
    ),
]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print JSON, for programs.", rich_help_panel=SHARED)
]
Debug = Annotated[
    bool,
    typer.Option("--debug", help="Show the traceback behind an error.", rich_help_panel=SHARED),
]
RunId = Annotated[str, typer.Argument(metavar="RUN", help="The id of a run.", show_default=False)]

Function = Callable[..., None]


def setting_option(setting: str, text: str, *flags: str, otherwise: str = "", **more: Any) -> Any:
    """An option over a setting of the environment; it has the bounds of the setting's rule.

    Args:
        setting: the field of Settings.
        text: about the option; its default, the variable, is added.
        flags: its names, where typer should not make one of the parameter's name.
        otherwise: what holds without the variable, such as ``, else none``.
        more: for typer.
    """
    row = variable(setting)
    if row.rule.least is not None:
        more |= {"min": row.rule.least, "max": row.rule.most}
    return typer.Option(*flags, help=f"{text} Default: {row.name}{otherwise}.", **more)


def command(
    app: typer.Typer,
    name: str,
    *,
    examples: tuple[str, ...] = (),
    over_http: bool = False,
    **settings: Any,
) -> Callable[[Function], Function]:
    """Register a function whose first parameter is the Session; the rest are its own options.

    Args:
        app: the program or the group.
        name: of the command.
        examples: shown by --help.
        over_http: whether the command works through an HTTP server, too.
        settings: for typer.
    """

    def register(function: Function) -> Function:
        whole = _with_shared_options(function, over_http=over_http)
        app.command(name, epilog=_epilog(examples), **settings)(whole)
        return function

    return register


def _epilog(examples: tuple[str, ...]) -> str:
    # A blank line between them keeps typer from joining the lines.
    return "\n\n".join(["Examples:", *(f"$ {example}" for example in examples)] if examples else [])


def _with_shared_options(function: Function, *, over_http: bool) -> Function:
    hints = get_type_hints(function, include_extras=True)
    own = list(inspect.signature(function).parameters.values())[1:]

    def run(ctx: typer.Context, **values: Any) -> None:
        shared = Globals(*(values.pop(f"shared_{name}") for name in _SHARED_OPTIONS))
        before: Globals = ctx.find_root().obj or Globals()

        def body(session: Session) -> None:
            if session.given.server and not over_http:
                raise StoreConfigurationError(NEEDS_STORE)
            function(session, **values)

        invoke(shared.over(before), body)

    parameters = [
        inspect.Parameter("ctx", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context),
        *(
            parameter.replace(annotation=hints[parameter.name], kind=inspect.Parameter.KEYWORD_ONLY)
            for parameter in own
        ),
        *(
            inspect.Parameter(
                f"shared_{name}",
                inspect.Parameter.KEYWORD_ONLY,
                default=default,
                annotation=annotation,
            )
            for name, (annotation, default) in _SHARED_OPTIONS.items()
        ),
    ]
    run.__doc__ = _reflowed(function.__doc__ or "")
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    run.__signature__ = inspect.Signature(parameters)  # pyright: ignore[reportFunctionMemberAccess]  # inspect's own protocol
    return run


def _reflowed(docstring: str) -> str:
    """Each paragraph on one line, so that the terminal's width wraps it, not our source's."""
    paragraphs = inspect.cleandoc(docstring).split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


_SHARED_OPTIONS: dict[str, tuple[Any, object]] = {
    "url": (Url, None),
    "prefix": (Prefix, None),
    "as_json": (AsJson, False),
    "debug": (Debug, False),
    "server": (Server, None),
    "token_file": (TokenFile, None),
}


def invoke(given: Globals, body: Callable[[Session], None]) -> None:
    """Run a command's body; an error becomes one sentence and an exit code."""
    try:
        body(Session.of(given))
        sys.stdout.flush()
    except MurmurError as error:
        print_error(given, error)
        raise typer.Exit(exit_code(error)) from None
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None


def print_error(given: Globals, error: Exception) -> None:
    """Print an error on stderr: a sentence, or JSON with --json; a bug with its traceback."""
    if _wants_traceback(given) or not isinstance(error, MurmurError):
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
    if isinstance(error, RunCancelledError):
        return CANCELLED
    return (
        FAILED if isinstance(error, RunFailedError) or not isinstance(error, MurmurError) else USAGE
    )


def _wants_traceback(given: Globals) -> bool:
    return given.debug or os.environ.get("MURMUR_DEBUG", "").lower() in {"1", "true", "yes", "on"}
