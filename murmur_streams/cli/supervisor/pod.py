"""One process that answers over HTTP, and works besides where it is told to."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import socket
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from murmur_streams.cli.shell.loading import load_fleet
from murmur_streams.cli.shell.printing import print_json
from murmur_streams.cli.shell.session import Session
from murmur_streams.cli.supervisor.event_loop import Loop, loop_factory
from murmur_streams.cli.supervisor.options import Options
from murmur_streams.cli.supervisor.working import call_on_signals, to_the_end
from murmur_streams.core.model.errors import InvalidInputError, StoreConfigurationError, StoreError
from murmur_streams.fleet import Fleet
from murmur_streams.fleet.worker import Worker
from murmur_streams.server.auth.tokens import is_open_to_others
from murmur_streams.stores.work_store import WorkStore

if TYPE_CHECKING:
    from murmur_streams.server import ServerOptions

logger = logging.getLogger("murmur_streams.server")

SHORTEST_SECRET = 32
CHECK_SECONDS = 2.0
"""How long the start waits for the store: what is wrong for good shows in milliseconds."""


@dataclass(frozen=True, slots=True)
class PodOptions:
    """What a pod is started with, besides what a worker is."""

    host: str
    port: int
    with_worker: bool = False
    tokens_file: Path | None = None
    ticket_secret_file: Path | None = None
    cors_origins: tuple[str, ...] = ()
    public_openapi: bool = False
    docs: bool = False
    insecure: bool = False
    root_path: str = ""


def serve(session: Session, options: Options, pod: PodOptions) -> None:
    """Answer until told to stop.

    Raises:
        StoreConfigurationError: an option, a file or the port is no good; nothing listens.
    """
    try:
        from murmur_streams.server.serving import listen
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.startswith("murmur_streams"):
            raise
        raise StoreConfigurationError(
            f"serving needs {error.name}: pip install 'murmur-streams[server]'"
        ) from None
    limits = server_options(options, pod)
    fleet = load_fleet(options.fleet)
    if pod.with_worker and not fleet.agents:
        raise InvalidInputError("the fleet has no agents; decorate a function with @fleet.agent")
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(each) for each in listen(pod.host, pod.port)]
        with asyncio.Runner(loop_factory=loop_factory(Loop(options.loop))) as runner:
            body = _until_stopped(session, fleet, options, pod, limits, sockets)
            runner.run(to_the_end(session, body))


def server_options(options: Options, pod: PodOptions) -> ServerOptions:
    """What the app is made with.

    Raises:
        StoreConfigurationError: a file is no good, or nobody would be asked who they are though
            others can reach the address.
    """
    from murmur_streams.server import ServerOptions
    from murmur_streams.server.auth.bearer import BearerTokens
    from murmur_streams.server.serving import is_loopback

    if pod.tokens_file is None and not pod.insecure and not is_loopback(pod.host):
        raise StoreConfigurationError(
            f"others can reach {pod.host}, and nobody would be asked who they are: "
            "give --tokens-file (murmur-streams token draws tokens), or --insecure"
        )
    if pod.docs and pod.tokens_file is not None and not pod.public_openapi:
        raise StoreConfigurationError(
            "--docs shows pages, which a browser opens without a token: give --public-openapi too"
        )
    return ServerOptions(
        authenticator=BearerTokens.of_file(pod.tokens_file) if pod.tokens_file else None,
        ticket_secret=_ticket_secret(pod.ticket_secret_file),
        cors_origins=pod.cors_origins,
        public_openapi=pod.public_openapi,
        docs=pod.docs,
        drain_seconds=options.drain_seconds,
    )


def _ticket_secret(file: Path | None) -> bytes:
    if file is None:
        return secrets.token_bytes(SHORTEST_SECRET)
    try:
        with file.open("rb") as opened:
            secret = opened.read().strip()
            mode = os.fstat(opened.fileno()).st_mode
    except OSError as error:
        raise StoreConfigurationError(f"the ticket secret {file}: {error.strerror}") from None
    if len(secret) < SHORTEST_SECRET:
        raise StoreConfigurationError(
            f"the ticket secret {file} must have {SHORTEST_SECRET} bytes or more, "
            "such as `openssl rand -base64 32` prints"
        )
    if is_open_to_others(mode):
        logger.warning(
            "others on this machine have access to the ticket secret %s, and can sign tickets for "
            "any run with it: chmod 600 it",
            file,
        )
    return secret


async def _until_stopped(
    session: Session,
    fleet: Fleet,
    options: Options,
    pod: PodOptions,
    limits: ServerOptions,
    sockets: list[socket.socket],
) -> None:
    from murmur_streams.server import make_app
    from murmur_streams.server.serving import PodServer, url_of

    async with fleet:
        await _check_store(await fleet.store())
        worker = _worker(fleet, options) if pod.with_worker else None
        app = make_app(fleet, limits)
        told = _told(url_of(sockets[0], pod.host), fleet, pod, worker)
        server = PodServer(
            app,
            app.state.pod,
            root_path=pod.root_path,
            on_start=lambda: _tell(session, told),
        )
        parts = [(server.serve(sockets), server.stop)]
        parts += [(worker.run(), worker.stop)] if worker is not None else []
        await _together(parts)
    if session.as_json:
        print_json({"url": told["url"], "stopped": True})


async def _check_store(store: WorkStore) -> None:
    """Refuse a store that can never work; a server that is away, or a replica, may come back.

    Raises:
        StoreConfigurationError: the address, the credentials or the server do not fit.
    """
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            await store.ping()
    except StoreConfigurationError:
        raise
    except StoreError as error:
        logger.warning("the pod begins without its store: %s", error)
    except TimeoutError:
        logger.warning(
            "the pod begins without its store: no answer of %s within %g s",
            *(store.where, CHECK_SECONDS),
        )


async def _together(parts: Sequence[tuple[Coroutine[Any, Any, None], Callable[[], None]]]) -> None:
    """Run them until a signal, or until one of them ends: alone, the others are no use."""
    stopping = asyncio.Event()

    def stop() -> None:
        stopping.set()
        for _, stop_one in parts:
            stop_one()

    call_on_signals(stop)
    tasks = [asyncio.create_task(part) for part, _ in parts]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    if not stopping.is_set():
        # Once: a second time would be a second signal.
        stop()
    await asyncio.wait(tasks)
    for task in tasks:
        task.result()


def _worker(fleet: Fleet, options: Options) -> Worker:
    return Worker(
        fleet,
        concurrency=options.concurrency,
        lease_seconds=options.lease_seconds,
        drain_seconds=options.drain_seconds,
    )


def _told(url: str, fleet: Fleet, pod: PodOptions, worker: Worker | None) -> dict[str, Any]:
    return {
        "url": url,
        "pid": os.getpid(),
        "auth": "none" if pod.tokens_file is None else "tokens",
        "targets": sorted(fleet.agents),
        "worker": worker and worker.worker_id,
    }


def _tell(session: Session, told: dict[str, Any]) -> None:
    if session.as_json:
        print_json(told)
    has_tokens = told["auth"] == "tokens"
    credentials = """ -H "Authorization: Bearer $TOKEN\"""" if has_tokens else ""
    who = "a token is asked for" if has_tokens else "nobody is asked who they are"
    working = " and works" if told["worker"] else ""
    url = told["url"]
    logger.info("pod %s answers%s; %s; try: curl %s/agents%s", url, working, who, url, credentials)
