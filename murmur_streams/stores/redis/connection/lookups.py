"""Connections that look up the server's name in a thread of their own."""

from __future__ import annotations

import contextlib
import functools
import ipaddress
import socket
from collections.abc import Mapping
from typing import Any, cast

from redis.asyncio import Connection

from murmur_streams.threads import call_in_thread


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
