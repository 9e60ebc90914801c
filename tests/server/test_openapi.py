"""The OpenAPI document: it is true, and it changes only on purpose."""

from __future__ import annotations

import builtins
import json
import re
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.routing import Mount

from murmur_streams import Fleet, server
from murmur_streams.server import ServerOptions, make_app
from murmur_streams.wire import problems
from murmur_streams.wire.problems import MEDIA_TYPE
from tests.server.serving import Callers, check_problem, client_of

GOLDEN = Path(__file__).parent / "golden" / "openapi.json"
REF = "#/components/schemas/"


@pytest.fixture
def document(app: FastAPI) -> dict[str, Any]:
    return app.openapi()


def operations(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    """Method, path and operation of each route."""
    return [
        (method, path, operation)
        for path, found in document["paths"].items()
        for method, operation in found.items()
    ]


def references(part: Any) -> set[str]:
    """All the schemas that a part of the document names."""
    if isinstance(part, dict):
        own = {part["$ref"]} if isinstance(part.get("$ref"), str) else set[str]()
        return own.union(*(references(each) for each in part.values()))
    return (
        set[str]().union(*(references(each) for each in part)) if isinstance(part, list) else set()
    )


def test_it_is_the_golden_one(document: dict[str, Any]) -> None:
    """A change of the document must be made on purpose."""
    # For a change on purpose, write the new document there and a line into the changelog.
    document["info"]["version"] = "0"
    assert json.loads(GOLDEN.read_text(encoding="utf-8")) == document


async def test_it_is_served_without_a_page_around_it(
    client: httpx.AsyncClient, document: dict[str, Any]
) -> None:
    """/openapi.json has version 3.1."""
    assert (await client.get("/openapi.json")).json() == document
    assert document["openapi"].startswith("3.1")


def test_everything_it_names_is_in_it(document: dict[str, Any]) -> None:
    """Each reference has its schema."""
    schemas = document["components"]["schemas"]
    assert {ref.removeprefix(REF) for ref in references(document)} <= schemas.keys()
    assert "HTTPValidationError" not in schemas


def test_every_refusal_is_a_problem_document(document: dict[str, Any]) -> None:
    """Each error status has a description."""
    for method, path, operation in operations(document):
        for status, answer in operation["responses"].items():
            if int(status) < 400 or (path, status) == ("/readyz", "503"):
                continue
            assert answer["content"] == {MEDIA_TYPE: {"schema": {"$ref": f"{REF}Problem"}}}, path
            assert answer["description"], (method, path, status)


def test_every_kind_of_problem_is_one_that_a_route_gives(document: dict[str, Any]) -> None:
    """No problem is documented, mapped and read by clients that no route can answer with."""
    given = {
        line.partition(":")[0]
        for _, _, operation in operations(document)
        for answer in operation["responses"].values()
        for line in answer["description"].split("; ")
    }
    kinds = {
        each.slug for each in vars(problems).values() if isinstance(each, problems.ProblemKind)
    }
    # Answers of the router, not of a route: the path or its method does not exist.
    assert kinds - given == {"method-not-allowed", "not-found"}


def test_every_operation_has_a_name_of_its_own(document: dict[str, Any]) -> None:
    """No operationId stands twice."""
    names = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(set(names)) == len(names)


def test_what_reads_a_body_says_which(document: dict[str, Any]) -> None:
    """Each POST with a body names its schema."""
    bodies = {
        path: operation["requestBody"]["content"]["application/json"]["schema"]["$ref"]
        for method, path, operation in operations(document)
        if method == "post" and "requestBody" in operation
    }
    assert bodies == {
        "/submit": f"{REF}SubmitRequest",
        "/runs/{run_id}/cancel": f"{REF}CancelRequest",
        "/agents/{name}/run": f"{REF}RunRequest",
        "/agents/{name}/gather": f"{REF}GatherRequest",
        "/groups/{name}/run": f"{REF}RunRequest",
    }


def test_every_operation_but_a_probe_says_that_it_asks_who_calls(document: dict[str, Any]) -> None:
    """Only the three probes have no security."""
    open_to_all = {path for _, path, each in operations(document) if "security" not in each}
    assert open_to_all == {"/health", "/healthz", "/readyz"}


def test_making_an_app_does_no_input_or_output() -> None:
    """A server that does not exist does not matter."""
    fleet = Fleet("redis://no.such.host.invalid:1")
    assert make_app(fleet).state.pod.fleet is fleet


def test_an_app_is_made_with_options(fleet: Fleet) -> None:
    """An unknown option raises TypeError."""
    assert make_app(fleet, ServerOptions(max_streams=7)).state.pod.options.max_streams == 7
    unknown: dict[str, Any] = {"no_such_option": 1}
    with pytest.raises(TypeError, match="no_such_option"):
        ServerOptions(**unknown)


def test_a_missing_extra_names_the_pip_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error for a missing dependency has the command to type."""
    monkeypatch.delitem(vars(server), "make_app", raising=False)
    monkeypatch.delitem(sys.modules, "murmur_streams.server.app")
    plain = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.partition(".")[0] == "fastapi":
            raise ModuleNotFoundError(f"No module named {name!r}", name="fastapi")
        return plain(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"pip install 'murmur-streams\[server\]'"):
        server.make_app  # noqa: B018  # loaded when it is first used


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
async def test_pages_are_there_when_switched_on(fleet: Fleet, path: str) -> None:
    """A page shows the document of its own pod, also below a path; without ``docs`` it is a 404."""
    async with client_of(make_app(fleet)) as client:
        check_problem(await client.get(path), 404, "not-found")
    outer = Starlette(routes=[Mount("/below", app=make_app(fleet, ServerOptions(docs=True)))])
    async with client_of(outer) as client:
        page = await client.get(f"/below{path}")
        assert (await client.head(f"/below{path}")).status_code == 200
    assert page.headers["Content-Type"].startswith("text/html")
    assert "/below/openapi.json" in page.text


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
async def test_pages_follow_the_documents_access(fleet: Fleet, path: str) -> None:
    """Where the document needs a token, so do its pages."""
    for is_public, status in ((False, 401), (True, 200)):
        options = ServerOptions(authenticator=Callers(), docs=True, public_openapi=is_public)
        async with client_of(make_app(fleet, options)) as client:
            assert (await client.get(path)).status_code == status


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
async def test_pages_load_from_one_other_host(fleet: Fleet, path: str) -> None:
    """docs/http.md names the host that a page loads from."""
    async with client_of(make_app(fleet, ServerOptions(docs=True))) as client:
        loaded = re.findall(r'(?:src|href)="https?://([^/"]+)', (await client.get(path)).text)
    assert set(loaded) == {"cdn.jsdelivr.net"}
