"""Rejects query parameters that a route does not read, so that a misspelt one is noticed.

The OpenAPI document says which ones a route reads, so the document and the check cannot differ.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from fastapi import FastAPI
from fastapi.requests import HTTPConnection

from murmur_streams.server.problems import invalid

Documented = Callable[[], dict[tuple[str, str], tuple[str, ...]]]
"""The names of the query parameters by method, in lower case, and path of an operation."""


def documented_queries(app: FastAPI) -> Documented:
    """Return a function that finds the query parameters of each operation; it does so once."""

    @cache
    def found() -> dict[tuple[str, str], tuple[str, ...]]:
        document = app.openapi()
        schemes: dict[str, Any] = document["components"].get("securitySchemes", {})
        return {
            (method, path): tuple(sorted(_names(operation, schemes)))
            for path, operations in document["paths"].items()
            for method, operation in operations.items()
        }

    return found


def check_query(connection: HTTPConnection) -> None:
    """Reject query parameters that the route does not read.

    Raises:
        ProblemError: the text names them, and those that the route reads.
    """
    documented: Documented = connection.app.state.queries
    scope = connection.scope
    known = documented()[scope["method"].lower(), scope["route"].path_format]
    reads = f"this route reads {', '.join(known)}" if known else "this route reads none"
    unknown = dict.fromkeys(name for name in connection.query_params if name not in known)
    if unknown:
        rule = f"is not a known query parameter; {reads}"
        raise invalid("the request", [{"loc": ("query", name), "msg": rule} for name in unknown])


async def refuse_unknown_queries(connection: HTTPConnection) -> None:
    """The dependency of a route that needs no credentials; see ``check_query``."""
    check_query(connection)


def _names(operation: dict[str, Any], schemes: dict[str, Any]) -> set[str]:
    names = {each["name"] for each in operation.get("parameters", ()) if each["in"] == "query"}
    named = {name for choice in operation.get("security", ()) for name in choice}
    used = [schemes[name] for name in named]
    return names | {scheme["name"] for scheme in used if scheme.get("in") == "query"}
