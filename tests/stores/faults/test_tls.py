"""TLS that cannot work is reported at once, with the check that failed and what to change."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from redis.asyncio import Redis

from murmur_streams.core.model.errors import StoreConfigurationError
from murmur_streams.testing.faults import ServerHandle
from tests.authority import Authority, tls_front
from tests.stores.faults.conftest import StoreMaker
from tests.stores.faults.refusals import SECRET, TRIED_AGAIN, opening, refusal
from tests.stores.faults.waiting import wait_until


@dataclass(frozen=True)
class Ports:
    """One server behind several TLS fronts."""

    authority: Path
    plain: int
    good: int
    other_name: int
    expired: int
    asks_clients: int


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
async def ports(authority: Authority, spare: ServerHandle) -> AsyncIterator[Ports]:
    """The fronts, each with a certificate of its own kind."""
    good = authority.sign("good", "IP:127.0.0.1,DNS:localhost")
    other = authority.sign("other", "DNS:elsewhere.example")
    old = authority.sign("old", "IP:127.0.0.1", days=-1)
    async with (
        tls_front(spare.address, authority.context(good)) as (good_port, _),
        tls_front(spare.address, authority.context(other)) as (other_port, _),
        tls_front(spare.address, authority.context(old)) as (old_port, _),
    ):
        with authority.server_that_asks_clients(good) as asking_port:
            yield Ports(authority.file, spare.port, good_port, other_port, old_port, asking_port)


FAULTS = {
    "unknown authority": (
        "rediss://127.0.0.1:{good}",
        "its certificate is not signed by an authority that this machine trusts",
        "ssl_ca_certs=",
    ),
    "wrong address": (
        "rediss://127.0.0.1:{other_name}?ssl_ca_certs={authority}",
        "not valid for '127.0.0.1'",
        "ssl_check_hostname=false",
    ),
    "wrong name": (
        "rediss://localhost:{other_name}?ssl_ca_certs={authority}",
        "not valid for 'localhost'",
        "ssl_check_hostname=false",
    ),
    "expired": (
        "rediss://127.0.0.1:{expired}?ssl_ca_certs={authority}",
        "certificate has expired",
        "renew",
    ),
    "no client certificate": (
        "rediss://127.0.0.1:{asks_clients}?ssl_ca_certs={authority}",
        "asks for a certificate of the client",
        "ssl_certfile=",
    ),
    "TLS to a plain port": (
        "rediss://127.0.0.1:{plain}?ssl_ca_certs={authority}",
        "does not speak TLS",
        "redis://",
    ),
    "plain to a TLS port": ("redis://127.0.0.1:{good}", "speaks TLS", "rediss://"),
    "plain with a password to a TLS port": (
        f"redis://:{SECRET}@127.0.0.1:{{good}}/1",
        "speaks TLS",
        "rediss://",
    ),
    "no such file": (
        "rediss://127.0.0.1:{good}?ssl_ca_certs=/nowhere/ca.pem",
        "No such file",
        "ssl_ca_certs",
    ),
    "no certificate in the file": (
        "rediss://127.0.0.1:{good}?ssl_ca_certs=/dev/null",
        "TLS settings",
        "ssl_ca_certs",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.fault("F47")
async def test_tls_that_cannot_work_is_reported_at_once(
    name: str, ports: Ports, make_store: StoreMaker, log: pytest.LogCaptureFixture
) -> None:
    """No try is repeated: the first error says which check failed and which setting helps."""
    url, what, setting = FAULTS[name]

    async def opened() -> None:
        await opening(make_store(url.format(**vars(ports)), call_seconds=5.0))

    for _ in range(2):
        text = await refusal(asyncio.wait_for(opened(), 4), StoreConfigurationError)
        assert what in text
        assert setting in text
        assert SECRET not in text
    assert TRIED_AGAIN not in log.text


async def test_tls_that_works_is_left_alone(ports: Ports, make_store: StoreMaker) -> None:
    """With the authority named in the URL the store works by address and by name."""
    for host in ("127.0.0.1", "localhost"):
        store = make_store(f"rediss://{host}:{ports.good}?ssl_ca_certs={ports.authority}")
        await store.list_runs()


async def test_a_given_clients_certificate_errors_are_reported_too(
    ports: Ports, make_store: StoreMaker
) -> None:
    """A store over the caller's own client judges them the same."""
    async with Redis(host="127.0.0.1", port=ports.good, ssl=True) as client:
        store = make_store(None, client=client)
        text = await refusal(asyncio.wait_for(opening(store), 4), StoreConfigurationError)
        assert "ssl_ca_certs" in text
        await store.close()


@pytest.mark.fault("F47")
async def test_a_certificate_that_goes_bad_later_is_reported_at_once(
    authority: Authority, spare: ServerHandle, make_store: StoreMaker
) -> None:
    """A live store whose server comes back with an expired certificate does not retry for long."""
    context = authority.context(authority.sign("fine", "IP:127.0.0.1"))
    old = authority.sign("stale", "IP:127.0.0.1", days=-1)
    async with tls_front(spare.address, context) as (port, _), spare.client() as admin:
        store = make_store(f"rediss://127.0.0.1:{port}?ssl_ca_certs={authority.file}")
        await store.create("run", "work")
        context.load_cert_chain(old.certificate, old.key)
        await admin.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        for connection in store._server.nodes.all[0].commands._idle:
            await wait_until(connection.can_read, "the end of the connection has arrived")
        text = await refusal(store.create("other", "work"), StoreConfigurationError)
        assert "expired" in text
