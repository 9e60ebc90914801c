"""``murmur-streams serve app:fleet``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from murmur_streams.cli.shell.command import command
from murmur_streams.cli.shell.session import Session
from murmur_streams.cli.supervisor.event_loop import Loop
from murmur_streams.cli.supervisor.options import Options
from murmur_streams.cli.supervisor.pod import PodOptions, serve
from murmur_streams.cli.work.worker import Concurrency, EventLoop, FleetPath, begin
from murmur_streams.settings import Settings, check_origin, check_root_path

ACCESS = "Access"

Host = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="Where it listens; beyond this machine it needs --tokens-file. Default: MURMUR_HOST.",
    ),
]
Port = Annotated[
    int | None,
    typer.Option(min=0, max=65_535, help="0 takes a free port. Default: MURMUR_PORT."),
]
WithWorker = Annotated[
    bool, typer.Option("--with-worker", help="Execute runs, too: this process is all there is.")
]
DrainSeconds = Annotated[
    float | None,
    typer.Option(
        min=0,
        max=86_400,
        help="How long requests and runs may go on when told to stop. "
        "Default: MURMUR_DRAIN_SECONDS.",
    ),
]
RootPath = Annotated[
    str | None,
    typer.Option(
        metavar="PATH",
        help="Where a proxy shows it, when that is not the root. Default: MURMUR_ROOT_PATH.",
    ),
]
TokensFile = Annotated[
    Path | None,
    typer.Option(
        help="Ask for tokens, which this file has; changes count at once. "
        "Default: MURMUR_TOKENS_FILE, else nobody is asked.",
        rich_help_panel=ACCESS,
    ),
]
TicketSecretFile = Annotated[
    Path | None,
    typer.Option(
        help="What stream tickets are signed with, the same on every pod. "
        "Default: MURMUR_TICKET_SECRET_FILE, else drawn at the start.",
        rich_help_panel=ACCESS,
    ),
]
CorsOrigin = Annotated[
    list[str] | None,
    typer.Option(
        metavar="ORIGIN",
        help="Let this origin's pages in, such as https://app.example.com; repeatable. "
        "Default: MURMUR_CORS_ORIGINS, else none.",
        rich_help_panel=ACCESS,
    ),
]
PublicOpenapi = Annotated[
    bool | None,
    typer.Option(
        "--public-openapi/--private-openapi",
        help="Answer /openapi.json without a token, or ask for one as everywhere. "
        "Default: MURMUR_PUBLIC_OPENAPI, else ask.",
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
        help="Listen beyond this machine though nobody is asked who they are.",
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
    loop: EventLoop = None,
    root_path: RootPath = None,
    tokens_file: TokensFile = None,
    ticket_secret_file: TicketSecretFile = None,
    cors_origin: CorsOrigin = None,
    public_openapi: PublicOpenapi = None,
    docs: Docs = False,
    insecure: Insecure = False,
) -> None:
    """Answer over HTTP: submit runs, read them, stream them, cancel them.

    Workers execute the runs; with --with-worker this process does, too. Ctrl-C or SIGTERM drains:
    no new connections, streams are told to go on elsewhere, requests and runs under way may end. A
    second one stops at once. --url and --prefix are for fleets that name none in their code.
    """
    given = session.settings
    options = Options(
        fleet=fleet,
        concurrency=concurrency or given.concurrency,
        lease_seconds=given.lease_seconds,
        drain_seconds=given.drain_seconds if drain_seconds is None else drain_seconds,
        loop=str(Loop(loop or given.loop)),
    )
    pod = PodOptions(
        host=host or given.host,
        port=given.port if port is None else port,
        with_worker=with_worker,
        tokens_file=tokens_file or given.tokens_file,
        ticket_secret_file=ticket_secret_file or given.ticket_secret_file,
        cors_origins=_origins(cors_origin, given),
        public_openapi=given.public_openapi if public_openapi is None else public_openapi,
        docs=docs,
        insecure=insecure,
        root_path=_root_path(root_path, given),
    )
    begin(session)
    serve(session, options, pod)


def _origins(given: list[str] | None, settings: Settings) -> tuple[str, ...]:
    if not given:
        return settings.cors_origins
    try:
        return tuple(map(check_origin, given))
    except ValueError as error:
        raise typer.BadParameter(f"--cors-origin {error}") from None


def _root_path(given: str | None, settings: Settings) -> str:
    if given is None:
        return settings.root_path
    try:
        return check_root_path(given)
    except ValueError as error:
        raise typer.BadParameter(f"--root-path {error}") from None
