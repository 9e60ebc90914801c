"""``murmur-streams token NAME``."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from murmur_streams.cli.shell.command import command
from murmur_streams.cli.shell.options import seconds_of
from murmur_streams.cli.shell.printing import print_message
from murmur_streams.cli.shell.session import Session
from murmur_streams.core.model.identifiers import check_tenant
from murmur_streams.core.model.limits import TEN_YEARS_SECONDS
from murmur_streams.server.auth.principal import Principal, Scope
from murmur_streams.server.auth.tokens import check_name, draw_token, record_of

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


@command(
    "token",
    examples=(
        "murmur-streams token web >> tokens.toml",
        "murmur-streams token dashboard --scope read --tenant acme --expires 90d",
    ),
)
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
