"""Connections that look a server's name up in a thread of their own."""

from __future__ import annotations

import functools
import ipaddress
import socket
from collections.abc import Mapping
from typing import Any, cast

from redis.asyncio import Connection

from murmur_streams.threads import call_in_thread


def with_own_lookups(connection_class: type[Any]) -> type[Any]:
    """The same class, whose name look-ups wait for nobody.

    asyncio looks names up in the event loop's default executor, where agents run what they give to
    ``asyncio.to_thread``. When they have filled it and the server's connections break, no heartbeat
    gets a connection until one of them returns; by then the leases have run out, and innocent runs
    are executed a second time.

    A class that opens its sockets in a way of its own, such as a Unix socket's, a tunnel's or
    fakeredis', is returned as it is.
    """
    theirs: Any = Connection
    opens_as_redis_py = getattr(connection_class, "_connect", None) is theirs._connect
    return _class_with_lookups(connection_class) if opens_as_redis_py else connection_class


@functools.cache
def _class_with_lookups(connection_class: type[Any]) -> type[Any]:
    return type(connection_class.__name__, (_OwnLookups, connection_class), {})


class _OwnLookups(Connection):
    """Looks the name up each time that it connects, and tries each of its addresses in turn."""

    _address: str | None = None

    def _connection_arguments(self) -> Mapping[str, Any]:
        arguments: dict[str, Any] = {**cast("Any", super())._connection_arguments()}
        if self._address is not None:
            arguments["host"] = self._address
            if "ssl" in arguments:
                # The certificate is the name's, not the address's.
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
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
