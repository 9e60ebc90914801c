"""The OpenAPI document: FastAPI's, completed with the problems of each route and our bodies."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Any

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.openapi.docs import get_redoc_html, get_swagger_ui_html
from fastapi.responses import HTMLResponse, JSONResponse
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from murmur_streams.server.inputs import reader_of_document
from murmur_streams.wire import problems as kinds
from murmur_streams.wire import requests
from murmur_streams.wire.answers import Problem

router = APIRouter()
pages = APIRouter()
"""The document as pages for people; an app has them only if its options say so."""
_READERS = [Depends(reader_of_document)]
_BLANK = "data:,"
_MODELS: tuple[type[BaseModel], ...] = (
    Problem,
    requests.SubmitRequest,
    requests.RunRequest,
    requests.GatherRequest,
    requests.CancelRequest,
)
"""Models that are in no route's signature."""
_LINES = "x-problems"
"""Lines for an answer's description; only while the document is being made."""
_TEMPLATE = "#/components/schemas/{model}"
_EVERYWHERE = (kinds.BAD_REQUEST, kinds.LONG_URL, kinds.INVALID, kinds.LONG_HEADERS, kinds.INTERNAL)
_OF_CALLERS = (kinds.UNAUTHORIZED, kinds.FORBIDDEN, kinds.DRAINING, kinds.UNAVAILABLE)
_OF_POSTS = (kinds.SLOW_BODY, kinds.TOO_LARGE, kinds.MEDIA)
_GRAMMARS = {
    "run_id": "[A-Za-z0-9][A-Za-z0-9._:-]{0,127}",
    "name": "[A-Za-z0-9][A-Za-z0-9._-]{0,127}",
}
"""Patterns of path parameters."""


def problems(*given: kinds.ProblemKind) -> dict[int | str, dict[str, Any]]:
    """The ``responses=`` of a route for these problems; ``_complete`` writes their descriptions."""
    found: dict[int | str, dict[str, Any]] = {}
    _add(found, given)
    return found


def make_router(tag: str) -> APIRouter:
    """A router whose operations are named like their functions."""
    return APIRouter(
        tags=[tag],
        responses=problems(kinds.INVALID),  # else FastAPI documents a 422 that is never sent
        generate_unique_id_function=lambda route: route.name,
    )


def request_body(model: type[BaseModel], *, required: bool = True) -> dict[str, Any]:
    """The ``openapi_extra=`` of a route that reads this body with ``body_of``."""
    schema = {"$ref": _TEMPLATE.format(model=model.__name__)}
    content = {"application/json": {"schema": schema}}
    return {"requestBody": {"required": required, "content": content}}


def preferring(*more: str) -> dict[str, Any]:
    """The ``openapi_extra=`` of a route that reads Prefer and these headers."""
    wait = "wait=N: answer when the run has ended, or after N seconds."
    headers = {
        "Prefer": wait,
        "Idempotency-Key": f"1 to {requests.LONGEST_HEADER_KEY} visible characters.",
    }
    same: dict[str, Any] = {"in": "header", "required": False, "schema": {"type": "string"}}
    names = ("Prefer", *more)
    return {"parameters": [{"name": name, "description": headers[name]} | same for name in names]}


@router.get("/openapi.json", include_in_schema=False, dependencies=_READERS)
async def read_document(request: Request) -> JSONResponse:
    """The document; its ``servers`` has the path below which a proxy shows the pod."""
    document: dict[str, Any] = request.app.openapi()
    path = _root_path(request)
    return JSONResponse(document | {"servers": [{"url": path}]} if path else document)


@pages.get("/docs", include_in_schema=False, dependencies=_READERS)
async def read_swagger_page(request: Request) -> HTMLResponse:
    """The document as a page of Swagger UI."""
    url = f"{_root_path(request)}/openapi.json"
    return get_swagger_ui_html(openapi_url=url, title=request.app.title, swagger_favicon_url=_BLANK)


@pages.get("/redoc", include_in_schema=False, dependencies=_READERS)
async def read_redoc_page(request: Request) -> HTMLResponse:
    """The document as a page of ReDoc."""
    url = f"{_root_path(request)}/openapi.json"
    return get_redoc_html(
        openapi_url=url, title=request.app.title, redoc_favicon_url=_BLANK, with_google_fonts=False
    )


def _root_path(request: Request) -> str:
    return str(request.scope.get("root_path", "")).rstrip("/")


class DocumentedApp(FastAPI):
    """FastAPI with a complete document: by itself it lacks our problems and request bodies."""

    def openapi(self) -> dict[str, Any]:
        """The document, which is made once."""
        if self.openapi_schema is None:
            self.openapi_schema = _completed(super().openapi())
        return self.openapi_schema

    @cached_property
    def queries(self) -> dict[tuple[str, str], dict[str, bool]]:
        """The query parameters by method, in lower case, and path; whether each may repeat."""
        document = self.openapi()
        schemes: dict[str, Any] = document["components"].get("securitySchemes", {})
        return {
            (method, path): dict(sorted(_queries(operation, schemes)))
            for path, operations in document["paths"].items()
            for method, operation in operations.items()
        }


def _queries(operation: dict[str, Any], schemes: dict[str, Any]) -> Iterator[tuple[str, bool]]:
    for each in operation.get("parameters", ()):
        if each["in"] == "query":
            choices: list[dict[str, Any]] = each["schema"].get("anyOf", [each["schema"]])
            yield each["name"], any(choice.get("type") == "array" for choice in choices)
    for name in {name for choice in operation.get("security", ()) for name in choice}:
        if schemes[name].get("in") == "query":
            yield schemes[name]["name"], False


def _completed(document: dict[str, Any]) -> dict[str, Any]:
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    _, made = models_json_schema(
        [(model, "validation") for model in _MODELS], ref_template=_TEMPLATE
    )
    schemas.update({name: schema for name, schema in made["$defs"].items() if name not in schemas})
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            _complete(operation, _kinds_of(method, path, operation))
    document["components"]["schemas"] = dict(sorted(schemas.items()))
    return document


def _kinds_of(method: str, path: str, operation: dict[str, Any]) -> list[kinds.ProblemKind]:
    """The problems that do not depend on a route's subject: limits, access, the store."""
    return [
        *_EVERYWHERE,
        *(_OF_CALLERS if "security" in operation else ()),
        *(_OF_POSTS if method == "post" else ()),
        *((kinds.BAD_JSON,) if "requestBody" in operation else ()),
        *((kinds.READ_ONLY, kinds.UNKNOWN) if method in {"post", "delete"} else ()),
        *((kinds.RUN_NOT_FOUND, kinds.DAMAGED) if "{run_id}" in path else ()),
    ]


def _complete(operation: dict[str, Any], given: list[kinds.ProblemKind]) -> None:
    answers: dict[str, Any] = operation["responses"]
    _add(answers, given)
    for answer in answers.values():
        if lines := dict.fromkeys(answer.pop(_LINES, ())):
            schema = {"$ref": _TEMPLATE.format(model=Problem.__name__)}
            answer["description"] = "; ".join(lines)
            answer["content"] = {kinds.MEDIA_TYPE: {"schema": schema}}
    operation["responses"] = dict(sorted(answers.items()))
    for each in operation.get("parameters", ()):
        if each["in"] == "path" and each["name"] in _GRAMMARS:
            # Documented only: if FastAPI checked it, the answer would be 422, and is 400.
            each["schema"]["pattern"] = f"^{_GRAMMARS[each['name']]}$"


def _add(answers: dict[Any, dict[str, Any]], given: Iterable[kinds.ProblemKind]) -> None:
    for kind in given:
        answer = answers.setdefault(str(kind.status), {"description": ""})
        answer.setdefault(_LINES, []).append(f"{kind.slug}: {kind.title}")
