"""From a URL to a client: one address, or a service that Sentinels monitor."""

from __future__ import annotations

import re
from typing import Any, cast
from urllib.parse import unquote, urlsplit

from redis.asyncio import Redis
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from murmur_streams.core.model.errors import StoreConfigurationError
from murmur_streams.core.redaction import redacted
from murmur_streams.stores.redis.connection import transport

_SCHEMES = ("redis://", "rediss://", "unix://")
_SENTINEL_SCHEMES = ("redis+sentinel://", "rediss+sentinel://")
SENTINEL_PORT = 26379
MOST_PORT = 65_535
_FORMS = "use redis://host:6379/0, rediss://… for TLS, or unix:///path/to/socket"
_SENTINEL_FORM = (
    "use redis+sentinel://host1:26379,host2:26379,host3:26379/service/0, or rediss+sentinel://… "
    "for TLS"
)
_BAD_PORT = "its port is not a number from 0 to 65535; a / ? # or @ in a password must be %-encoded"
_UNKNOWN_OPTION = re.compile(r"unexpected keyword argument '(\w+)'")
_HOST = re.compile(r"(\[[^\[\]]+\]|[^:\[\]]+)(?::(\d{1,5}))?")


class _FaultError(ValueError):
    """What is wrong with a URL; the text repeats no part of a password."""


def client_from_url(url: str) -> Redis:
    """Make a client for a URL; nothing is connected yet.

    Args:
        url: redis://, rediss:// or unix://, or the Sentinels of a service:
            ``redis+sentinel://[user:password@]host:port,host:port/service[/db]``, ``rediss+…`` for
            TLS. The user is the server's; Sentinels that ask for one of their own get it by the
            options ``sentinel_username`` and ``sentinel_password``.

    Raises:
        StoreConfigurationError: the URL is malformed; its password is not repeated.
    """
    is_service = url.startswith(_SENTINEL_SCHEMES)
    try:
        client = _of_service(url) if is_service else _of_address(url)
        # Making a connection, without using it, fails for unknown options.
        unused = client.connection_pool.make_connection()
    except (ValueError, TypeError, AttributeError, RedisError) as error:
        raise StoreConfigurationError(
            f"the URL {redacted(url)} is refused ({_fault_of(url, error)}); "
            f"{_SENTINEL_FORM if is_service else _FORMS}"
        ) from None
    transport.check_tls_files(unused, redacted(url))
    return cast("Redis", client)


def _of_address(url: str) -> Any:
    if not url.startswith(_SCHEMES):
        # The driver would take "redis:host" for localhost.
        raise _FaultError("it does not begin with one of the known schemes")
    return cast("Any", Redis).from_url(url, retry=Retry(NoBackoff(), 0), protocol=2)


def _of_service(url: str) -> Any:
    parts = urlsplit(url)
    credentials, at, hosts = parts.netloc.rpartition("@")
    service, _, db = parts.path.lstrip("/").partition("/")
    if not service:
        raise _FaultError("it names no service")
    scheme = parts.scheme.partition("+")[0]
    # The driver reads the options, their types, and the %-encoded user and password.
    options = parse_url(f"{scheme}://{credentials}{at}host/{db or 0}?{parts.query}")
    options = {name: value for name, value in options.items() if name not in _OF_ONE_ADDRESS}
    if db and "db" not in options:
        raise _FaultError("its database is not a number")
    options |= {"ssl": True} if scheme == "rediss" else {}
    given: dict[str, Any] = {
        name: options.pop(f"sentinel_{name}", None) for name in ("username", "password")
    }
    tls = {name: value for name, value in options.items() if name.startswith("ssl")}
    sentinels = [_sentinel(each) for each in hosts.split(",")]
    service_of: Any = Sentinel
    return service_of(sentinels, sentinel_kwargs=given | tls, **options).master_for(
        unquote(service)
    )


_OF_ONE_ADDRESS = frozenset({"host", "port", "connection_class"})


def _sentinel(text: str) -> tuple[str, int]:
    found = _HOST.fullmatch(text)
    if found is None or int(found[2] or 0) > MOST_PORT:
        raise _FaultError("one of its Sentinels is not host or host:port")
    return found[1].strip("[]"), int(found[2] or SENTINEL_PORT)


def _fault_of(url: str, error: Exception) -> str:
    # The driver's own text may repeat a part of the password.
    if isinstance(error, _FaultError):
        return str(error)
    option = _UNKNOWN_OPTION.search(str(error))
    if option:
        return f"it has the unknown option {option[1]!r}"
    try:
        _ = urlsplit(url).port
    except ValueError as fault:
        return _BAD_PORT if str(fault).startswith("Port") else "its host is malformed"
    return "one of its options has a value that cannot be read"
