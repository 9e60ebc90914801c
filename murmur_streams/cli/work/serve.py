"""``murmur-streams serve app:fleet``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from murmur_streams.cli.shell.command import command, setting_option
from murmur_streams.cli.shell.session import Session
from murmur_streams.cli.supervisor.pod import PodOptions, serve
from murmur_streams.cli.work.worker import Concurrency, FleetPath, LoopChoice, begin
from murmur_streams.settings import check_origin, check_root_path

ACCESS = "Access"

Host = Annotated[
    str | None,
    setting_option(
        "host",
        "Where it listens; beyond this machine it needs --tokens-file.",
        metavar="ADDRESS",
    ),
]
Port = Annotated[int | None, setting_option("port", "0 takes a free port.")]
WithWorker = Annotated[
    bool, typer.Option("--with-worker", help="Execute runs, too: this process is all there is.")
]
DrainSeconds = Annotated[
    float | None,
    setting_option("drain_seconds", "How long requests and runs may go on while it is stopping."),
]
RootPath = Annotated[
    str | None,
    setting_option(
        "root_path", "Where a proxy shows it, when that is not the root.", metavar="PATH"
    ),
]
TokensFile = Annotated[
    Path | None,
    setting_option(
        "tokens_file",
        "Require a token of this file; changes count at once.",
        otherwise=", else no token is required",
        rich_help_panel=ACCESS,
    ),
]
TicketSecretFile = Annotated[
    Path | None,
    setting_option(
        "ticket_secret_file",
        "The secret that signs stream tickets, the same on every pod.",
        otherwise=", else drawn at the start",
        rich_help_panel=ACCESS,
    ),
]
CorsOrigin = Annotated[
    list[str] | None,
    setting_option(
        "cors_origins",
        "Let this origin's pages in, such as https://app.example.com; repeatable.",
        otherwise=", else none",
        metavar="ORIGIN",
        rich_help_panel=ACCESS,
    ),
]
PublicOpenapi = Annotated[
    bool | None,
    setting_option(
        "public_openapi",
        "Answer /openapi.json without a token, or require one as everywhere.",
        "--public-openapi/--private-openapi",
        otherwise=", else required",
        show_default=False,
        rich_help_panel=ACCESS,
    ),
]
Docs = Annotated[
    bool,
    typer.Option(
        "--docs",
        help="Show the routes as pages under /docs and /redoc, whose scripts come from "
        "cdn.jsdelivr.net. With a tokens file, also give --public-openapi.",
        rich_help_panel=ACCESS,
    ),
]
Insecure = Annotated[
    bool,
    typer.Option(
        "--insecure",
        help="Listen beyond this machine without requiring tokens.",
        rich_help_panel=ACCESS,
    ),
]

EXAMPLES = (
    "murmur-streams serve app:fleet --with-worker",
    "murmur-streams serve app:fleet --port 0 --json",
    "murmur-streams serve app:fleet --host 0.0.0.0 --tokens-file tokens.toml",
    "murmur-streams serve app:fleet --cors-origin https://app.example.com",
)


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "serve", examples=EXAMPLES)(answer)


def answer(  # noqa: PLR0913, PLR0917  # one for each option
    session: Session,
    fleet: FleetPath,
    host: Host = None,
    port: Port = None,
    with_worker: WithWorker = False,
    concurrency: Concurrency = None,
    drain_seconds: DrainSeconds = None,
    loop: LoopChoice = None,
    root_path: RootPath = None,
    tokens_file: TokensFile = None,
    ticket_secret_file: TicketSecretFile = None,
    cors_origin: CorsOrigin = None,
    public_openapi: PublicOpenapi = None,
    docs: Docs = False,
    insecure: Insecure = False,
) -> None:
    """Serve HTTP: submit runs, read them, stream them, cancel them.

    Workers execute the runs; with --with-worker this process does, too. Ctrl-C or SIGTERM drains:
    no new connections, streams are asked to reconnect elsewhere, requests and runs under way may
    end. A second one stops at once. --url and --prefix are for fleets that name neither in their
    code.
    """
    settings = session.settings.override(
        host=host or None,
        port=port,
        concurrency=concurrency,
        drain_seconds=drain_seconds,
        loop=loop,
        root_path=_checked(check_root_path, "--root-path", root_path),
        tokens_file=tokens_file,
        ticket_secret_file=ticket_secret_file,
        cors_origins=tuple(_checked(check_origin, "--cors-origin", each) for each in cors_origin)
        if cors_origin
        else None,
        public_openapi=public_openapi,
    )
    begin(session)
    serve(session, PodOptions(fleet, settings, with_worker, docs, insecure))


def _checked(check: Callable[[str], str], option: str, text: str | None) -> str | None:
    if text is None:
        return None
    try:
        return check(text)
    except ValueError as error:
        raise typer.BadParameter(f"{option} {error}") from None
