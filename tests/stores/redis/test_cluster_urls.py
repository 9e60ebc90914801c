"""The URLs of a cluster: its nodes, and the options of the connections to them."""

from __future__ import annotations

from typing import Any, cast

import pytest

from murmur_streams.core.model.errors import StoreConfigurationError
from murmur_streams.stores.redis.connection.maker import ConnectionMaker
from murmur_streams.stores.redis.connection.urls import client_from_url

NODES = {
    "redis+cluster://host": [("host", 6379)],
    "redis+cluster://a:7000,b,c:7002": [("a", 7000), ("b", 6379), ("c", 7002)],
    "redis+cluster://127.0.0.1:7000/": [("127.0.0.1", 7000)],
    "redis+cluster://127.0.0.1:7000/0": [("127.0.0.1", 7000)],
    "redis+cluster://[::1]:7000,[2001:db8::1]": [("::1", 7000), ("2001:db8::1", 6379)],
    "rediss+cluster://a,b:6380": [("a", 6379), ("b", 6380)],
}
REFUSED = {
    "redis+cluster://": "not host or host:port",
    "redis+cluster://a,": "not host or host:port",
    "redis+cluster://,a": "not host or host:port",
    "redis+cluster://a:99999": "not host or host:port",
    "redis+cluster://a:7000,b:port": "not host or host:port",
    "redis+cluster://a/1": "a cluster has only 0",
    "redis+cluster://a/runs/0": "a cluster has only 0",
    "redis+cluster://a?nonsense=1": "'nonsense'",
    "redis+cluster://a?socket_timeout=soon": "value",
}
SECRET = "sesame"


def nodes_of(client: Any) -> list[tuple[str, int]]:
    """The nodes that a client begins with."""
    return [(node.host, node.port) for node in client.nodes_manager.startup_nodes.values()]


@pytest.mark.parametrize("url", NODES)
def test_a_url_names_some_of_the_nodes(url: str) -> None:
    """Each with its port, or the usual one."""
    client = client_from_url(url)
    assert nodes_of(client) == NODES[url]
    assert ConnectionMaker.of(client).can_half_close == (not url.startswith("rediss"))


@pytest.mark.parametrize("url", REFUSED)
def test_a_malformed_url_of_a_cluster_is_refused(url: str) -> None:
    """The error names the fault and shows the right form."""
    with pytest.raises(StoreConfigurationError, match=REFUSED[url]) as caught:
        client_from_url(url)
    assert "use redis+cluster://host1:6379,host2:6379" in str(caught.value)
    assert caught.value.__cause__ is None


def test_credentials_and_options_are_those_of_each_connection() -> None:
    """A user and a password with special characters are %-encoded."""
    url = "redis+cluster://us%40er:p%2Fass%2C%3A@a:7000,b:7001?socket_keepalive=yes&health_check_interval=9"
    settings = ConnectionMaker.of(client_from_url(url)).at(("c", 7005)).settings
    assert (settings["username"], settings["password"]) == ("us@er", "p/ass,:")
    assert (settings["host"], settings["port"]) == ("c", 7005)
    assert settings["socket_keepalive"] is True


def test_options_of_tls_reach_the_connections() -> None:
    """As those of ``rediss://`` do."""
    url = "rediss+cluster://a?ssl_check_hostname=false&ssl_min_version=771"
    maker = ConnectionMaker.of(client_from_url(url))
    settings = cast("dict[str, Any]", maker.settings)
    assert settings["ssl_check_hostname"] is False
    assert not maker.can_half_close


@pytest.mark.parametrize(
    "url",
    [
        f"redis+cluster://user:{SECRET}@a:port,b",
        f"redis+cluster://:{SECRET}@a/1",
        f"redis+cluster://{SECRET}@a/1",
        f"redis+cluster://a:{SECRET}",
        f"redis+cluster://a:7000,b:{SECRET}",
        f"redis+cluster://:{SECRET}/x@a,b",
        f"rediss+cluster://a?ssl_password={SECRET}&nonsense=1",
    ],
)
def test_an_error_shows_no_password(url: str) -> None:
    """Nor a part of one, wherever it was misplaced."""
    with pytest.raises(StoreConfigurationError) as caught:
        client_from_url(url)
    assert SECRET not in str(caught.value)
