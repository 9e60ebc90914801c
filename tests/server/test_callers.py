"""The scopes of routes, and the runs that callers of each tenant see."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from murmur_streams import Fleet
from murmur_streams.server.auth import Scope
from murmur_streams.server.routes import runs
from tests.server.serving import Callers, check_problem, task, unchanged
from tests.servers import Space

NEEDED = [
    ("POST", "/submit", Scope.SUBMIT),
    ("POST", "/agents/fine/run", Scope.SUBMIT),
    ("POST", "/agents/fine/gather", Scope.SUBMIT),
    ("POST", "/groups/crew/run", Scope.SUBMIT),
    ("GET", "/runs", Scope.READ),
    ("GET", "/runs/r", Scope.READ),
    ("GET", "/runs/r/status", Scope.READ),
    ("GET", "/runs/r/result", Scope.READ),
    ("GET", "/runs/r/events", Scope.READ),
    ("GET", "/runs/r/journal", Scope.READ),
    ("GET", "/runs/r/stream", Scope.READ),
    ("GET", "/stream?run=r", Scope.READ),
    ("GET", "/metrics", Scope.READ),
    ("GET", "/agents", Scope.READ),
    ("GET", "/agents/fine/schema", Scope.READ),
    ("GET", "/groups", Scope.READ),
    ("GET", "/groups/crew/topology", Scope.READ),
    ("POST", "/runs/r/cancel", Scope.CANCEL),
    ("DELETE", "/runs/r", Scope.ADMIN),
    ("GET", "/events/stream", Scope.ADMIN),
]
OF_RUNS = [(method, path) for method, path, _ in NEEDED if path.startswith("/runs/r")]


@pytest.mark.parametrize(("method", "path", "scope"), NEEDED)
async def test_a_route_needs_its_scope(
    guarded: httpx.AsyncClient, callers: Callers, space: Space, method: str, path: str, scope: Scope
) -> None:
    """Without a token 401, without the scope 403, and nothing is written."""
    others = [each for each in Scope if each not in {scope, Scope.ADMIN}]
    without = callers.add("without", others)
    with unchanged(space):
        response = await guarded.request(method, path)
        check_problem(response, 401, "unauthorized")
        assert response.headers["WWW-Authenticate"].startswith("Bearer")
        check_problem(await guarded.request(method, path, headers=without), 403, "forbidden")


@pytest.mark.parametrize("path", ["/submit", "/agents/fine/run"])
async def test_who_has_no_credentials_has_no_body_read(
    guarded: httpx.AsyncClient, space: Space, path: str
) -> None:
    """A stranger with a malformed body gets 401."""
    with unchanged(space):
        response = await guarded.post(
            path, content=b"{", headers={"Content-Type": "application/json"}
        )
        check_problem(response, 401)


@pytest.mark.parametrize(("method", "path"), OF_RUNS)
async def test_anothers_run_is_as_if_it_were_not_there(
    guarded: httpx.AsyncClient, callers: Callers, space: Space, method: str, path: str
) -> None:
    """Callers of other tenants get the answer for a missing run."""
    scopes = [Scope.SUBMIT, Scope.READ, Scope.CANCEL]
    owner, other = callers.add("a", scopes, "a"), callers.add("b", scopes, "b")
    tenantless = callers.add("n", scopes)
    await guarded.post("/submit", json=task(run_id="r"), headers=owner)
    answers = []
    with unchanged(space):
        for who, name in ((other, "r"), (tenantless, "r"), (other, "x"), (tenantless, "x")):
            headers = who | {"X-Request-Id": "same"}
            url = path.replace("/runs/r", f"/runs/{name}")
            response = await guarded.request(method, url, headers=headers)
            # Only an admin may delete, and an admin sees every run.
            check_problem(response, 403 if method == "DELETE" else 404)
            answers.append((response.text.replace("'x'", "'r'"), response.status_code))
    assert len(set(answers)) == 1


async def test_a_taken_run_id_has_one_answer_for_all_tenants(
    guarded: httpx.AsyncClient, callers: Callers, space: Space
) -> None:
    """The answer does not show which tenant has the run."""
    owner, other = (callers.add(name, [Scope.SUBMIT], name) for name in ("a", "b"))
    tenantless = callers.add("n", [Scope.SUBMIT])
    body = task(run_id="taken")
    assert (await guarded.post("/submit", json=body, headers=owner)).status_code == 200
    with unchanged(space):
        answers = [
            await guarded.post("/submit", json=each, headers=who | {"X-Request-Id": "same"})
            for who in (owner, other, tenantless)
            for each in (body, task("other", "echo", run_id="taken", priority=3))
        ]
    for answer in answers:
        check_problem(answer, 409, "run-exists")
    assert len({(answer.text, tuple(answer.headers.items())) for answer in answers}) == 1


async def test_a_run_is_its_owners_and_every_admins(
    guarded: httpx.AsyncClient, callers: Callers
) -> None:
    """Both read it; the admin may delete it."""
    owner = callers.add("a", [Scope.SUBMIT, Scope.READ], "a")
    admin = callers.add("root", [Scope.ADMIN])
    await guarded.post("/submit", json=task(run_id="r"), headers=owner)
    for who in (owner, admin):
        run = (await guarded.get("/runs/r", headers=who)).json()
        assert run["tenant"] == "a"
    assert (await guarded.delete("/runs/r?force=true", headers=admin)).status_code == 204


async def test_a_listing_shows_no_run_id_of_another_tenant(
    guarded: httpx.AsyncClient, callers: Callers, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A caller without a tenant finds each of its runs once, and no cursor has another's id."""
    monkeypatch.setattr(runs, "MOST_PAGES", 3)
    tenantless = callers.add("n", [Scope.READ])
    tenants = ["a"] * 12 + [None] + ["a"] * 9 + [None, None] + ["a"] * 8
    for number, tenant in enumerate(tenants):
        await fleet.submit("fine", 1, run_id=f"run-{number}", tenant=tenant)
        await asyncio.sleep(0.002)
    listed, following = list[str](), list[str]()
    page = (await guarded.get("/runs?limit=2", headers=tenantless)).json()
    while True:
        listed += [run["run_id"] for run in page["runs"]]
        if page["next"] is None:
            break
        following.append(page["next"])
        url = f"/runs?limit=2&cursor={page['next']}"
        page = (await guarded.get(url, headers=tenantless)).json()
    assert listed == ["run-23", "run-22", "run-12"]
    assert len(following) > 2
    assert {cursor.partition(":")[2] for cursor in following} <= {"0", *listed}


async def test_a_waiting_submitter_gets_its_own_run(
    guarded: httpx.AsyncClient, callers: Callers
) -> None:
    """Without the scope to read, Prefer: wait still answers."""
    owner = callers.add("a", [Scope.SUBMIT], "a")
    response = await guarded.post("/submit", json=task(), headers=owner | {"Prefer": "wait=0"})
    assert response.json()["state"] == "pending"
