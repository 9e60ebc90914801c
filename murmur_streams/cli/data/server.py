"""``murmur-streams server start | stop | status``: the embedded server."""

from __future__ import annotations

from typing import Annotated

import typer

from murmur_streams.cli.shell.command import FAILED, command
from murmur_streams.cli.shell.printing import print_json, print_message
from murmur_streams.cli.shell.session import Session
from murmur_streams.embedded import (
    EmbeddedServer,
    ensure_server,
    is_keep_set,
    server_status,
    set_keep,
    stop_server,
)
from murmur_streams.settings import Settings

Keep = Annotated[
    bool,
    typer.Option("--keep", help="Let it run while no client is connected, until `server stop`."),
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    server = typer.Typer(
        help="The embedded server: it starts by itself, and ends after 30 s without a client.",
        no_args_is_help=True,
        rich_markup_mode="rich",
    )
    app.add_typer(server, name="server")
    command(server, "start", examples=("murmur-streams server start --keep",))(start)
    command(server, "stop")(stop)
    command(server, "status", examples=("murmur-streams server status --json",))(status)


def start(session: Session, keep: Keep = False) -> None:
    """Start the embedded server, or find that it runs."""
    _remark_on_url(session.settings, session)
    if keep:
        set_keep(session.data_dir, True)
    _print_server(session, ensure_server(session.data_dir))


def stop(session: Session) -> None:
    """Stop it cleanly; its data stays. Connected clients lose their connection."""
    stopped = stop_server(session.data_dir)
    if session.as_json:
        print_json({"stopped": stopped, "data_dir": str(session.data_dir)})
    else:
        print("stopped" if stopped else f"no server was running in {session.data_dir}")


def status(session: Session) -> None:
    """Print whether it runs, and where. Exit code 1 when it does not run."""
    _remark_on_url(session.settings, session)
    found = server_status(session.data_dir)
    if found is not None:
        _print_server(session, found)
        return
    if session.as_json:
        print_json({"running": False, "data_dir": str(session.data_dir)})
    else:
        print(f"no server is running in {session.data_dir}")
    raise typer.Exit(FAILED)


def _remark_on_url(settings: Settings, session: Session) -> None:
    if not session.is_embedded and settings.url:
        print_message("note: MURMUR_URL is set, so other commands use that server and not this one")


def _print_server(session: Session, server: EmbeddedServer) -> None:
    keeps_running = is_keep_set(session.data_dir)
    if session.as_json:
        print_json(
            {
                "running": True,
                "kept": keeps_running,
                "data_dir": str(server.data_dir),
                "socket": str(server.socket_path),
                "pid": server.pid,
                "url": server.url,
            }
        )
        return
    print(f"running   pid {server.pid}" + (", kept until `server stop`" if keeps_running else ""))
    print(f"data in   {server.data_dir}")
    print(f"socket    {server.socket_path}")
