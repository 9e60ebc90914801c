"""Turns the problem documents of a server into the library's own exceptions.

::

    MurmurError
    ├── HTTPError                       an answer without an exception of its own
    │   ├── UnauthorizedError           401
    │   ├── ForbiddenError              403
    │   └── UnreadableAnswerError       too large, or not from a murmur-streams server
    └── … those of ``murmur_streams.core.model.errors``, as if the runs were here
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from murmur_streams.core.model import errors
from murmur_streams.core.model.errors import MurmurError
from murmur_streams.core.model.limits import MAX_ERROR_CHARACTERS
from murmur_streams.wire import problems


class HTTPError(MurmurError):
    """The server answered with a problem for which the library has no other exception."""

    def __init__(
        self,
        message: str,
        status: int | None = None,
        problem: Mapping[str, Any] | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        """The status of the answer; None when no answer could be read."""
        self.problem: dict[str, Any] = dict(problem or {})
        """The problem document; empty when the answer had none."""
        self.request_id = request_id
        """The id of the request in the server's log."""


class UnauthorizedError(HTTPError):
    """The server requires a token, or rejects this one."""


class ForbiddenError(HTTPError):
    """The token does not permit this."""


class UnreadableAnswerError(HTTPError):
    """The answer is too large, or does not come from a murmur-streams server."""


@dataclass(frozen=True, slots=True)
class ReceivedProblem:
    """An answer other than success, as far as it could be read."""

    status: int
    document: Mapping[str, Any] = field(default_factory=dict[str, Any])
    request_id: str | None = None
    run_id: str = ""
    """The run that the request was about; "" when it was about none."""
    target: str = ""
    key: str = ""
    """The idempotency key that was sent."""

    @property
    def slug(self) -> str:
        """The slug of its kind; "" for an answer without one."""
        kind = self.document.get("type")
        return kind.removeprefix(problems.TYPE_PREFIX) if isinstance(kind, str) else ""

    @property
    def detail(self) -> str:
        """Its text for people."""
        for name in ("detail", "message", "title"):
            text = self.document.get(name)
            if isinstance(text, str) and text:
                return text[:MAX_ERROR_CHARACTERS]
        return f"the server answered {self.status}"


BY_SLUG: dict[str, type[BaseException]] = {
    **{slug: problems.EXCEPTIONS.get(slug, HTTPError) for slug in problems.SLUGS},
    problems.UNAUTHORIZED.slug: UnauthorizedError,
    problems.FORBIDDEN.slug: ForbiddenError,
}
"""The exception of each kind of problem."""

BY_NAME: dict[str, type[BaseException]] = {
    "RegistryError": errors.RegistryError,
    "ServerShuttingDown": errors.StoreUnavailableError,
    "SpecValidationError": errors.InvalidInputError,
    "TrustViolationError": ForbiddenError,
    "Unauthorized": UnauthorizedError,
}
"""The exceptions by ``error``, for servers that do not write problem documents."""

_BY_STATUS: dict[int, type[BaseException]] = {401: UnauthorizedError, 403: ForbiddenError}


def error_of(problem: ReceivedProblem) -> BaseException:
    """The exception for an answer. It has the request's id as a note."""
    kind = _kind(problem)
    if issubclass(kind, HTTPError):
        text = f"{problem.detail} (HTTP {problem.status})"
        error = kind(text, problem.status, problem.document, problem.request_id)
    else:
        # The class's __init__ is not called: an answer lacks some of its arguments.
        error = kind.__new__(kind, problem.detail)
        for name, value in _attributes(kind, problem).items():
            setattr(error, name, value)
    if problem.request_id:
        error.add_note(f"request id: {problem.request_id}")
    return error


def _kind(problem: ReceivedProblem) -> type[BaseException]:
    kind = BY_SLUG.get(problem.slug)
    if kind is not None:
        return kind
    name = problem.document.get("error")
    kind = BY_NAME.get(name) if isinstance(name, str) else None
    if (
        kind is errors.RegistryError
        and problem.run_id
        and problem.status == problems.RUN_NOT_FOUND.status
    ):
        return errors.RunNotFoundError
    return kind or _BY_STATUS.get(problem.status, HTTPError)


def _attributes(kind: type[BaseException], problem: ReceivedProblem) -> dict[str, Any]:
    document = problem.document
    run_id = problem.run_id
    if issubclass(kind, errors.CursorError):
        return {"resume_cursor": _text(document, "resume_cursor")}
    if issubclass(kind, errors.PayloadTooLargeError):
        return {"size": _number(document, "size"), "limit": _number(document, "limit")}
    if issubclass(kind, errors.IdempotencyConflictError):
        taken = _text(document, "run_id") or run_id
        return {"run_id": taken, "target": problem.target, "key": problem.key}
    if issubclass(kind, errors.RunNotTerminalError):
        return {"run_id": run_id, "state": _text(document, "state") or ""}
    if issubclass(kind, errors.RunDamagedError):
        damaged = _text(document, "run_id") or run_id
        can_rebuild = document.get("can_rebuild") is not False
        return {"run_id": damaged, "what": problem.detail, "can_rebuild": can_rebuild}
    of_a_run = (errors.RunNotFoundError, errors.RunExistsError)
    return {"run_id": run_id} if issubclass(kind, of_a_run) else {}


def _text(document: Mapping[str, Any], name: str) -> str | None:
    value = cast("object", document.get(name))
    return value if isinstance(value, str) else None


def _number(document: Mapping[str, Any], name: str) -> int:
    value = cast("object", document.get(name))
    return value if type(value) is int else 0
