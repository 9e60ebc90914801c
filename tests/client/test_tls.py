"""A client whose TLS cannot work says at once which check failed and what to change."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from murmur_streams.client import AsyncClient, Client
from murmur_streams.core.model.errors import StoreConfigurationError, StoreUnavailableError
from tests.authority import Authority, tls_front
from tests.client.pods import Pod


@dataclass(frozen=True)
class Ports:
    """A pod behind TLS fronts."""

    plain: int
    good: int
    other_name: int
    expired: int
    asks_clients: int


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
async def ports(authority: Authority, pod: Pod) -> AsyncIterator[Ports]:
    good = authority.sign("good", "IP:127.0.0.1")
    other = authority.sign("other", "DNS:elsewhere.example")
    old = authority.sign("old", "IP:127.0.0.1", days=-1)
    upstream = ("127.0.0.1", pod.port)
    async with (
        tls_front(upstream, authority.context(good)) as (good_port, _),
        tls_front(upstream, authority.context(other)) as (other_port, _),
        tls_front(upstream, authority.context(old)) as (old_port, _),
    ):
        with authority.server_that_asks_clients(good) as asking_port:
            yield Ports(pod.port, good_port, other_port, old_port, asking_port)


def ask_synchronously(url: str) -> None:
    with Client(url) as client:
        client.agents()


async def ask(url: str) -> None:
    async with AsyncClient(url) as client:
        await client.agents()


async def ask_in_thread(url: str) -> None:
    await asyncio.to_thread(ask_synchronously, url)


Trust = Callable[[Path | None], None]


@pytest.fixture
def trust(monkeypatch: pytest.MonkeyPatch) -> Trust:
    """Trust an authority as users do."""

    def setting(file: Path | None) -> None:
        if file is None:
            monkeypatch.delenv("SSL_CERT_FILE", raising=False)
        else:
            monkeypatch.setenv("SSL_CERT_FILE", str(file))

    return setting


FAULTS = {
    "unknown authority": ("good", False, "signed by an authority", "SSL_CERT_FILE"),
    "wrong name": ("other_name", True, "not valid for '127.0.0.1'", "the host name"),
    "expired": ("expired", True, "expired", "renew"),
    "no client certificate": ("asks_clients", True, "asks for a certificate", "transport="),
    "TLS to a plain port": ("plain", True, "does not speak TLS", "http://"),
}


@pytest.mark.parametrize("way", [ask, ask_in_thread], ids=["async", "sync"])
@pytest.mark.parametrize("name", FAULTS)
async def test_tls_that_cannot_work_is_reported_at_once(
    name: str, way: Any, ports: Ports, trust: Trust, authority: Authority
) -> None:
    """The first try ends with the check that failed; the client would ask again for 30 s."""
    where, is_trusted, what, setting = FAULTS[name]
    trust(authority.file if is_trusted else None)
    with pytest.raises(StoreConfigurationError) as caught:
        await asyncio.wait_for(way(f"https://127.0.0.1:{getattr(ports, where)}"), 10)
    assert what in str(caught.value)
    assert setting in str(caught.value)


@pytest.mark.parametrize("way", [ask, ask_in_thread], ids=["async", "sync"])
async def test_a_trusted_certificate_is_enough(
    way: Any, ports: Ports, trust: Trust, authority: Authority
) -> None:
    """With SSL_CERT_FILE the client speaks TLS with a server of a private authority."""
    trust(authority.file)
    await way(f"https://127.0.0.1:{ports.good}")


async def test_plain_text_to_a_tls_port_has_a_hint(ports: Ports) -> None:
    """The port only closes the connection: the error at the end names the likely mistake."""
    async with AsyncClient(f"http://127.0.0.1:{ports.good}", retry_seconds=0) as client:
        with pytest.raises(StoreUnavailableError, match="use https://"):
            await client.agents()
