"""Responses that FastAPI does not make: problems, JSON of a model, and conditional requests."""

from __future__ import annotations

import hashlib
import json
import logging
import re

from fastapi import Request, Response
from pydantic import BaseModel

from murmur_streams.core.exception_text import error_message
from murmur_streams.core.model import errors
from murmur_streams.fleet.logs import LogThrottle, loggable, loggable_traceback
from murmur_streams.server.problems import problem_of
from murmur_streams.wire.problems import MEDIA_TYPE

logger = logging.getLogger("murmur_streams.server")
_OUTAGES = (
    errors.StoreConfigurationError,
    errors.StoreFullError,
    errors.StoreReadOnlyError,
    errors.StoreUnavailableError,
)
_outage_log = LogThrottle(logger, "requests are answered with 503")

_TAG = re.compile(r'(?:W/)?("[\x21\x23-\x7e\x80-\xff]*")')


def problem_answer(error: BaseException, request_id: str) -> Response:
    """The response to a request that failed; an error whose text stays inside is logged here."""
    problem = problem_of(error)
    if not problem.kind.shows_detail:
        log_problem(f"request {request_id}: {problem.kind.title}", error)
    content = json.dumps(problem.document(request_id), ensure_ascii=False).encode()
    return Response(content, problem.kind.status, problem.headers, MEDIA_TYPE)


def log_problem(what: str, error: BaseException) -> None:
    """Log an error that the client does not see: our own in one line, a bug with its traceback."""
    # By its type: a user's exception may override ``__class__`` with anything.
    kind = type(error)
    if issubclass(kind, _OUTAGES):
        # Every request fails with it: the log has one line a minute.
        _outage_log.failed(error)
        return
    is_ours = issubclass(kind, errors.MurmurError)
    logger.error(
        "%s: %s", what, loggable(error_message(error)) if is_ours else loggable_traceback(error)
    )


def json_answer(model: BaseModel, status: int = 200, *, waited: int | None = None) -> Response:
    """A model as JSON, without members that are null.

    Args:
        model: the body.
        status: the answer's status.
        waited: the seconds of ``Prefer: wait`` that were granted; None without one.
    """
    content = model.model_dump_json(exclude={name for name, value in model if value is None})
    headers = {} if waited is None else {"Preference-Applied": f"wait={waited}"}
    return Response(content, status, headers, media_type="application/json")


def conditional_answer(request: Request, model: BaseModel) -> Response:
    """A model as JSON with a strong ETag, or 304 if the client has the same bytes."""
    content = model.model_dump_json().encode()
    tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    headers = {"ETag": tag, "Cache-Control": "private, no-cache"}
    known = ", ".join(request.headers.getlist("If-None-Match"))
    # RFC 9110 asks for the weak comparison: W/"x" and "x" are equal.
    if known.strip() == "*" or tag in _TAG.findall(known):
        return Response(status_code=304, headers=headers)
    return Response(content, headers=headers, media_type="application/json")
