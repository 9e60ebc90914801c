"""Responses that FastAPI does not make: problem documents, JSON of a model, conditional requests.

A problem document (RFC 9457) has ``type``, ``title``, ``status``, ``detail`` and ``request_id``;
beside them the fields that clients of ``murmur-runtime`` read: ``error``, ``message``, ``agent``,
``task_id``. ``wire/problems.py`` has the table of exceptions. The text of an internal error is
logged under the request id and never sent.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from typing import Any

from fastapi import Request, Response
from pydantic import BaseModel

from murmur_streams.core.exception_text import error_message
from murmur_streams.core.model import errors
from murmur_streams.fleet.logs import LogThrottle, loggable, loggable_traceback
from murmur_streams.wire import problems as kinds

_MOST_SHOWN = 5
_SHOWN_CHARACTERS = 100


_REFUSED_WRITES: dict[type[BaseException], str] = {
    errors.StoreFullError: "The store has no free memory and takes no new work now",
    errors.StoreReadOnlyError: "The store takes no writes now: it is a replica",
}


def problem_of(error: BaseException) -> kinds.ProblemError:
    """The problem to answer with for an exception."""
    if isinstance(error, kinds.ProblemError):
        return error
    # By its type: a user's exception may override ``__class__`` with anything, or raise there.
    kind = next(
        (kind for made, kind in kinds.EXCEPTION_KINDS if issubclass(type(error), made)),
        kinds.INTERNAL,
    )
    if isinstance(error, errors.RunDamagedError):
        return kinds.ProblemError(
            kind, damage_detail(error), run_id=error.run_id, can_rebuild=error.can_rebuild
        )
    detail = error_message(error) if kind.shows_detail else None
    problem = kinds.ProblemError(kind, _REFUSED_WRITES.get(type(error), detail))
    if isinstance(error, errors.CursorError):
        problem.members["resume_cursor"] = error.resume_cursor
    return problem


def damage_detail(error: errors.RunDamagedError) -> str:
    """The commands that show and repair a damaged run. The damage itself is only in the log."""
    advice = (
        f"`murmur-streams rebuild {error.run_id}` makes it anew from its journal"
        if error.can_rebuild
        else "its journal cannot mend it: import it from an export, or delete it by force"
    )
    return (
        f"what is stored of run {error.run_id!r} is damaged; `murmur-streams audit "
        f"{error.run_id}` shows where, and {advice}"
    )


def invalid(what: str, errors: list[Any]) -> kinds.ProblemError:
    """The problem of values that break rules: it names the path and rule of each, not the value."""
    shown = [{"at": _path(each["loc"]), "rule": _clean(each["msg"])} for each in errors]
    first = "; ".join(f"{each['at']}: {each['rule']}" for each in shown[:_MOST_SHOWN])
    more = len(shown) - _MOST_SHOWN
    detail = f"{what} does not fit: {first}" + (f"; and {more} more" if more > 0 else "")
    return kinds.ProblemError(kinds.INVALID, detail, errors=shown[:_MOST_SHOWN])


def _path(loc: tuple[object, ...]) -> str:
    return _clean(".".join(str(part) for part in loc)) or "value"


def _clean(text: str) -> str:
    return ascii(text)[1:-1][:_SHOWN_CHARACTERS]


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
    return Response(content, problem.kind.status, problem.headers, kinds.MEDIA_TYPE)


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
