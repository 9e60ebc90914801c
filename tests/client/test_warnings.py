"""The warnings of a submission reach the program that submitted."""

from __future__ import annotations

import asyncio
import logging

import pytest

from murmur_streams.client import AsyncClient, Client
from murmur_streams.fleet.stores import unserved_warning
from murmur_streams.server import run_requests
from tests.client.conftest import PATIENCE_SECONDS
from tests.client.pods import Pod

LOGGER = "murmur_streams.client"


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_requests, "LOOK_SECONDS", PATIENCE_SECONDS)


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == LOGGER]


async def test_a_target_without_a_worker_is_in_handle_and_log(
    client: AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    """The submission succeeds; its handle has the warning, and so has the program's log."""
    with caplog.at_level(logging.WARNING, LOGGER):
        handle = await client.submit("counts", 1)
        again = await client.submit("counts", 1)
    assert handle.warning == unserved_warning("counts")
    assert again.warning is None
    assert logged(caplog) == [handle.warning]


async def test_the_sync_client_has_it_as_well(pod: Pod, caplog: pytest.LogCaptureFixture) -> None:
    """Client and AsyncClient say the same."""

    def submit() -> str | None:
        with Client(pod.url) as client:
            return client.submit("counts", 1).warning

    with caplog.at_level(logging.WARNING, LOGGER):
        warning = await asyncio.to_thread(submit)
    assert warning == unserved_warning("counts")
    assert logged(caplog) == [warning]
