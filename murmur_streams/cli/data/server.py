"""``murmur-streams server start | stop | status``: the embedded server, and groups to try out."""

from __future__ import annotations

import contextlib
import signal
import tempfile
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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

if TYPE_CHECKING:
    from murmur_streams.embedded.node import Node

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
Cluster = Annotated[
    bool,
    typer.Option(
        "--cluster",
        help="Instead, start a Redis Cluster, each primary with a replica, until Ctrl-C; it keeps "
        "no data.",
    ),
]
Primaries = Annotated[
    int,
    typer.Option(
        "--primaries", metavar="N", min=3, max=20, help="With --cluster: how many nodes have slots."
    ),
]
REPLICAS = 2
PRIMARIES = 3
"""A failover needs the votes of most primaries, so this is the least number that survives one."""


@command("start")
def start(
    session: Session,
    keep: Keep = False,
    sentinel: Sentinel = False,
    cluster: Cluster = False,
    primaries: Primaries = PRIMARIES,
) -> None:
    """Start the embedded server, or find that it runs; or several servers to try failovers on.

    Examples:
        murmur-streams server start --keep
        murmur-streams server start --sentinel
        murmur-streams server start --cluster
        murmur-streams server start --cluster --primaries 5
    """
    if sentinel and cluster:
        raise typer.BadParameter("--sentinel and --cluster start different groups; use one of them")
    if keep and (sentinel or cluster):
        raise typer.BadParameter("--keep is for the embedded server; a group runs until Ctrl-C")
    if primaries != PRIMARIES and not cluster:
        raise typer.BadParameter("--primaries needs --cluster")
    if sentinel or cluster:
        with _folder_until_interrupted() as folder:
            if sentinel:
                _serve_sentinels(session, folder)
            else:
                _serve_cluster(session, folder, primaries)
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


@contextlib.contextmanager
def _folder_until_interrupted() -> Generator[Path]:
    """A folder for a group's files; Ctrl-C and SIGTERM end the block."""
    with tempfile.TemporaryDirectory(prefix="murmur-group-") as folder:
        # Both, also in a shell's background, where SIGINT begins as ignored.
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, signal.default_int_handler)
        yield Path(folder)


def _serve_sentinels(session: Session, folder: Path) -> None:
    from murmur_streams.embedded.sentinel_group import sentinel_group

    with sentinel_group(find_binary(), folder, REPLICAS) as group:
        servers, sentinels = _pids(group.servers), _pids(group.sentinels)
        lines = [f"server    {address}   pid {pid}" for address, pid in servers.items()]
        lines += [f"Sentinel  {address}   pid {pid}" for address, pid in sentinels.items()]
        known = {"url": group.url, "servers": servers, "sentinels": sentinels}
        _print_group(session, known, lines)
        signal.pause()


def _serve_cluster(session: Session, folder: Path, count: int) -> None:
    from murmur_streams.embedded.cluster_group import cluster_group

    with cluster_group(find_binary(), folder, count) as group:
        primaries, replicas = _pids(group.nodes[:count]), _pids(group.nodes[count:])
        lines = [f"primary  {address}   pid {pid}" for address, pid in primaries.items()]
        lines += [
            f"replica  {address}   pid {pid}   of {primary}"
            for (address, pid), primary in zip(replicas.items(), primaries, strict=True)
        ]
        known = {"url": group.url, "primaries": primaries, "replicas": replicas}
        _print_group(session, known, lines)
        signal.pause()


def _pids(nodes: Sequence[Node]) -> dict[str, int]:
    return {f"127.0.0.1:{each.port}": each.pid for each in nodes}


def _print_group(session: Session, known: dict[str, Any], lines: Sequence[str]) -> None:
    hint = "kill -9 or kill -STOP a server, and look at what your programs notice"
    url = f"export MURMUR_URL={known['url']}"
    session.print(known, "\n".join([*lines, url, hint, "Ctrl-C ends all"]))


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
