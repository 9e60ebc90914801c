"""A wrong address or password is reported clearly, and no password is ever shown."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

import pytest

from murmur_streams.core.model.errors import (
    MurmurError,
    StoreConfigurationError,
    StoreUnavailableError,
)
from murmur_streams.stores.open import open_store
from murmur_streams.stores.redis import server as server_module
from murmur_streams.testing.faults import ServerHandle
from tests.stores.faults.conftest import StoreMaker
from tests.stores.faults.events import note
from tests.stores.faults.refusals import SECRET, TRIED_AGAIN, opening, refusal
from tests.stores.faults.servers import spare_server
from tests.stores.faults.waiting import wait_until

BAD_URLS = {
    "http://127.0.0.1:6379": "names no store",
    "127.0.0.1:6379": "names no store",
    "": "names no store",
    "redis:127.0.0.1": "known schemes",
    "redis://127.0.0.1:port": "port",
    "redis://127.0.0.1:99999": "port",
    "redis://[::1": "malformed",
    "redis://127.0.0.1?socket_keepalive_time=1": "socket_keepalive_time",
    "redis://127.0.0.1?socket_timeout=soon": "value",
    "redis+sentinel://127.0.0.1": "names no service",
    "redis+sentinel://127.0.0.1/": "names no service",
    "redis+sentinel:///runs": "not host or host:port",
    "redis+sentinel://127.0.0.1,/runs": "not host or host:port",
    "redis+sentinel://127.0.0.1:99999/runs": "not host or host:port",
    "redis+sentinel://127.0.0.1:26379,127.0.0.1:port/runs": "not host or host:port",
    "redis+sentinel://127.0.0.1/runs/zero": "database",
    "redis+sentinel://127.0.0.1/runs?socket_keepalive_time=1": "socket_keepalive_time",
    "redis+cluster://127.0.0.1/1": "a cluster has only 0",
    "redis+cluster://127.0.0.1,": "not host or host:port",
    "memory://host": "names no store",
    "embedded://host/path": "names a host",
}


@pytest.mark.parametrize("url", BAD_URLS)
def test_a_malformed_url_is_refused_before_anything_is_connected(url: str) -> None:
    """The error names the fault and has no cause that could show a password."""
    with pytest.raises(StoreConfigurationError, match=BAD_URLS[url]) as caught:
        open_store(url)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


SECRET_URLS = [
    f"redis+sentinel://user:{SECRET}@127.0.0.1:1,127.0.0.1:2/runs",
    f"redis+sentinel://:{SECRET}@127.0.0.1:1,127.0.0.1:2/runs",
    f"redis+sentinel://127.0.0.1:1,127.0.0.1:{SECRET}/runs",
    f"redis+sentinel://127.0.0.1:1/runs?sentinel_password={SECRET}",
    f"redis+cluster://user:{SECRET}@127.0.0.1:1,127.0.0.1:2",
    f"redis+cluster://{SECRET}@127.0.0.1:1",
    f"redis+cluster://127.0.0.1:1,127.0.0.1:{SECRET}",
    f"redis://user:{SECRET}@127.0.0.1:1",
    f"redis://{SECRET}@127.0.0.1:1",
    f"redis://{SECRET}@127.0.0.1:port",
    f"redis://127.0.0.1:1?username={SECRET}",
    f"redis:{SECRET}@127.0.0.1:1",
    f"{SECRET}@127.0.0.1:1",
    f"unix://{SECRET}@/nowhere.sock",
    f"redis://:{SECRET}@127.0.0.1:1",
    f"redis://:{SECRET}@127.0.0.1:port",
    f"redis://:{SECRET}/x@127.0.0.1:1",
    f"redis://:x/{SECRET}@127.0.0.1:1",
    f"redis://:{SECRET}?x@127.0.0.1:1",
    f"redis://:{SECRET}#x@127.0.0.1:1",
    f"redis://:x@{SECRET}@127.0.0.1:1",
    f"redis://127.0.0.1:1?password={SECRET}",
    f"redis://127.0.0.1:1?db=0&password={SECRET}&nonsense=1",
    f"rediss://127.0.0.1:1?ssl_password={SECRET}",
    f"unix:///nowhere.sock?password={SECRET}",
    f"unix://user:{SECRET}@/nowhere.sock",
    f"http://user:{SECRET}@127.0.0.1",
    f"redis:/user:{SECRET}@127.0.0.1",
    f"redis://user:{SECRET}@[::1",
    f"embedded://user:{SECRET}@host/path",
]


@pytest.mark.parametrize("url", SECRET_URLS)
async def test_a_password_is_shown_nowhere(
    url: str, log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, nothing_is_left: None
) -> None:
    """The repr of store and client, errors and tracebacks hide it."""
    monkeypatch.setattr(server_module, "OPENING_SECONDS", 0.05)
    shown: list[str] = []
    try:
        store: Any = open_store(url)
        shown += [repr(store), repr(store.client), store.where, repr(vars(store))]
        await opening(store)
    except MurmurError as error:
        shown += [str(error), repr(error), "".join(traceback.format_exception(error))]
    assert len(shown) > 2
    assert SECRET not in "".join(shown)
    assert SECRET not in log.text


@pytest.mark.parametrize(
    "url",
    [
        "redis://127.0.0.1:1",
        "redis://256.256.256.256",
        "unix:///nowhere/at/all.sock",
        "rediss://127.0.0.1:1",
    ],
)
async def test_a_server_that_is_not_there_is_given_up_within_seconds(
    url: str, make_store: StoreMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each call raises StoreUnavailableError."""
    monkeypatch.setattr(server_module, "OPENING_SECONDS", 0.1)
    store = make_store(url)
    for call in (opening(store), store.get_status("run"), store.create("run", "work")):
        text = await refusal(call, StoreUnavailableError)
        assert "cannot be reached" in text


async def test_the_first_connection_is_given_five_seconds() -> None:
    """The limit that the documentation names."""
    assert server_module.OPENING_SECONDS == 5.0


async def test_a_wrong_or_missing_password_fails_at_once(
    tmp_path: Path, make_store: StoreMaker, log: pytest.LogCaptureFixture, nothing_is_left: None
) -> None:
    """It raises StoreConfigurationError without a retry."""
    async with spare_server(tmp_path / "spare", password=SECRET) as server:
        for credentials in ("", ":wrong", "nobody:wrong", f"nobody:{SECRET}"):
            store = make_store(server.url(credentials))
            text = await refusal(opening(store), StoreConfigurationError)
            assert "credentials" in text
        await make_store(server.url(f":{SECRET}")).create("run", "work")
    assert TRIED_AGAIN not in log.text
    assert SECRET not in log.text


async def test_a_needless_password_fails_at_once(
    spare: ServerHandle, make_store: StoreMaker
) -> None:
    """A password for a server without one raises StoreConfigurationError."""
    text = await refusal(opening(make_store(spare.url("user:pass"))), StoreConfigurationError)
    assert "credentials" in text


@pytest.mark.fault("F46")
async def test_a_changed_password_is_reported_and_writes_nothing(
    spare: ServerHandle, make_store: StoreMaker
) -> None:
    """It is changed while the store is open."""
    async with spare.client() as admin:
        store = make_store(spare.url())
        await store.create("run", "work")
        await admin.config_set("requirepass", SECRET)
        await admin.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

        async def alone() -> bool:
            return len(await admin.client_list()) == 1

        await wait_until(
            alone, "the killed connections are closed, so that nothing is sent on them"
        )
        text = await refusal(store.append("run", note("run", "a")), StoreConfigurationError)
        await admin.config_set("requirepass", "")  # For the audit of the keys.
        assert "credentials" in text
