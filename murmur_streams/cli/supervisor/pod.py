"""One process that serves HTTP, and with ``--with-worker`` executes runs, too."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import socket
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from murmur_streams.cli.shell.load_fleet import load_fleet
from murmur_streams.cli.shell.printing import print_json
from murmur_streams.cli.shell.session import Session, read_secret
from murmur_streams.cli.supervisor.worker_process import (
    call_on_signals,
    load_fleet_with_agents,
    run_then_end,
)
from murmur_streams.core.model.errors import StoreConfigurationError, StoreError
from murmur_streams.fleet import Fleet
from murmur_streams.fleet.worker import Worker
from murmur_streams.settings import Settings
from murmur_streams.stores.work_store import WorkStore

if TYPE_CHECKING:
    from murmur_streams.server import ServerOptions

logger = logging.getLogger("murmur_streams.server")

SHORTEST_SECRET = 32
CHECK_SECONDS = 2.0
"""How long the start waits for the store; wrong settings show within milliseconds."""


@dataclass(frozen=True, slots=True)
class PodOptions:
    """The options of one pod."""

    fleet: str
    settings: Settings
    """The environment's settings, with the options of the command line over them."""
    with_worker: bool = False
    docs: bool = False
    insecure: bool = False


def run_pod(session: Session, options: PodOptions) -> None:
    """Serve HTTP until a signal stops it.

    Raises:
        StoreConfigurationError: an option, a file or the port cannot be used; nothing listens.
    """
    try:
        from murmur_streams.server.serving import listen
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.startswith("murmur_streams"):
            raise
        raise StoreConfigurationError(
            f"serving needs {error.name}: pip install 'murmur-streams[server]'"
        ) from None
    settings, limits = options.settings, server_options(options)
    fleet = (load_fleet_with_agents if options.with_worker else load_fleet)(options.fleet)
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(each) for each in listen(settings.host, settings.port)]
        body = _serve_until_stopped(session, fleet, options, limits, sockets)
        run_then_end(session, settings, body)


def server_options(options: PodOptions) -> ServerOptions:
    """The options of the ASGI app.

    Raises:
        StoreConfigurationError: a file cannot be used, or other machines can reach the address
            and no token would be required.
    """
    from murmur_streams.server import ServerOptions
    from murmur_streams.server.auth import BearerTokens
    from murmur_streams.server.serving import is_loopback

    settings = options.settings
    if settings.tokens_file is None and not options.insecure and not is_loopback(settings.host):
        raise StoreConfigurationError(
            f"other machines can reach {settings.host}, and no token would be required: "
            "give --tokens-file (murmur-streams token draws tokens), or --insecure"
        )
    if options.docs and settings.tokens_file is not None and not settings.public_openapi:
        raise StoreConfigurationError(
            "--docs shows pages, which a browser opens without a token: give --public-openapi too"
        )
    ticket_secret = secrets.token_bytes(SHORTEST_SECRET)
    if settings.ticket_secret_file is not None:
        danger = ", and can sign tickets for any run with it"
        ticket_secret = read_secret(
            settings.ticket_secret_file, "ticket secret", shortest=SHORTEST_SECRET, danger=danger
        )
    return ServerOptions(
        authenticator=BearerTokens.of_file(settings.tokens_file) if settings.tokens_file else None,
        ticket_secret=ticket_secret,
        cors_origins=settings.cors_origins,
        public_openapi=settings.public_openapi,
        docs=options.docs,
        drain_seconds=settings.drain_seconds,
    )


async def _serve_until_stopped(
    session: Session,
    fleet: Fleet,
    options: PodOptions,
    limits: ServerOptions,
    sockets: list[socket.socket],
) -> None:
    from murmur_streams.server import make_app
    from murmur_streams.server.serving import PodServer, url_of

    settings, worker = options.settings, None
    async with fleet:
        await _check_store(await fleet.store())
        if options.with_worker:
            worker = Worker(
                fleet,
                concurrency=settings.concurrency,
                lease_seconds=settings.lease_seconds,
                drain_seconds=settings.drain_seconds,
            )
        app = make_app(fleet, limits)
        started = {
            "url": url_of(sockets[0], settings.host),
            "pid": os.getpid(),
            "auth": "none" if settings.tokens_file is None else "tokens",
            "targets": sorted(fleet.agents),
            "worker": worker and worker.worker_id,
        }
        server = PodServer(
            app,
            app.state.pod,
            root_path=settings.root_path,
            on_start=lambda: _announce(session, started),
        )
        parts = [(server.serve(sockets), server.stop)]
        parts += [(worker.run(), worker.stop)] if worker is not None else []
        await _run_together(parts)
    if session.as_json:
        print_json({"url": started["url"], "stopped": True})


async def _check_store(store: WorkStore) -> None:
    """Refuse a store that can never work; one that is unreachable, or a replica, may recover.

    Raises:
        StoreConfigurationError: the address, the credentials or the server's settings are wrong.
    """
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            await store.ping()
    except StoreConfigurationError:
        raise
    except (StoreError, TimeoutError) as error:
        is_silent = not isinstance(error, StoreError)
        silence = f"no answer of {store.where} within {CHECK_SECONDS:g} s"
        logger.warning("the pod begins without its store: %s", silence if is_silent else error)


async def _run_together(
    parts: Sequence[tuple[Coroutine[Any, Any, None], Callable[[], None]]],
) -> None:
    """Run the parts until a signal, or until one of them ends; then stop the others, too."""
    stopping = asyncio.Event()

    def stop() -> None:
        stopping.set()
        for _, stop_one in parts:
            stop_one()

    call_on_signals(stop)
    tasks = [asyncio.create_task(part) for part, _ in parts]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    if not stopping.is_set():
        # Only here: after a signal, a second call would count as a second signal and not drain.
        stop()
    await asyncio.wait(tasks)
    for task in tasks:
        task.result()


def _announce(session: Session, started: dict[str, Any]) -> None:
    if session.as_json:
        print_json(started)
    has_tokens = started["auth"] == "tokens"
    credentials = """ -H "Authorization: Bearer $TOKEN\"""" if has_tokens else ""
    access = "it requires a token" if has_tokens else "it requires no token"
    working = " and works" if started["worker"] else ""
    url = started["url"]
    logger.info(
        "pod %s answers%s; %s; try: curl %s/agents%s", url, working, access, url, credentials
    )
