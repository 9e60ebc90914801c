"""The ASGI app of one pod: routes, guard and problems, put together."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any, cast

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from murmur_streams.fleet.fleet import Fleet
from murmur_streams.server import openapi
from murmur_streams.server.guard import Identity, RequestLimits, has_head, route_path
from murmur_streams.server.options import ServerOptions
from murmur_streams.server.pod import Pod
from murmur_streams.server.responses import invalid, problem_answer
from murmur_streams.server.routes import agents, health, runs, streams
from murmur_streams.server.stream_response import Unwound
from murmur_streams.settings import check_origin
from murmur_streams.wire import problems as kinds

_ROUTERS = (runs.router, streams.router, agents.router, health.router, openapi.router)
_KINDS = {404: kinds.NOT_FOUND, 413: kinds.TOO_LARGE, 400: kinds.BAD_REQUEST}
CORS_METHODS = ("GET", "HEAD", "POST", "DELETE")
CORS_SENT = (
    "Accept",
    "Authorization",
    "Content-Type",
    "Idempotency-Key",
    "If-None-Match",
    "Last-Event-ID",
    "Prefer",
    "Traceparent",
    "Tracestate",
    "X-Request-Id",
)
"""Headers that a page may send."""
CORS_SEEN = (
    "Allow",
    "ETag",
    "Idempotent-Replayed",
    "Location",
    "Murmur-Warning",
    "Preference-Applied",
    "Retry-After",
    "WWW-Authenticate",
    "X-Request-Id",
)
"""Headers that a page may read, besides those that browsers always allow."""


def make_app(fleet: Fleet, options: ServerOptions | None = None) -> FastAPI:
    """Make the app of a pod; it does no I/O before its first request.

    It may be mounted in another app, whose lifespan does not matter to it. `murmur-streams serve`
    ends the open streams when it stops. Under another server, call ``app.state.pod.drain.set()``
    then, or set that server's time limit for open connections: most servers end the lifespan, which
    also drains and closes the fleet's store, only after all connections are closed.

    Raises:
        ValueError: an entry of ``cors_origins`` is not an origin; ``*`` is not one.
    """
    pod = Pod(fleet, options or ServerOptions())
    # Checked here: middleware is made at the first request, which is too late for an error.
    origins = tuple(check_origin(origin) for origin in pod.options.cors_origins)
    app = openapi.DocumentedApp(
        title="murmur-streams",
        version=version("murmur-streams"),
        description="Submit runs, read and stream them from any pod, cancel them.",
        # Our own routes serve the document and its pages: they check the caller's rights.
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=_lifespan,
    )
    app.state.pod = pod
    routers = (*_ROUTERS, openapi.pages) if pod.options.docs else _ROUTERS
    for router in routers:
        # As they are: `include_router` would make each route again at the app's first request.
        app.router.routes.extend(router.routes)
    app.add_exception_handler(HTTPException, _router_error)
    app.add_exception_handler(RequestValidationError, _invalid_parameters)
    # The last one added is the outermost.
    app.add_middleware(Unwound)
    app.add_middleware(RequestLimits, pod=pod)
    app.add_middleware(with_cors, origins=origins)
    app.add_middleware(Identity, metrics=pod.metrics)
    return app


def with_cors(app: ASGIApp, origins: tuple[str, ...]) -> ASGIApp:
    """The app, open from a browser to pages of exactly these origins, which were checked before.

    It must be around ``RequestLimits``, so that a page can read its problem documents. Cookies and
    other credentials that a browser adds by itself are not used: a page sends a token or a ticket.
    """
    if not origins:
        return app
    return CORSMiddleware(
        app,
        allow_origins=origins,
        allow_methods=CORS_METHODS,
        allow_headers=CORS_SENT,
        expose_headers=CORS_SEEN,
        allow_credentials=False,
    )


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncGenerator[None]:
    pod: Pod = app.state.pod
    yield
    pod.drain.set()
    await pod.fleet.close()


def _router_error(request: Request, error: Exception) -> Response:
    """The problem document for an error of the router."""
    found = cast("HTTPException", error)
    problem = kinds.ProblemError(_KINDS.get(found.status_code, kinds.INTERNAL))
    if found.status_code == kinds.METHOD.status:
        headers = {"Allow": ", ".join(sorted(_methods(request)))}
        if request.method == "OPTIONS":
            return Response(status_code=204, headers=headers)
        problem = kinds.ProblemError(kinds.METHOD, headers=headers)
    return problem_answer(problem, request.state.request_id)


def _methods(request: Request) -> set[str]:
    """The methods of a path. The router names those of one route; others may have the same path."""
    path, found = route_path(request.scope), {"OPTIONS"}
    for route in request.app.routes:
        if isinstance(route, APIRoute) and route.path_regex.match(path):
            found.update(route.methods or ())
    return found | {"HEAD"} if "GET" in found and has_head(path) else found


def _invalid_parameters(request: Request, error: Exception) -> Response:
    """The problem document for parameters that break their rules."""
    found = cast("list[Any]", cast("RequestValidationError", error).errors())
    return problem_answer(invalid("the request", found), request.state.request_id)
