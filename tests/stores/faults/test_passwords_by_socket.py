"""A refused user or password is reported as clearly over a unix socket as over TCP."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import pytest

from murmur_streams.core.model.errors import StoreConfigurationError
from murmur_streams.testing.faults import ServerHandle
from tests.stores.faults.conftest import StoreMaker
from tests.stores.faults.refusals import SECRET, TRIED_AGAIN, opening, refusal
from tests.stores.faults.servers import spare_server

USER = "alice"


async def permit(server: ServerHandle) -> None:
    """Let a user of this name do everything, with a password."""
    async with server.client() as admin:
        await admin.execute_command("ACL", "SETUSER", USER, "on", f">{SECRET}", "~*", "&*", "+@all")


@pytest.mark.parametrize(
    "credentials", [f"{USER}:wrong", f"nobody:{SECRET}", f"{USER}:", ":wrong", ""]
)
async def test_a_refused_user_fails_at_once_without_its_password(
    credentials: str,
    tmp_path: Path,
    make_store: StoreMaker,
    log: pytest.LogCaptureFixture,
    nothing_is_left: None,
) -> None:
    """Each call raises StoreConfigurationError, and the text has no password."""
    path = tmp_path / "s.sock"
    async with spare_server(
        tmp_path / "spare", "unixsocket", str(path), password="other"
    ) as server:
        await permit(server)
        store = make_store(f"unix://{credentials + '@' if credentials else ''}{path}")
        for call in (opening(store), store.get_status("run"), store.create("run", "work")):
            text = await refusal(call, StoreConfigurationError)
            assert "credentials" in text
            assert SECRET not in text
    assert TRIED_AGAIN not in log.text
    assert SECRET not in log.text


async def test_a_user_with_the_right_password_is_let_in(
    tmp_path: Path, make_store: StoreMaker, nothing_is_left: None
) -> None:
    """Name and password in the URL of a socket are used."""
    path = tmp_path / "s.sock"
    async with spare_server(
        tmp_path / "spare", "unixsocket", str(path), password="other"
    ) as server:
        await permit(server)
        store = make_store(f"unix://{USER}:{quote(SECRET)}@{path}")
        await store.create("run", "work")
        assert (await store.get_status("run")).run_id == "run"
