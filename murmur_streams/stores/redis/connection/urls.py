"""From a URL to a client: one address, a service that Sentinels monitor, or a cluster."""

from __future__ import annotations

import re
from typing import Any, cast
from urllib.parse import SplitResult, unquote, urlsplit

from redis.asyncio import Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from murmur_streams.core.model.errors import StoreConfigurationError
from murmur_streams.core.redaction import redacted
from murmur_streams.stores.redis.connection import transport
from murmur_streams.stores.redis.connection.maker import AnyClient, ConnectionMaker

_SCHEMES = ("redis://", "rediss://", "unix://")
_SENTINEL_SCHEMES = ("redis+sentinel://", "rediss+sentinel://")
PORT = 6379
SENTINEL_PORT = 26379
MOST_PORT = 65_535
_CLUSTER_SCHEMES = ("redis+cluster://", "rediss+cluster://")
_FORMS = "use redis://host:6379/0, rediss://… for TLS, or unix:///path/to/socket"
_SENTINEL_FORM = (
    "use redis+sentinel://host1:26379,host2:26379,host3:26379/service/0, or rediss+sentinel://… "
    "for TLS"
)
_CLUSTER_FORM = (
    "use redis+cluster://host1:6379,host2:6379 with some of the cluster's nodes, or "
    "rediss+cluster://… for TLS"
)
_BAD_PORT = "its port is not a number from 0 to 65535; a / ? # or @ in a password must be %-encoded"
_UNKNOWN_OPTION = re.compile(r"unexpected keyword argument '(\w+)'")
_HOST = re.compile(r"(\[[^\[\]]+\]|[^:\[\]]+)(?::(\d{1,5}))?")


class _FaultError(ValueError):
    """What is wrong with a URL; the text repeats no part of a password."""


def client_of(url: str | None, client: AnyClient | None) -> AnyClient:
    """The given client, or one for the URL; ValueError unless exactly one of them is given."""
    if (url is None) == (client is None):
        raise ValueError("pass exactly one of url= and client=")
    return client if client is not None else client_from_url(url or "")


def client_from_url(url: str) -> AnyClient:
    """Make a client for a URL; nothing is connected yet.

    Args:
        url: redis://, rediss:// or unix://; the Sentinels of a service:
            ``redis+sentinel://[user:password@]host:port,host:port/service[/db]``; or nodes of a
            cluster: ``redis+cluster://[user:password@]host:port,host:port``. ``rediss+…`` is for
            TLS. The user is the server's; Sentinels that ask for one of their own get it by the
            options ``sentinel_username`` and ``sentinel_password``.

    Raises:
        StoreConfigurationError: the URL is malformed; its password is not repeated.
    """
    make, forms = _of_address, _FORMS
    if url.startswith(_SENTINEL_SCHEMES):
        make, forms = _of_service, _SENTINEL_FORM
    elif url.startswith(_CLUSTER_SCHEMES):
        make, forms = _of_cluster, _CLUSTER_FORM
    try:
        client = make(url)
        # Making a connection, without using it, fails for unknown options.
        unused = ConnectionMaker.of(client).make()
    except (ValueError, TypeError, AttributeError, RedisError) as error:
        raise StoreConfigurationError(
            f"the URL {redacted(url)} is refused ({_fault_of(url, error)}); {forms}"
        ) from None
    transport.check_tls_files(unused, redacted(url))
    return cast("AnyClient", client)


def _of_address(url: str) -> Any:
    if not url.startswith(_SCHEMES):
        # The driver would take "redis:host" for localhost.
        raise _FaultError("it does not begin with one of the known schemes")
    return cast("Any", Redis).from_url(url, retry=Retry(NoBackoff(), 0), protocol=2)


def _of_service(url: str) -> Any:
    parts = urlsplit(url)
    service, _, db = parts.path.lstrip("/").partition("/")
    if not service:
        raise _FaultError("it names no service")
    hosts, options = _hosts_and_options(parts, db)
    given: dict[str, Any] = {
        name: options.pop(f"sentinel_{name}", None) for name in ("username", "password")
    }
    tls = {name: value for name, value in options.items() if name.startswith("ssl")}
    sentinels = [_host(each, SENTINEL_PORT, "Sentinels") for each in hosts]
    service_of: Any = Sentinel
    return service_of(sentinels, sentinel_kwargs=given | tls, **options).master_for(
        unquote(service)
    )


def _of_cluster(url: str) -> Any:
    parts = urlsplit(url)
    if parts.path.strip("/") not in {"", "0"}:
        raise _FaultError("it names a database; a cluster has only 0")
    hosts, options = _hosts_and_options(parts, "")
    nodes = [ClusterNode(*_host(each, PORT, "nodes")) for each in hosts]
    client_of: Any = RedisCluster
    return client_of(startup_nodes=nodes, **options)


def _hosts_and_options(parts: SplitResult, db: str) -> tuple[list[str], dict[str, Any]]:
    """The hosts of a URL with several, and the options of the connections to the servers."""
    credentials, at, hosts = parts.netloc.rpartition("@")
    scheme = parts.scheme.partition("+")[0]
    # The driver reads the options, their types, and the %-encoded user and password.
    options = parse_url(f"{scheme}://{credentials}{at}host/{db or 0}?{parts.query}")
    options = {name: value for name, value in options.items() if name not in _OF_ONE_ADDRESS}
    if db and "db" not in options:
        raise _FaultError("its database is not a number")
    options |= {"ssl": True} if scheme == "rediss" else {}
    return hosts.split(","), cast("dict[str, Any]", options)


_OF_ONE_ADDRESS = frozenset({"host", "port", "connection_class"})


def _host(text: str, port: int, what: str) -> tuple[str, int]:
    found = _HOST.fullmatch(text)
    if found is None or int(found[2] or 0) > MOST_PORT:
        raise _FaultError(f"one of its {what} is not host or host:port")
    return found[1].strip("[]"), int(found[2] or port)


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
