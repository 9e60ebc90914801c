"""A pod over runs in a file or folder of its machine: with a worker in it, one process is all."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from murmur_streams import Fleet, RunContext
from murmur_streams.server import make_app
from tests.fleet.working import working
from tests.server.serving import check_problem, client_of


@pytest.fixture(params=["sqlite", "rocksdb"])
async def fleet(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Fleet]:
    async with Fleet(f"{request.param}://{tmp_path}/runs") as fleet:

        @fleet.agent
        async def counts(number: int, run: RunContext) -> int:
            for each in range(number):
                await run.emit("step", each)
            return number

        async with working(fleet):
            yield fleet


@pytest.fixture
async def client(fleet: Fleet) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(make_app(fleet)) as client:
        yield client


async def submitted(client: httpx.AsyncClient, number: int) -> str:
    """Submit a run and wait for its end; its id."""
    body = {"target": "counts", "is_group": False, "task": {"input": number}}
    response = await client.post("/submit", json=body, headers={"Prefer": "wait=10"})
    assert response.status_code == 200, response.text
    return response.json()["run_id"]


async def test_runs_are_submitted_executed_read_and_listed(client: httpx.AsyncClient) -> None:
    """A pod with a worker in its process does it all over HTTP."""
    assert (await client.get("/readyz")).json() == {"status": "ready"}
    run_id = await submitted(client, 3)
    assert (await client.get(f"/runs/{run_id}/status")).json()["state"] == "completed"
    assert (await client.get(f"/runs/{run_id}/result")).json()["output"] == 3
    assert [run["run_id"] for run in (await client.get("/runs")).json()["runs"]] == [run_id]


async def test_a_stream_goes_on_after_its_cursor(client: httpx.AsyncClient) -> None:
    """Only the events after it come."""
    run_id = await submitted(client, 3)
    whole = (await client.get(f"/runs/{run_id}/stream")).text
    ids = [line.removeprefix("id: ") for line in whole.splitlines() if line.startswith("id: ")]
    assert len(ids) == 5
    rest = (await client.get(f"/runs/{run_id}/stream", params={"after": ids[3]})).text
    assert [line for line in rest.splitlines() if line.startswith("id: ")] == [f"id: {ids[4]}"]


@pytest.mark.parametrize(("cursor", "status"), [("abc", 400), ("feed.1-99", 410)])
async def test_a_cursor_of_no_use_to_the_feed_is_refused(
    client: httpx.AsyncClient, cursor: str, status: int
) -> None:
    """Malformed is 400, of another feed is 410."""
    await submitted(client, 1)
    check_problem(await client.get("/events/stream", params={"after": cursor}), status)


async def test_a_run_that_is_not_there_is_not_found(client: httpx.AsyncClient) -> None:
    """The answer is 404."""
    check_problem(await client.get("/runs/unknown/status"), 404)
