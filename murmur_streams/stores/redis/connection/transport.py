"""How a connection reaches the server: the look-up of its name, and TLS with its faults."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import ipaddress
import socket
from collections.abc import Mapping
from typing import Any, cast

from redis.asyncio import Connection, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError

from murmur_streams.core.model.errors import StoreConfigurationError
from murmur_streams.core.tls import TlsCheck, tls_fault
from murmur_streams.threads import call_in_thread

CONNECT_TIMEOUT_SECONDS = 5.0
_PINNED: dict[str, Any] = {
    "protocol": 2,
    "decode_responses": False,
    "encoding": "utf-8",
    "encoding_errors": "strict",
    "socket_timeout": None,
    "socket_connect_timeout": CONNECT_TIMEOUT_SECONDS,
    "health_check_interval": 0,
    # CLIENT SETINFO fills the ACL log of servers that deny it.
    "driver_info": None,
    "legacy_responses": True,
}
_NOT_CLONED = (
    "maint_",
    "orig_",
    "himport_",
    "oss_",
    "event_dispatcher",
    "retry",
    "connection_pool",
    # Of the clients of clusters.
    "connection_class",
    "max_connections",
    "response_callbacks",
)


def own_settings(given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a client's connections, changed to the store's own rules."""
    cloned = {name: value for name, value in given.items() if not name.startswith(_NOT_CLONED)}
    return cloned | _PINNED | {"retry": Retry(NoBackoff(), 0)}


def can_half_close(kind: type[Any]) -> bool:
    """Whether one direction of such a connection can be closed alone: not with TLS."""
    theirs: list[Any] = [Connection, UnixDomainSocketConnection]
    opens_a_socket = getattr(kind, "_connect", None) in [each._connect for each in theirs]
    return opens_a_socket and not issubclass(kind, SSLConnection)


def with_own_lookups(connection_class: type[Any]) -> type[Any]:
    """The same class, whose look-ups do not wait for the event loop's default executor.

    asyncio looks names up in that executor, which ``asyncio.to_thread`` uses, too. If blocking
    agents fill it and the server's connections break, no heartbeat gets a new connection until an
    agent returns. By then the leases have run out, and healthy runs are executed a second time.

    A class that opens its sockets in another way (Unix sockets, tunnels, fakeredis) is returned
    unchanged.
    """
    theirs: Any = Connection
    opens_as_redis_py = getattr(connection_class, "_connect", None) is theirs._connect
    return _class_with_lookups(connection_class) if opens_as_redis_py else connection_class


@functools.cache
def _class_with_lookups(connection_class: type[Any]) -> type[Any]:
    return type(connection_class.__name__, (_OwnLookups, connection_class), {})


class _OwnLookups(Connection):
    """Looks up the name at each connect, and tries its addresses one after the other."""

    _address: str | None = None

    def _connection_arguments(self) -> Mapping[str, Any]:
        arguments: dict[str, Any] = {**cast("Any", super())._connection_arguments()}
        if self._address is not None:
            arguments["host"] = self._address
            if "ssl" in arguments:
                # The certificate is for the name, not for the address.
                arguments["server_hostname"] = self.host
        return arguments

    async def _connect(self) -> None:
        self._address = None
        if _is_address(self.host):
            await super()._connect()
            return
        found = await call_in_thread(
            "look-up", lambda: socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        )
        failures: list[OSError] = []
        for self._address in dict.fromkeys(str(address[0]) for *_, address in found):
            try:
                await super()._connect()
            except OSError as failure:
                failures.append(failure)
            else:
                return
        if len(failures) == 1:
            raise failures[0]
        raise OSError("; ".join(str(each) or type(each).__name__ for each in failures))


def _is_address(host: str) -> bool:
    with contextlib.suppress(ValueError):
        ipaddress.ip_address(host)
        return True
    return False


PROBE_SECONDS = 1.0
_ADVICE = {
    TlsCheck.AUTHORITY: "name the authority's file in the URL: ?ssl_ca_certs=/path/to/ca.pem",
    TlsCheck.NAME: (
        "use the host name that the certificate was issued for, or let the URL end with "
        "ssl_check_hostname=false to check the authority alone"
    ),
    TlsCheck.DATES: "renew the certificate, or set this machine's clock",
    TlsCheck.CLIENT_CERTIFICATE: (
        "give one that it trusts in the URL: ?ssl_certfile=/path/cert.pem&ssl_keyfile=/path/key.pem"
    ),
    TlsCheck.VERSION: (
        "compare the server's tls-protocols and tls-ciphers with the URL's ssl_min_version and "
        "ssl_ciphers"
    ),
    TlsCheck.NO_TLS: "use redis:// instead of rediss://, or the server's tls-port",
}
_NEEDS_TLS = "the port speaks TLS; use rediss:// instead of redis://"


def tls_refusal(error: BaseException) -> str | None:
    """The check of a TLS connection that failed, with advice; None for any other error."""
    fault = tls_fault(error) if isinstance(error, (RedisConnectionError, OSError)) else None
    return None if fault is None else f"{fault.text}; {_ADVICE[fault.check]}"


def check_tls_files(connection: Any, shown_url: str) -> None:
    """Read the files that a URL's TLS options name, so that a bad one fails now and is not retried.

    Raises:
        StoreConfigurationError: one of them cannot be used.
    """
    context = getattr(connection, "ssl_context", None)
    if context is None:
        return
    try:
        context.get()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or type(error).__name__
        raise StoreConfigurationError(
            f"the TLS settings of {shown_url} cannot be used ({why}); check the files that "
            "ssl_ca_certs, ssl_certfile and ssl_keyfile name, and ssl_ciphers"
        ) from None


async def protocol_refusal(kind: type[Any], settings: Mapping[str, Any]) -> str | None:
    """Probe whether a silent address speaks TLS and the store does not, or the reverse.

    A plain server takes a TLS handshake for the beginning of a command and waits for more; a TLS
    server closes a connection that begins without a handshake. Both look like a broken network
    until the other protocol is tried. A server that asks for a client certificate may close before
    its alert is read, so one probe sends nothing and only reads. No credentials are sent.

    Args:
        kind: the class of the store's connections.
        settings: their arguments.

    Returns:
        The fault and what to change; None when the protocol is not the reason.
    """
    if kind not in {with_own_lookups(Connection), with_own_lookups(SSLConnection)}:
        return None
    plain = {name: settings[name] for name in ("host", "port") if name in settings}
    plain |= {"retry": Retry(NoBackoff(), 0), "protocol": 2, "driver_info": None}
    if not issubclass(kind, SSLConnection):
        ask = SSLConnection(**plain, ssl_cert_reqs="none", ssl_check_hostname=False)
        return _NEEDS_TLS if await _answers(ask, speak=False) is True else None
    if await _answers(Connection(**plain), speak=True) is True:
        return f"the port does not speak TLS; {_ADVICE[TlsCheck.NO_TLS]}"
    own = {name: value for name, value in settings.items() if name.startswith("ssl_")}
    found = await _answers(SSLConnection(**plain, **own), speak=False, listen=True)
    return found if isinstance(found, str) else None


async def _answers(connection: Any, *, speak: bool, listen: bool = False) -> bool | str:
    """Whether it connects (and answers); a text describes why the handshake failed."""
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            await connection.connect()
            if speak:
                await connection.send_command("PING")
            if speak or listen:
                await connection.read_response()
    except ResponseError:
        return True
    except (RedisError, OSError) as error:
        return tls_refusal(error) or False
    else:
        return True
    finally:
        with contextlib.suppress(Exception):
            await connection.disconnect(nowait=True)
