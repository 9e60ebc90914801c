"""``murmur-streams serve app:fleet``, and ``token NAME`` for its callers."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from murmur_streams.cli.shell.command import command
from murmur_streams.cli.shell.options import option, seconds_of, setting_option, settings_with
from murmur_streams.cli.shell.printing import print_message
from murmur_streams.cli.shell.session import Session
from murmur_streams.cli.supervisor.pod import PodOptions, run_pod
from murmur_streams.cli.work.worker import CONCURRENCY, LOOP_TEXT, FleetPath, begin, process_setting
from murmur_streams.core.model.limits import TEN_YEARS_SECONDS, check_tenant
from murmur_streams.server.auth import Principal, Scope, check_name, draw_token, record_of
from murmur_streams.settings import EventLoop, check_origin, check_root_path


def _parser(check: Callable[[str], str]) -> Callable[[str], str]:
    def parse(text: str) -> str:
        try:
            return check(text)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None

    return parse


Name = Annotated[
    str,
    typer.Argument(metavar="NAME", help="The caller's name, as logs show it.", show_default=False),
]
Scopes = Annotated[
    list[Scope] | None,
    typer.Option("--scope", help="What it may do; repeatable. Default: submit, read and cancel."),
]
Tenant = Annotated[
    str | None,
    typer.Option(
        "--tenant",
        metavar="TENANT",
        help="The tenant whose runs it sees. Default: runs without a tenant.",
    ),
]
Expires = Annotated[
    str | None,
    typer.Option(
        "--expires",
        metavar="DURATION",
        help="How long it is valid, such as 90d. Default: for ever.",
    ),
]

_access_setting = partial(setting_option, rich_help_panel="Access")
_access_flag = partial(option, default=False, rich_help_panel="Access")


@dataclass(frozen=True, slots=True)
class ServeFlags:
    """The options of a pod; those over settings have their names."""

    host: str | None = setting_option(
        "host", "Where it listens; beyond this machine it needs --tokens-file.", metavar="ADDRESS"
    )
    port: int | None = setting_option("port", "0 takes a free port.")
    with_worker: bool = option(
        "--with-worker", default=False, help="Execute runs, too: this process is all there is."
    )
    concurrency: int | None = setting_option(*CONCURRENCY)
    drain_seconds: float | None = setting_option(
        "drain_seconds", "How long requests and runs may go on while it is stopping."
    )
    loop: EventLoop | None = process_setting("loop", LOOP_TEXT)
    root_path: str | None = setting_option(
        "root_path",
        "Where a proxy shows it, when that is not the root.",
        metavar="PATH",
        parser=_parser(check_root_path),
    )
    tokens_file: Path | None = _access_setting(
        "tokens_file",
        "Require a token of this file; changes count at once.",
        otherwise=", else no token is required",
    )
    ticket_secret_file: Path | None = _access_setting(
        "ticket_secret_file",
        "The secret that signs stream tickets, the same on every pod.",
        otherwise=", else drawn at the start",
    )
    cors_origins: list[str] | None = _access_setting(
        "cors_origins",
        "Let this origin's pages in, such as https://app.example.com; repeatable.",
        "--cors-origin",
        otherwise=", else none",
        metavar="ORIGIN",
        parser=_parser(check_origin),
    )
    public_openapi: bool | None = _access_setting(
        "public_openapi",
        "Answer /openapi.json without a token, or require one as everywhere.",
        "--public-openapi/--private-openapi",
        otherwise=", else required",
        show_default=False,
    )
    docs: bool = _access_flag(
        "--docs",
        help="Show the routes as pages under /docs and /redoc, whose scripts come from "
        "cdn.jsdelivr.net. With a tokens file, also give --public-openapi.",
    )
    insecure: bool = _access_flag(
        "--insecure", help="Listen beyond this machine without requiring tokens."
    )


@command("serve")
def serve(session: Session, fleet: FleetPath, flags: ServeFlags) -> None:
    """Serve HTTP: submit runs, read them, stream them, cancel them.

    Workers execute the runs; with --with-worker this process does, too. Ctrl-C or SIGTERM drains:
    no new connections, streams are asked to reconnect elsewhere, requests and runs under way may
    end. A second one stops at once. --url and --prefix are for fleets that name neither in their
    code.

    Examples:
        murmur-streams serve app:fleet --with-worker
        murmur-streams serve app:fleet --port 0 --json
        murmur-streams serve app:fleet --host 0.0.0.0 --tokens-file tokens.toml
        murmur-streams serve app:fleet --cors-origin https://app.example.com
    """
    begin(session)
    settings = settings_with(session.settings, flags)
    run_pod(session, PodOptions(fleet, settings, flags.with_worker, flags.docs, flags.insecure))


@command("token")
def token(
    session: Session,
    name: Name,
    scope: Scopes = None,
    tenant: Tenant = None,
    expires: Expires = None,
) -> None:
    """Draw a new token for `serve --tokens-file`.

    Its record, which holds only its hash, goes to stdout; the token itself is printed once, on
    stderr. A second token with the same name is the same caller: that is how to rotate tokens.

    Examples:
        murmur-streams token web >> tokens.toml
        murmur-streams token dashboard --scope read --tenant acme --expires 90d
    """
    principal = Principal(
        check_name(name),
        frozenset(scope or (Scope.SUBMIT, Scope.READ, Scope.CANCEL)),
        check_tenant(tenant),
        expires_at=None if expires is None else _moment_after(expires),
    )
    drawn = draw_token()
    record = record_of(drawn, principal)
    if not session.as_json:
        print_message(f"token     {drawn}")
    session.print({"token": drawn, "record": record}, record)


def _moment_after(duration: str) -> float:
    seconds = seconds_of(duration)
    if not 0 < seconds <= TEN_YEARS_SECONDS:
        raise typer.BadParameter("--expires must be more than 0 and at most 3650d")
    return time.time() + seconds
