"""Query parameters that no route reads are refused, and those that it reads still work."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from tests.server.serving import Callers, check_problem, submitted, unchanged
from tests.servers import Space

PROBES = {"/health", "/healthz", "/readyz"}


def operations(app: FastAPI) -> list[tuple[str, str, dict[str, Any]]]:
    """Method, path and operation of each documented route."""
    return [
        (method.upper(), path, operation)
        for path, found in app.openapi()["paths"].items()
        for method, operation in found.items()
    ]


async def test_every_route_refuses_what_it_does_not_read(
    app: FastAPI, client: httpx.AsyncClient, space: Space
) -> None:
    """The answer names the parameter and lists those that the route reads."""
    run_id = await submitted(client)
    tried = 0
    with unchanged(space):
        for method, path, operation in operations(app):
            where = path.format(run_id=run_id, name="fine")
            content = b"{}" if "requestBody" in operation else None
            headers = {"Content-Type": "application/json"} if content else {}
            response = await client.request(
                method, where, params={"limt": "1"}, content=content, headers=headers
            )
            detail = check_problem(response, 422, "invalid")["detail"]
            assert detail.startswith("the request does not fit: query.limt: "), (method, path)
            read = sorted(
                each["name"] for each in operation.get("parameters", ()) if each["in"] == "query"
            )
            assert all(name in detail for name in read), (method, path)
            tried += 1
    assert tried > 20


async def test_the_text_says_what_can_be_sent(client: httpx.AsyncClient) -> None:
    """After a misspelt name, the answer lists the right one."""
    document = check_problem(await client.get("/runs?limt=1&state=failed"), 422, "invalid")
    rule = "is not a known query parameter; this route reads cursor, limit, state, target"
    assert document["errors"] == [{"at": "query.limt", "rule": rule}]
    detail = check_problem(await client.get("/agents?x"), 422)["detail"]
    assert detail.endswith("query.x: is not a known query parameter; this route reads none")


async def test_a_parameter_is_sent_once_unless_it_is_a_list(client: httpx.AsyncClient) -> None:
    """Of two values one would be ignored; ``run``, ``target`` and ``type`` of streams are lists."""
    run_id = await submitted(client)
    document = check_problem(await client.get("/runs?limit=1&limit=2"), 422, "invalid")
    assert document["errors"] == [{"at": "query.limit", "rule": "may be there only once"}]
    check_problem(await client.get(f"/runs/{run_id}/stream?control=1&control=1"), 422, "invalid")
    check_problem(await client.get(f"/stream?run={run_id}&run=unknown"), 404, "run-not-found")


async def test_a_head_is_checked_like_a_get(client: httpx.AsyncClient) -> None:
    """HEAD reads the same parameters as GET."""
    assert (await client.head("/runs?limit=1")).status_code == 200
    assert (await client.head("/runs?limt=1")).status_code == 422


async def test_an_app_below_a_path_checks_as_well(app: FastAPI) -> None:
    """The route is found wherever the app is mounted."""
    outer = FastAPI()
    outer.mount("/murmur", app)
    transport = httpx.ASGITransport(app=outer)
    async with httpx.AsyncClient(transport=transport, base_url="http://pod") as client:
        assert (await client.get("/murmur/runs?limit=1")).status_code == 200
        assert (await client.get("/murmur/runs?limt=1")).status_code == 422


async def test_credentials_come_before_the_query(
    guarded: httpx.AsyncClient, callers: Callers, app: FastAPI
) -> None:
    """A caller without credentials learns nothing of what a route reads."""
    del callers
    for method, path, _ in operations(app):
        if path not in PROBES:
            where = path.format(run_id="r-1", name="fine")
            response = await guarded.request(method, f"{where}?limt=1")
            assert response.status_code in {401, 415}, (method, path)


@pytest.mark.parametrize(
    "path",
    [
        "/runs/{run_id}/stream?after=-1&control=1",
        "/runs/{run_id}/stream?ticket=not-read-without-tokens&after=",
        "/stream?run={run_id}&control=0&after=-1&ticket=x",
        "/runs/{run_id}/events?after=-1&limit=1&wait=0",
        "/runs/{run_id}/journal?after=&limit=1",
        "/runs?state=failed&target=fine&limit=1",
    ],
)
async def test_what_a_route_reads_is_taken(client: httpx.AsyncClient, path: str) -> None:
    """Cursors, tickets and filters in query strings work as before."""
    run_id = await submitted(client)
    await client.post(f"/runs/{run_id}/cancel")
    response = await client.get(path.format(run_id=run_id))
    assert response.status_code in {200, 204}, response.text
