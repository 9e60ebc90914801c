"""The ASGI app of one pod: routes, guard and problems, put together."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any, cast

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from murmur_streams.fleet.fleet import Fleet
from murmur_streams.server import openapi
from murmur_streams.server.answering import problem_answer, request_id_of
from murmur_streams.server.cors import with_cors
from murmur_streams.server.guard import Identity, Limits, path_methods, route_path
from murmur_streams.server.metrics import Metrics
from murmur_streams.server.openapi import DocumentedApp
from murmur_streams.server.options import ServerOptions
from murmur_streams.server.pod import Pod
from murmur_streams.server.problems import ProblemError, invalid
from murmur_streams.server.queries import documented_queries
from murmur_streams.server.routes import agents, health, runs, streams, submit, tickets
from murmur_streams.server.stream_response import Unwound
from murmur_streams.settings import check_origin
from murmur_streams.wire.problems import (
    BAD_REQUEST,
    INTERNAL,
    INVALID,
    METHOD,
    NOT_FOUND,
    TOO_LARGE,
)

_ROUTERS = (
    submit.router,
    # First what has a name: /runs/{run_id} takes any.
    streams.router,
    tickets.router,
    runs.router,
    agents.router,
    health.router,
    openapi.router,
)
_KINDS = {404: NOT_FOUND, 413: TOO_LARGE, 400: BAD_REQUEST}


def make_app(fleet: Fleet, options: ServerOptions | None = None) -> FastAPI:
    """Make the app of a pod; it does no I/O until it is asked something.

    Mounted in another app it needs nothing of that one's life to begin. `murmur-streams serve` lets
    the open streams go when it is told to stop; under another server set
    ``app.state.pod.drain`` then, or give it a bound for open connections: most end the lifespan,
    which drains too and closes the fleet's store, only when all connections are closed.

    Raises:
        ValueError: one of ``cors_origins`` is no origin, ``*`` for one.
    """
    pod = Pod(fleet, options or ServerOptions())
    # Middleware is made at the first request, which is too late to say so.
    origins = tuple(check_origin(origin) for origin in pod.options.cors_origins)
    app = DocumentedApp(
        title="murmur-streams",
        version=version("murmur-streams"),
        description="Submit runs, read and stream them from any pod, cancel them.",
        # Routes of ours serve the document and its pages: they check who may read it.
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=_lifespan,
        generate_unique_id_function=lambda route: route.name,
        responses=openapi.problems(INVALID),  # else FastAPI documents a 422 that is never sent
    )
    app.state.pod = pod
    app.state.metrics = Metrics(pod)
    routers = (*_ROUTERS, openapi.pages) if pod.options.docs else _ROUTERS
    for router in routers:
        app.include_router(router)
    app.state.allowed = path_methods(routers)
    app.state.queries = documented_queries(app)
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(RequestValidationError, _misfit)
    # The last one is the outermost.
    app.add_middleware(Unwound)
    app.add_middleware(Limits, pod=pod, allowed=app.state.allowed)
    app.add_middleware(with_cors, origins=origins)
    app.add_middleware(Identity, metrics=app.state.metrics)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncGenerator[None]:
    pod: Pod = app.state.pod
    yield
    pod.drain.set()
    await pod.fleet.close()


def _refused(request: Request, error: Exception) -> Response:
    """What the router refuses, as a problem."""
    refusal = cast("HTTPException", error)
    problem = ProblemError(_KINDS.get(refusal.status_code, INTERNAL))
    if refusal.status_code == METHOD.status:
        # A route knows its own methods, not those of its path.
        methods = request.app.state.allowed(route_path(request.scope))
        allow = ", ".join(methods) or (refusal.headers or {}).get("Allow", "")
        problem = ProblemError(METHOD, headers={"Allow": allow})
    return problem_answer(problem, request_id_of(request))


def _misfit(request: Request, error: Exception) -> Response:
    """Parameters that break their rules, as a problem."""
    found = cast("list[Any]", cast("RequestValidationError", error).errors())
    return problem_answer(invalid("the request", found), request_id_of(request))
