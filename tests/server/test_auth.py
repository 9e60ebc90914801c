"""The catalogue of bad credentials, line by line; a refused caller changes nothing."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.requests import HTTPConnection

from murmur_streams import Fleet
from murmur_streams.server import ServerOptions, make_app
from murmur_streams.server.auth import (
    LONGEST,
    BearerTokens,
    Principal,
    Scope,
    Token,
    digest,
)
from murmur_streams.server.inputs import is_still_valid
from tests.server.serving import check_problem, client_of, submitted, task, unchanged
from tests.servers import Space

ALL = "all-scopes-0123456789"
EXPIRED = "expired-0123456789"
SCOPED = {scope: f"{scope}-only-0123456789" for scope in Scope}
TENANTS = {tenant: f"tenant-{tenant}-0123456789" for tenant in ("acme", "umbrella")}
CALLER = frozenset({Scope.SUBMIT, Scope.READ, Scope.CANCEL})
OPEN = {"/health", "/healthz", "/readyz"}

ROUTES = [
    ("POST", "/submit"),
    ("GET", "/runs"),
    ("GET", "/runs/r-1"),
    ("GET", "/runs/r-1/stream"),
    ("POST", "/runs/r-1/cancel"),
    ("POST", "/runs/r-1/ticket"),
    ("DELETE", "/runs/r-1"),
    ("GET", "/events/stream"),
    ("GET", "/metrics"),
]


def tokens() -> BearerTokens:
    def made(token: str, name: str, scopes: frozenset[Scope], **more: Any) -> Token:
        return Token(digest(token.encode()), Principal(name, scopes, **more))

    return BearerTokens(
        [
            made(ALL, "all", CALLER),
            made(EXPIRED, "old", CALLER, expires_at=time.time() - 1),
            *(made(token, f"only-{scope}", frozenset({scope})) for scope, token in SCOPED.items()),
            *(made(token, tenant, CALLER, tenant=tenant) for tenant, token in TENANTS.items()),
        ]
    )


@pytest.fixture
def asking(fleet: Fleet) -> FastAPI:
    """An app that asks for tokens, and signs tickets."""
    app: FastAPI = make_app(fleet, ServerOptions(authenticator=tokens(), ticket_secret=b"s" * 32))
    return app


@pytest.fixture
async def stranger(asking: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(asking) as client:
        yield client


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.mark.parametrize(("method", "path"), ROUTES)
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([], 401),
        ([("Authorization", "")], 401),
        ([("Authorization", "Basic dXNlcjpwYXNz")], 401),
        ([("Authorization", "Bearer")], 401),
        ([("Authorization", "Bearer ")], 401),
        ([("Authorization", f"Bearer {'x' * 40}")], 401),
        ([("Authorization", f"Bearer {ALL[:-1]}")], 401),
        ([("Authorization", f"Bearer {ALL} ")], 401),
        ([("Authorization", f"Bearer  {ALL}")], 401),
        ([("Authorization", f" Bearer {ALL}")], 401),
        ([("Authorization", f"Bearer {ALL}\t")], 401),
        ([("Authorization", f"Bearer {ALL}\r\n")], 401),
        ([("Authorization", f"Bearer {ALL}\0")], 401),
        ([("Authorization", f"Bearer {ALL}, Bearer {ALL}")], 401),
        ([("Authorization", f"Bearer é{ALL}")], 401),
        ([("Authorization", ALL)], 401),
        ([("Authorization", f"Bearer {EXPIRED}")], 401),
        ([("X-Authorization", f"Bearer {ALL}")], 401),
        ([("Cookie", f"token={ALL}; Authorization=Bearer {ALL}")], 401),
        ([("Authorization", f"Bearer {ALL}"), ("Authorization", f"Bearer {ALL}")], 400),
        ([("Authorization", f"Bearer {ALL}"), ("authorization", "Basic eA==")], 400),
        ([("Authorization", "Bearer " + "x" * (LONGEST + 1))], 431),
        ([("Authorization", "Bearer " + "x" * 1_000_000)], 431),
    ],
    ids=[
        *("none", "empty", "basic", "no token", "empty token", "unknown", "cut", "space behind"),
        *("two spaces", "space before", "tab", "newline", "nul", "list", "not ascii", "bare"),
        *("expired", "other header", "cookie", "two", "two schemes", "long", "a megabyte"),
    ],
)
async def test_without_good_credentials_nothing_is_done(
    stranger: httpx.AsyncClient,
    space: Space,
    method: str,
    path: str,
    headers: list[tuple[str, str]],
    status: int,
) -> None:
    """Each kind of bad credentials on each route: 401 or 400, and nothing is written."""
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers]
    body: Any = {"json": task()} if path == "/submit" else {}
    with unchanged(space):
        answer = await stranger.request(method, path, headers=raw, **body)
    document = check_problem(answer, status)
    assert answer.headers.get("WWW-Authenticate") == ("Bearer" if status == 401 else None)
    assert ALL not in answer.text
    assert document["detail"]


@pytest.mark.parametrize("name", ["access_token", "token", "authorization", "api_key", "ticket"])
@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_no_token_counts_in_a_url(
    stranger: httpx.AsyncClient,
    space: Space,
    caplog: pytest.LogCaptureFixture,
    name: str,
    method: str,
    path: str,
) -> None:
    """A token in the query is ignored and not logged."""
    caplog.set_level("DEBUG", "murmur_streams")
    with unchanged(space):
        answer = await stranger.request(method, path, params={name: ALL})
    check_problem(answer, 401)
    assert ALL not in caplog.text


def test_every_route_but_the_probes_asks_who_calls(asking: FastAPI) -> None:
    """The OpenAPI document declares security for all others."""
    unasked = {
        path
        for path, operations in asking.openapi()["paths"].items()
        for operation in operations.values()
        if not operation.get("security")
    }
    assert unasked - {"/metrics"} == OPEN
    schemes = asking.openapi()["components"]["securitySchemes"]
    assert {each["type"] for each in schemes.values()} == {"http", "apiKey"}


async def test_the_document_is_for_those_who_may_come_in(
    asking: FastAPI, stranger: httpx.AsyncClient
) -> None:
    """Where the pod asks for tokens, /openapi.json asks too; a token of any scope is enough."""
    for method in ("GET", "HEAD"):
        refused = await stranger.request(method, "/openapi.json")
        assert (refused.status_code, "WWW-Authenticate" in refused.headers) == (401, True)
    for token in SCOPED.values():
        answer = await stranger.get("/openapi.json", headers=bearer(token))
        assert answer.json() == asking.openapi()
    check_problem(await stranger.get("/openapi.json", headers=bearer(EXPIRED)), 401)


async def test_the_document_is_public_where_an_option_says_so(fleet: Fleet) -> None:
    """Everything else asks for a token as before."""
    app: FastAPI = make_app(fleet, ServerOptions(authenticator=tokens(), public_openapi=True))
    async with client_of(app) as client:
        assert (await client.get("/openapi.json")).json() == app.openapi()
        assert (await client.head("/openapi.json")).status_code == 200
        check_problem(await client.get("/runs"), 401)


async def test_each_documented_route_refuses_a_stranger(
    asking: FastAPI, stranger: httpx.AsyncClient, space: Space
) -> None:
    """A request without a token gets 401 on every route but the probes."""
    with unchanged(space):
        for path, operations in asking.openapi()["paths"].items():
            for method in operations:
                filled = path.replace("{run_id}", "r-1").replace("{name}", "echo")
                answer = await stranger.request(method.upper(), filled)
                assert (answer.status_code == 401) is (path not in OPEN), (method, path)


async def test_credentials_are_asked_for_before_a_body_is_read(stranger: httpx.AsyncClient) -> None:
    """A stranger with malformed JSON gets 401, not 400."""
    headers = {"Content-Type": "application/json"}
    answer = await stranger.post("/submit", content=b"{ no json", headers=headers)
    check_problem(answer, 401)


async def test_credentials_are_asked_for_before_a_run_is_looked_for(
    fleet: Fleet, stranger: httpx.AsyncClient
) -> None:
    """A stranger cannot find out whether a run exists."""
    known = (await fleet.submit("idle")).run_id
    for run_id in (known, "unknown", "not%20an%20id"):
        check_problem(await stranger.get(f"/runs/{run_id}"), 401)


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"], ids=["usual", "lower", "upper"])
async def test_the_scheme_is_known_in_any_case(stranger: httpx.AsyncClient, scheme: str) -> None:
    """Bearer, bearer and BEARER are equal."""
    answer = await stranger.get("/runs", headers={"Authorization": f"{scheme} {ALL}"})
    assert answer.status_code == 200


NEEDED = [
    ("POST", "/submit", Scope.SUBMIT),
    ("GET", "/runs", Scope.READ),
    ("GET", "/runs/{run_id}", Scope.READ),
    ("GET", "/runs/{run_id}/status", Scope.READ),
    ("GET", "/runs/{run_id}/result", Scope.READ),
    ("GET", "/runs/{run_id}/events", Scope.READ),
    ("GET", "/runs/{run_id}/journal", Scope.READ),
    ("GET", "/runs/{run_id}/stream", Scope.READ),
    ("POST", "/runs/{run_id}/ticket", Scope.READ),
    ("GET", "/agents", Scope.READ),
    ("POST", "/runs/{run_id}/cancel", Scope.CANCEL),
    ("DELETE", "/runs/{run_id}", Scope.ADMIN),
    ("GET", "/events/stream", Scope.ADMIN),
]


@pytest.mark.parametrize(("method", "path", "needed"), NEEDED)
async def test_another_scope_is_not_enough(
    fleet: Fleet,
    stranger: httpx.AsyncClient,
    space: Space,
    method: str,
    path: str,
    needed: Scope,
) -> None:
    """The answer is 403, and nothing is written."""
    run_id = (await fleet.submit("idle")).run_id
    body: Any = {"json": task()} if path == "/submit" else {}
    for scope in {Scope.SUBMIT, Scope.READ, Scope.CANCEL} - {needed}:
        headers = bearer(SCOPED[scope])
        with unchanged(space):
            answer = await stranger.request(
                method, path.format(run_id=run_id), headers=headers, **body
            )
        check_problem(answer, 403, "forbidden")
        assert f'scope="{needed}"' in answer.headers["WWW-Authenticate"]


@pytest.mark.parametrize(
    ("method", "path", "needed"), [each for each in NEEDED if not each[1].endswith("/stream")]
)
async def test_the_scope_is_enough_and_admin_is_all_of_them(
    fleet: Fleet, stranger: httpx.AsyncClient, method: str, path: str, needed: Scope
) -> None:
    """A token with the scope, or an admin's, is accepted."""
    body: Any = {"json": task()} if path == "/submit" else {}
    for scope in (needed, Scope.ADMIN):
        run_id = (await fleet.submit("idle")).run_id
        answer = await stranger.request(
            method, path.format(run_id=run_id), headers=bearer(SCOPED[scope]), **body
        )
        assert answer.status_code not in {401, 403, 404}, answer.text


@pytest.mark.parametrize(
    ("method", "path"),
    [
        (method, path)
        for method, path, needed in NEEDED
        if "{run_id}" in path and needed is not Scope.ADMIN
    ],
)
async def test_anothers_run_is_as_if_there_were_none(
    stranger: httpx.AsyncClient, space: Space, method: str, path: str
) -> None:
    """The answer equals that for a missing run."""
    stranger.headers.update(bearer(TENANTS["acme"]))
    run_id = await submitted(stranger)
    for token in (TENANTS["umbrella"], ALL):
        stranger.headers.update(bearer(token))
        with unchanged(space):
            foreign = await stranger.request(method, path.format(run_id=run_id))
            missing = await stranger.request(method, path.format(run_id="missing"))
        check_problem(foreign, 404, "run-not-found")
        assert blurred(foreign, run_id) == blurred(missing, "missing")
    listed = (await stranger.get("/runs")).json()["runs"]
    assert listed == []


def blurred(answer: httpx.Response, run_id: str) -> tuple[int, str, set[str]]:
    request_id = answer.headers["X-Request-Id"]
    text = answer.text.replace(run_id, "RUN").replace(request_id, "REQUEST")
    return answer.status_code, text, set(answer.headers)


async def test_a_tenants_run_is_there_for_it_and_for_an_admin(stranger: httpx.AsyncClient) -> None:
    """Both can read and list it."""
    stranger.headers.update(bearer(TENANTS["acme"]))
    run_id = await submitted(stranger)
    for token in (TENANTS["acme"], SCOPED[Scope.ADMIN]):
        answer = await stranger.get(f"/runs/{run_id}", headers=bearer(token))
        assert (answer.status_code, answer.json()["tenant"]) == (200, "acme")
        listed = (await stranger.get("/runs", headers=bearer(token))).json()["runs"]
        assert [each["run_id"] for each in listed] == [run_id]


async def test_a_rotated_token_is_refused_at_the_next_request(fleet: Fleet, tmp_path: Path) -> None:
    """The tokens file is read again without a restart."""
    file = tmp_path / "tokens.toml"
    record = '[[tokens]]\nname = "web"\ntoken = "{}"\nscopes = ["read"]\n'
    file.write_text(record.format(ALL))
    async with client_of(
        make_app(fleet, ServerOptions(authenticator=BearerTokens.of_file(file)))
    ) as client:
        assert (await client.get("/runs", headers=bearer(ALL))).status_code == 200
        file.write_text(record.format("another-0123456789"))
        check_problem(await client.get("/runs", headers=bearer(ALL)), 401)


async def test_an_open_streams_credentials_can_be_asked_after(fleet: Fleet, tmp_path: Path) -> None:
    """A token that was removed, replaced or given to another caller no longer holds."""
    file = tmp_path / "tokens.toml"
    record = '[[tokens]]\nname = "{}"\ntoken = "{}"\nscopes = ["read"]\n'
    file.write_text(record.format("web", ALL))
    app = make_app(fleet, ServerOptions(authenticator=BearerTokens.of_file(file)))
    headers = [(b"authorization", f"Bearer {ALL}".encode())]
    connection = HTTPConnection({"type": "http", "app": app, "headers": headers})
    web = Principal("web", frozenset({Scope.READ}))
    assert await is_still_valid(connection, web)
    assert not await is_still_valid(connection, replace(web, expires_at=time.time() - 1))
    assert await is_still_valid(connection, replace(web, name="any", run_id="r-1"))
    file.write_text(record.format("other", ALL))
    assert not await is_still_valid(connection, web)
    file.write_text(record.format("web", "another-0123456789"))
    assert not await is_still_valid(connection, web)


async def test_a_token_is_in_no_answer_and_no_log(
    stranger: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    """This holds for a right and for a wrong token."""
    caplog.set_level("DEBUG", "murmur_streams")
    answers = [
        await stranger.get("/runs", headers=bearer(ALL)),
        await stranger.get("/nowhere", headers=bearer(ALL)),
        await stranger.post("/submit", headers=bearer(ALL), content=b"{"),
        await stranger.get("/runs", headers=bearer(ALL + "x")),
    ]
    shown = caplog.text + "".join(answer.text + str(answer.headers) for answer in answers)
    assert ALL not in shown
    assert digest(ALL.encode()).hex() not in shown


async def test_a_server_without_tokens_ignores_credentials(
    client: httpx.AsyncClient,
) -> None:
    """Even malformed Authorization headers are accepted there."""
    for headers in ({}, bearer("whatever"), {"Authorization": "Basic eA=="}):
        assert (await client.get("/runs", headers=headers)).status_code == 200
