"""Variables of the environment that httpx reads: a bad one is an error that names it."""

from __future__ import annotations

import os

import pytest

from murmur_streams import Fleet
from murmur_streams.client import AsyncClient, Client
from murmur_streams.core.model import errors
from tests.client.pods import Pod

CLIENTS = [AsyncClient, Client]
NAMES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR")
NO_PROXIES = ("[::1]", "fe80::/10", "a\nb", "host:port", ".\N{SNOWMAN}.com", "x" * 70_000)
PROXIES = (
    *("ftp://proxy", "http://[::1", "http://proxy:port", "\x01", "://", "socks5://proxy:1080"),
    *("http://a..b", "http://\N{SNOWMAN}", "http://us\udce3er:x@proxy"),
)
BAD = [
    *(("NO_PROXY", value) for value in NO_PROXIES),
    *(("no_proxy", value) for value in NO_PROXIES),
    *(("HTTP_PROXY", value) for value in PROXIES),
    *(("HTTPS_PROXY", value) for value in PROXIES),
    *(("ALL_PROXY", value) for value in PROXIES),
    *(("all_proxy", value) for value in PROXIES),
    *(("SSL_CERT_FILE", value) for value in ("/nowhere/ca.pem", "/", __file__)),
]


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.upper() in NAMES:
            monkeypatch.delenv(name)


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize(("name", "value"), BAD)
def test_a_bad_variable_is_named(
    monkeypatch: pytest.MonkeyPatch, client: type[AsyncClient | Client], name: str, value: str
) -> None:
    """Both clients raise one line that names the variable and the way to ignore it."""
    monkeypatch.setenv(name, value)
    with pytest.raises(errors.StoreConfigurationError, match=f"^{name} ") as caught:
        client("http://127.0.0.1:1")
    assert "trust_env=False" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert client("http://127.0.0.1:1", trust_env=False)


def test_a_key_log_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python reads SSLKEYLOGFILE whatever httpx is given, so the advice is to remove it."""
    monkeypatch.setenv("SSLKEYLOGFILE", "/nowhere/keys")
    with pytest.raises(errors.StoreConfigurationError, match=r"^SSLKEYLOGFILE .*remove it"):
        Client("http://127.0.0.1:1")


def test_a_proxy_password_is_in_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slash in a password makes its beginning a port, which httpx repeats."""
    monkeypatch.setenv("HTTP_PROXY", "http://user:sec/ret@proxy:3128")
    with pytest.raises(errors.StoreConfigurationError) as caught:
        Client("http://127.0.0.1:1")
    assert "sec" not in str(caught.value)


def test_a_wildcard_leaves_bad_proxies_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    """NO_PROXY=* switches proxies off, so a bad address of one does not matter."""
    monkeypatch.setenv("HTTP_PROXY", "ftp://proxy")
    monkeypatch.setenv("NO_PROXY", "example.com, *")
    Client("http://127.0.0.1:1").close()


async def test_the_environment_can_be_ignored(
    monkeypatch: pytest.MonkeyPatch, fleet: Fleet, pod: Pod
) -> None:
    """With trust_env=False the request goes to the server and not to the proxy."""
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    async with AsyncClient(pod.url, retry_seconds=0) as client:
        with pytest.raises(errors.StoreUnavailableError):
            await client.agents()
    async with AsyncClient(pod.url, trust_env=False) as client:
        assert await client.agents() == sorted(fleet.agents)


@pytest.mark.parametrize("host", ["exa..mple", "\N{SNOWMAN}.com", "a" * 80])
def test_a_host_that_cannot_be_encoded_is_refused(host: str) -> None:
    """The server's own address is refused when the client is made, like the environment's."""
    with pytest.raises(errors.InvalidInputError, match="the address of a server"):
        Client(f"http://{host}")
