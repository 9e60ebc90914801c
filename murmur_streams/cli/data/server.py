"""``murmur-streams server start | stop | status``: the embedded server."""

from __future__ import annotations

import signal
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from murmur_streams.cli.shell.command import FAILED, command, group
from murmur_streams.cli.shell.printing import print_message
from murmur_streams.cli.shell.session import Session
from murmur_streams.embedded import (
    EmbeddedServer,
    ensure_server,
    is_keep_set,
    server_status,
    set_keep,
    stop_server,
)
from murmur_streams.embedded.launch import find_binary

Keep = Annotated[
    bool,
    typer.Option("--keep", help="Let it run while no client is connected, until `server stop`."),
]


Sentinel = Annotated[
    bool,
    typer.Option(
        "--sentinel",
        help="Instead, start a Sentinel service with two replicas, until Ctrl-C; it keeps no data.",
    ),
]
REPLICAS = 2


@command("start")
def start(session: Session, keep: Keep = False, sentinel: Sentinel = False) -> None:
    """Start the embedded server, or find that it runs; or a Sentinel service to try failovers on.

    Examples:
        murmur-streams server start --keep
        murmur-streams server start --sentinel
    """
    if sentinel:
        _serve_sentinels(session)
        return
    _remark_on_url(session)
    if keep:
        set_keep(session.data_dir, True)
    _print_server(session, ensure_server(session.data_dir))


@command("stop")
def stop(session: Session) -> None:
    """Stop it cleanly; its data stays. Connected clients lose their connection."""
    stopped = stop_server(session.data_dir)
    session.print(
        {"stopped": stopped, "data_dir": str(session.data_dir)},
        "stopped" if stopped else f"no server was running in {session.data_dir}",
    )


@command("status")
def status(session: Session) -> None:
    """Print whether it runs, and where. Exit code 1 when it does not run.

    Examples:
        murmur-streams server status --json
    """
    _remark_on_url(session)
    found = server_status(session.data_dir)
    if found is not None:
        _print_server(session, found)
        return
    session.print(
        {"running": False, "data_dir": str(session.data_dir)},
        f"no server is running in {session.data_dir}",
    )
    raise typer.Exit(FAILED)


server = group(
    "server",
    "The embedded server: it starts by itself, and ends after 30 s without a client.",
    *(start, stop, status),
)


def _serve_sentinels(session: Session) -> None:
    from murmur_streams.embedded.sentinel_group import sentinel_group

    with tempfile.TemporaryDirectory(prefix="murmur-sentinel-") as folder:
        # Both, also in a shell's background, where SIGINT begins as ignored.
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, signal.default_int_handler)
        with sentinel_group(find_binary(), Path(folder), REPLICAS) as group:
            servers = {f"127.0.0.1:{each.port}": each.pid for each in group.servers}
            sentinels = {f"127.0.0.1:{each.port}": each.pid for each in group.sentinels}
            lines = [f"server    {address}   pid {pid}" for address, pid in servers.items()]
            lines += [f"Sentinel  {address}   pid {pid}" for address, pid in sentinels.items()]
            hint = "kill -9 or kill -STOP a server, and look at what your programs notice"
            session.print(
                {"url": group.url, "servers": servers, "sentinels": sentinels},
                "\n".join([*lines, f"export MURMUR_URL={group.url}", hint, "Ctrl-C ends all"]),
            )
            signal.pause()


def _remark_on_url(session: Session) -> None:
    if not session.is_embedded and session.settings.url:
        print_message("note: MURMUR_URL is set, so other commands use that server and not this one")


def _print_server(session: Session, server: EmbeddedServer) -> None:
    keeps_running = is_keep_set(session.data_dir)
    known = {
        "running": True,
        "kept": keeps_running,
        "data_dir": str(server.data_dir),
        "socket": str(server.socket_path),
        "pid": server.pid,
        "url": server.url,
    }
    note = ", kept until `server stop`" if keeps_running else ""
    session.print(
        known,
        f"running   pid {server.pid}{note}\ndata in   {server.data_dir}\n"
        f"socket    {server.socket_path}",
    )
