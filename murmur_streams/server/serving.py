"""A listening pod: uvicorn with our limits and our drain, and without its signal handlers."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import math
import socket
from collections.abc import Callable, Generator

import uvicorn
from starlette.types import ASGIApp

from murmur_streams.core.model.errors import StoreConfigurationError
from murmur_streams.server.pod import Pod
from murmur_streams.server.protocol import limited_protocol

KEEP_ALIVE_SECONDS = 5
BACKLOG = 2_048


class PodServer(uvicorn.Server):
    """One pod on its sockets.

    It handles no signals: the program calls ``stop``.
    """

    def __init__(
        self,
        app: ASGIApp,
        pod: Pod,
        *,
        root_path: str = "",
        on_start: Callable[[], None] = lambda: None,
    ) -> None:
        drain = math.ceil(pod.options.drain_seconds)
        super().__init__(
            uvicorn.Config(
                app,
                http=limited_protocol(pod.options),
                ws="none",
                lifespan="off",  # the caller closes the fleet: a worker may still need it
                log_config=None,
                log_level="error",
                access_log=False,  # the guard's log has no query strings, so no tickets
                proxy_headers=False,  # any client could send these headers
                server_header=False,
                root_path=root_path,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=drain,
                backlog=BACKLOG,
            )
        )
        self._pod = pod
        self._on_start = on_start

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_start()

    def stop(self) -> None:
        """Drain: accept no new connections, end streams, wait for requests in progress.

        A second call ends those, too.
        """
        self.force_exit = self.should_exit
        self.should_exit = True
        self._pod.drain.set()
        if self.force_exit:
            self._end_connections()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """Do nothing: uvicorn would install its signal handlers here."""
        yield

    def _end_connections(self) -> None:
        # From Python 3.12 on, a server waits for all its connections before it ends.
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        for task in self.server_state.tasks:
            task.cancel()


def listen(host: str, port: int) -> list[socket.socket]:
    """Sockets on every address of a host name; port 0 takes one free port for all of them.

    Raises:
        StoreConfigurationError: this machine has no such address, or the port is taken.
    """
    sockets: list[socket.socket] = []
    try:
        for family, address in _addresses(host, port):
            known_port = sockets[0].getsockname()[1] if sockets else port
            made = socket.create_server((address, known_port), family=family, backlog=BACKLOG)
            made.setblocking(False)
            sockets.append(made)
    except OSError as error:
        for each in sockets:
            each.close()
        raise StoreConfigurationError(_cannot_listen(host, port, error)) from None
    return sockets


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server on this address.

    Raises:
        StoreConfigurationError: the name has no address.
    """
    try:
        found = _addresses(host, 0)
    except OSError as error:
        raise StoreConfigurationError(_cannot_listen(host, 0, error)) from None
    return all(ipaddress.ip_address(address.split("%")[0]).is_loopback for _, address in found)


def url_of(listening: socket.socket, host: str) -> str:
    """The URL for clients on this machine."""
    address, port = listening.getsockname()[:2]
    if ipaddress.ip_address(address.split("%")[0]).is_unspecified:
        host = "127.0.0.1" if listening.family == socket.AF_INET else "::1"
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def _addresses(host: str, port: int) -> list[tuple[int, str]]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    usable = [(family, str(address[0])) for family, _, _, _, address in found if _is_here(family)]
    return list(dict.fromkeys(usable))


def _is_here(family: int) -> bool:
    # A name may have IPv6 addresses on a machine without IPv6.
    try:
        socket.socket(family).close()
    except OSError:
        return False
    return True


def _cannot_listen(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} of {host} is taken; end what listens there, or choose another --port"
    return f"cannot listen on {host}, port {port}: {error.strerror or error}"
