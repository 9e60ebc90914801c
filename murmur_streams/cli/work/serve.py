"""``murmur-streams serve app:fleet``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from murmur_streams.cli.shell.command import command
from murmur_streams.cli.shell.options import setting_option, settings_with
from murmur_streams.cli.shell.session import Session
from murmur_streams.cli.supervisor.pod import PodOptions, run_pod
from murmur_streams.cli.work.worker import Concurrency, FleetPath, LoopChoice, begin
from murmur_streams.settings import check_origin, check_root_path

ACCESS = "Access"


def _parser(check: Callable[[str], str]) -> Callable[[str], str]:
    def parse(text: str) -> str:
        try:
            return check(text)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None

    return parse


@dataclass(frozen=True, slots=True)
class ServeFlags:
    """The options of a pod; those over settings have their names."""

    host: Annotated[
        str | None,
        setting_option(
            "host",
            "Where it listens; beyond this machine it needs --tokens-file.",
            metavar="ADDRESS",
        ),
    ] = None
    port: Annotated[int | None, setting_option("port", "0 takes a free port.")] = None
    with_worker: Annotated[
        bool, typer.Option("--with-worker", help="Execute runs, too: this process is all there is.")
    ] = False
    concurrency: Concurrency = None
    drain_seconds: Annotated[
        float | None,
        setting_option(
            "drain_seconds", "How long requests and runs may go on while it is stopping."
        ),
    ] = None
    loop: LoopChoice = None
    root_path: Annotated[
        str | None,
        setting_option(
            "root_path",
            "Where a proxy shows it, when that is not the root.",
            metavar="PATH",
            parser=_parser(check_root_path),
        ),
    ] = None
    tokens_file: Annotated[
        Path | None,
        setting_option(
            "tokens_file",
            "Require a token of this file; changes count at once.",
            otherwise=", else no token is required",
            rich_help_panel=ACCESS,
        ),
    ] = None
    ticket_secret_file: Annotated[
        Path | None,
        setting_option(
            "ticket_secret_file",
            "The secret that signs stream tickets, the same on every pod.",
            otherwise=", else drawn at the start",
            rich_help_panel=ACCESS,
        ),
    ] = None
    cors_origins: Annotated[
        list[str] | None,
        setting_option(
            "cors_origins",
            "Let this origin's pages in, such as https://app.example.com; repeatable.",
            "--cors-origin",
            otherwise=", else none",
            metavar="ORIGIN",
            parser=_parser(check_origin),
            rich_help_panel=ACCESS,
        ),
    ] = None
    public_openapi: Annotated[
        bool | None,
        setting_option(
            "public_openapi",
            "Answer /openapi.json without a token, or require one as everywhere.",
            "--public-openapi/--private-openapi",
            otherwise=", else required",
            show_default=False,
            rich_help_panel=ACCESS,
        ),
    ] = None
    docs: Annotated[
        bool,
        typer.Option(
            "--docs",
            help="Show the routes as pages under /docs and /redoc, whose scripts come from "
            "cdn.jsdelivr.net. With a tokens file, also give --public-openapi.",
            rich_help_panel=ACCESS,
        ),
    ] = False
    insecure: Annotated[
        bool,
        typer.Option(
            "--insecure",
            help="Listen beyond this machine without requiring tokens.",
            rich_help_panel=ACCESS,
        ),
    ] = False


@command(
    "serve",
    examples=(
        "murmur-streams serve app:fleet --with-worker",
        "murmur-streams serve app:fleet --port 0 --json",
        "murmur-streams serve app:fleet --host 0.0.0.0 --tokens-file tokens.toml",
        "murmur-streams serve app:fleet --cors-origin https://app.example.com",
    ),
)
def serve(session: Session, fleet: FleetPath, flags: ServeFlags) -> None:
    """Serve HTTP: submit runs, read them, stream them, cancel them.

    Workers execute the runs; with --with-worker this process does, too. Ctrl-C or SIGTERM drains:
    no new connections, streams are asked to reconnect elsewhere, requests and runs under way may
    end. A second one stops at once. --url and --prefix are for fleets that name neither in their
    code.
    """
    begin(session)
    settings = settings_with(session.settings, flags)
    run_pod(session, PodOptions(fleet, settings, flags.with_worker, flags.docs, flags.insecure))
