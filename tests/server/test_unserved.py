"""A submission to a target that no live worker serves: the answer has a warning, as has the log."""

from __future__ import annotations

import logging

import httpx
import pytest

from murmur_streams import Fleet
from murmur_streams.fleet import stores
from murmur_streams.server import run_requests
from tests.fleet.working import working
from tests.server.serving import task

WAIT_SECONDS = 30.0


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer waits for the look however slow this machine is."""
    monkeypatch.setattr(run_requests, "LOOK_SECONDS", WAIT_SECONDS)


@pytest.mark.parametrize("headers", [{}, {"Prefer": "wait=0"}], ids=["at once", "waiting"])
async def test_the_answer_has_the_warning_once_a_minute(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture, headers: dict[str, str]
) -> None:
    """The run is taken with 200; the first answer of a minute names the target."""
    with caplog.at_level(logging.WARNING, "murmur_streams.fleet"):
        first = await client.post("/submit", json=task(), headers=headers)
        second = await client.post("/submit", json=task(), headers=headers)
    assert (first.status_code, second.status_code) == (200, 200)
    warning = stores.unserved_warning("fine")
    assert first.headers["Murmur-Warning"] == warning
    assert "Murmur-Warning" not in second.headers
    assert [record.getMessage() for record in caplog.records] == [warning]


async def test_an_answer_of_a_served_target_has_no_warning(
    client: httpx.AsyncClient, fleet: Fleet
) -> None:
    """A live worker that serves the target is found."""
    async with working(fleet):
        await (await fleet.submit("fine", 1)).result(timeout=WAIT_SECONDS)
        fleet._unserved = stores.UnservedTargets()
        answer = await client.post("/submit", json=task())
    assert "Murmur-Warning" not in answer.headers


async def test_a_replay_has_no_warning(client: httpx.AsyncClient) -> None:
    """The run of a key that was used before may have ended long ago."""
    headers = {"Idempotency-Key": "order-7"}
    first = await client.post("/submit", json=task(), headers=headers)
    second = await client.post("/submit", json=task(), headers=headers)
    assert "Murmur-Warning" in first.headers
    assert "Murmur-Warning" not in second.headers
    assert second.json() == first.json() == {"run_id": first.json()["run_id"]}
